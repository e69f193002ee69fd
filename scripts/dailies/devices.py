"""Devices: whether one that was asked for by name can be there, told in milliseconds and without torch."""

import ctypes
import platform
from importlib.metadata import PackageNotFoundError, version

from dailies.errors import ConfigError


def refuse_missing(device: str) -> None:
    """Raise ConfigError when ``device`` (``cuda``, ``cuda:1``, ``mps``) cannot be used on this machine.

    ``auto`` and ``cpu`` always can. The render job asks torch itself once more.
    """
    kind, _, index = device.partition(":")
    if kind == "mps" and platform.system() != "Darwin":
        raise ConfigError("device is mps, which only a Mac has; set device to auto, cuda or cpu")
    if kind != "cuda" or _torch_build().startswith("rocm"):  # AMD's devices are called cuda, without CUDA's driver
        return
    count = _cuda_devices()
    if count <= int(index or 0):
        found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        raise ConfigError(f"device is {device}, but this machine has {found}; set device to auto or cpu")
    if _torch_build() == "cpu":
        raise ConfigError(
            f"device is {device}, but the torch that is installed is built for the CPU only; "
            "set device to auto or cpu, or install a torch for CUDA"
        )


def _cuda_devices() -> int:
    """Count the devices that CUDA's driver shows to this process; CUDA_VISIBLE_DEVICES counts."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _torch_build() -> str:
    """Tell what torch is built for: ``cpu``, ``cu130``, ``rocm6.4``; "" where its version does not say."""
    try:
        return version("torch").partition("+")[2]
    except PackageNotFoundError:
        return ""
