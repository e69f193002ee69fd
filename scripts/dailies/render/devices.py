"""Devices: whether one can be there, told in milliseconds and without torch, and which of several is free."""

import ctypes
import logging
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core.errors import ConfigError, RenderError
from dailies.core.text import counted

if TYPE_CHECKING:
    from filelock import FileLock


log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that says which devices CUDA may use."""

ENTRY = re.compile(r"[0-9]+|(GPU|MIG)-.+")
"""What it may name; CUDA reads no further than the first entry that is something else."""

PAUSE = 1
"""Seconds between two looks for a free device."""


def refuse_missing(device: str) -> None:
    """Raise ConfigError when ``device`` (``cuda``, ``cuda:1``, ``mps``) cannot be used on this machine.

    ``auto`` and ``cpu`` always can. The render job asks torch itself once more.
    """
    kind, _, index = device.partition(":")
    if kind == "mps" and platform.system() != "Darwin":
        raise ConfigError(
            "device.mps_without_mac", "device is mps, which only a Mac has; set device to auto, cuda or cpu"
        )
    if kind != "cuda" or _torch_build().startswith("rocm"):  # AMD's devices are called cuda, without CUDA's driver
        return
    count = _cuda_devices()
    if count <= int(index or 0):
        found = counted(count, "CUDA device") if count else "no CUDA device"
        raise ConfigError(
            "device.missing", f"device is {device}, but this machine has {found}; set device to auto or cpu"
        )
    if _torch_build() == "cpu":
        raise ConfigError(
            "device.torch_without_cuda",
            f"device is {device}, but the installed torch is built for the CPU only; "
            "set device to auto or cpu, or install a torch for CUDA",
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


@contextmanager
def taken(device: str) -> Iterator[str]:
    """Take a CUDA device that no other render of this user on this machine has, waiting for one; give it back after.

    Inside the block CUDA_VISIBLE_DEVICES names that device alone, so enter it before torch is imported and call the
    device what this gives. ``auto`` and ``cuda`` take any, ``cuda:1`` the second. A single device that a scheduler
    assigned is taken without waiting. Where there is nothing to choose from, ``device`` is given as it is.

    Raises RenderError when the folder of the locks belongs to another user.
    """
    kind, _, index = device.partition(":")
    build = _torch_build()
    found = _visible() if kind in ("auto", "cuda") and build != "cpu" and not build.startswith("rocm") else {}
    wanted = dict(list(found.items())[int(index) :][:1]) if index else found
    if not wanted:
        yield device
        return
    before = os.environ.get(VISIBLE)
    entry, lock = _free(wanted, wait=before is None or len(found) > 1)
    os.environ[VISIBLE] = entry
    try:
        yield kind
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before
        lock.release()


def _free(wanted: Mapping[str, str], *, wait: bool) -> tuple[str, "FileLock"]:
    """Lock the first device that is free, and give its entry; without ``wait`` the last one even if it is not."""
    from filelock import FileLock, Timeout

    folder = _lock_folder()
    told = False
    while True:
        for entry, name in wanted.items():
            lock = FileLock(folder / f"{name.replace('/', '_')}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            log.info("CUDA device %s", entry)
            return entry, lock
        if not wait:
            log.info("CUDA device %s, which another render uses, too", entry)
            return entry, lock
        if not told:
            log.info("waiting for a free CUDA device, one of %s", ", ".join(wanted))
            told = True
        time.sleep(PAUSE)


def _lock_folder() -> Path:
    """Give a folder of this user and machine; TMPDIR may be another one for every job."""
    shared = Path("/tmp")
    user = os.getuid() if hasattr(os, "getuid") else ""
    folder = (shared if shared.is_dir() else Path(tempfile.gettempdir())) / f"dailies-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if user != "" and (folder.is_symlink() or folder.stat().st_uid != user):
        raise RenderError(
            "device.foreign_claims",
            f"{folder}, where renders agree on who uses which GPU, belongs to another user; delete or rename it",
        )
    return folder


def _visible() -> dict[str, str]:
    """Give the CUDA devices that this process may use: their entries in CUDA_VISIBLE_DEVICES, and lasting names."""
    listed = _listed()
    gpus = [name for name in listed if name.startswith("GPU-")]
    slices = [name for name in listed if name.startswith("MIG-")]
    said = os.environ.get(VISIBLE)
    if said is None:
        entries = slices or [str(number) for number in range(len(gpus))]
    else:
        entries = list(takewhile(ENTRY.fullmatch, (entry.strip() for entry in said.split(","))))
    return {entry: _lasting(entry, gpus) for entry in entries}


def _lasting(entry: str, gpus: list[str]) -> str:
    """Give the UUID that an entry means by number or by its beginning."""
    if entry.isdecimal():
        return gpus[int(entry)] if int(entry) < len(gpus) else entry
    return next((gpu for gpu in gpus if gpu.startswith(entry)), entry)


def _listed() -> list[str]:
    """Give the UUIDs of this machine's GPUs, and of the slices that they are cut into; none without NVIDIA's tool."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", done.stdout)
