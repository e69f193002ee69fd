"""Devices: check within milliseconds, without torch, whether one is usable, and find one that is free."""

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
    import torch
    from filelock import FileLock


log = logging.getLogger(__name__)

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The environment variable that lists the devices CUDA may use."""

ENTRY = re.compile(r"[0-9]+|(GPU|MIG)-.+")
"""A valid entry of that list; CUDA ignores everything from the first invalid one on."""

POLL_SECONDS = 1
"""How often to look for a free device."""


def refuse_missing(device: str) -> None:
    """Raise ConfigError if ``device`` (``cuda``, ``cuda:1``, ``mps``) is not usable on this machine.

    ``auto`` and ``cpu`` are always usable. The render job checks again with torch: see ``find_device``.
    """
    kind, _, index = device.partition(":")
    if kind == "mps" and platform.system() != "Darwin":
        raise ConfigError(
            "device.mps_without_mac", "device is mps, which only a Mac has; set device to auto, cuda or cpu"
        )
    if kind != "cuda" or _torch_build().startswith("rocm"):  # AMD's devices are called cuda but lack CUDA's driver
        return
    count = _count_cuda_devices()
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


def find_device(device: str) -> "torch.device":
    """Return torch's device for ``device``; ``auto`` is the best one available: cuda, then mps, then cpu.

    Imports torch. Raises RenderError if torch does not find the device.
    """
    import torch

    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    found = torch.device(device)
    is_there = {"cuda": (found.index or 0) < torch.cuda.device_count(), "mps": has_mps}.get(found.type, True)
    if not is_there:
        raise RenderError(
            "device.not_in_torch",
            f"device is {device}, but torch {torch.__version__} finds no such device on {platform.node()}; "
            "set device to auto or cpu, or install a torch that supports it",
        )
    return found


@contextmanager
def claimed(device: str) -> Iterator[str]:
    """Claim a CUDA device for this block and yield its name for torch; wait until one is free.

    No other render of this user on this machine uses it meanwhile. Inside the block CUDA_VISIBLE_DEVICES lists that
    device alone, so enter the block before torch is imported. ``auto`` and ``cuda`` claim any device, ``cuda:1`` the
    second one. A single device that a scheduler assigned is used without waiting. If there is nothing to choose from,
    ``device`` is yielded unchanged.

    Raises RenderError if the folder of the locks belongs to another user.
    """
    kind, _, index = device.partition(":")
    build = _torch_build()
    found = _visible_devices() if kind in ("auto", "cuda") and build != "cpu" and not build.startswith("rocm") else {}
    wanted = dict(list(found.items())[int(index) :][:1]) if index else found
    if not wanted:
        yield device
        return
    before = os.environ.get(VISIBLE)
    entry, lock = _lock_free_device(wanted, wait=before is None or len(found) > 1)
    os.environ[VISIBLE] = entry
    try:
        yield kind
    finally:
        if before is None:
            del os.environ[VISIBLE]
        else:
            os.environ[VISIBLE] = before
        lock.release()


def _count_cuda_devices() -> int:
    """Return how many devices CUDA's driver shows to this process; it respects CUDA_VISIBLE_DEVICES."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _torch_build() -> str:
    """Return what torch is built for: ``cpu``, ``cu130``, ``rocm6.4``; "" if its version does not say."""
    try:
        return version("torch").partition("+")[2]
    except PackageNotFoundError:
        return ""


def _lock_free_device(wanted: Mapping[str, str], *, wait: bool) -> tuple[str, "FileLock"]:
    """Lock the first free device and return its entry.

    If none is free, wait for one; without ``wait`` return the last device, although another render uses it.
    """
    from filelock import FileLock, Timeout

    folder = _lock_folder()
    has_logged = False
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
            log.info("CUDA device %s, which another render also uses", entry)
            return entry, lock
        if not has_logged:
            log.info("waiting for a free CUDA device, one of %s", ", ".join(wanted))
            has_logged = True
        time.sleep(POLL_SECONDS)


def _lock_folder() -> Path:
    """Return a folder that all jobs of this user on this machine share; TMPDIR may differ between jobs."""
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


def _visible_devices() -> dict[str, str]:
    """Return the CUDA devices that this process may use: their entries in CUDA_VISIBLE_DEVICES, and their UUIDs."""
    uuids = _list_uuids()
    gpus = [uuid for uuid in uuids if uuid.startswith("GPU-")]
    slices = [uuid for uuid in uuids if uuid.startswith("MIG-")]
    visible = os.environ.get(VISIBLE)
    if visible is None:
        entries = slices or [str(number) for number in range(len(gpus))]
    else:
        entries = list(takewhile(ENTRY.fullmatch, (entry.strip() for entry in visible.split(","))))
    return {entry: _uuid(entry, gpus) for entry in entries}


def _uuid(entry: str, gpus: list[str]) -> str:
    """Return the UUID that an entry refers to by number or by prefix; the entry itself if it is unknown."""
    if entry.isdecimal():
        return gpus[int(entry)] if int(entry) < len(gpus) else entry
    return next((gpu for gpu in gpus if gpu.startswith(entry)), entry)


def _list_uuids() -> list[str]:
    """Return the UUIDs of this machine's GPUs and MIG slices; none if ``nvidia-smi`` does not run."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"\(UUID: ((?:GPU|MIG)-[^)]+)\)", done.stdout)
