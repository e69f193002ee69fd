"""The lock of an output folder: only one invocation at a time may use it, from any working directory."""

import atexit
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dailies.core import files
from dailies.core.errors import ConfigError, FolderInUse
from dailies.core.typed import Record, to_json
from dailies.state.layout import Layout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OF_SNAKEMAKE = Path(".snakemake/locks")
"""Snakemake's folder of locks, in the working directory: text files that list the paths that an invocation uses."""


@dataclass(frozen=True)
class Holder(Record):
    """``lock``: the process that holds the lock."""

    host: str
    pid: int
    started: str
    """Local time, as ``2026-01-31 12:00:00``."""

    @property
    def is_local(self) -> bool:
        """Whether the process runs on this machine."""
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.started}"


def take(layout: Layout) -> None:
    """Take the lock of an output folder until this process ends.

    If a process on this machine is killed, the system frees its lock. This machine cannot
    detect the end of a process on another one, so that lock stays until the user removes it.

    Raises:
        FolderInUse: if another invocation holds the lock, or one on another machine left it behind.
        ConfigError: if the folder cannot be written to.
    """
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
        lock = _acquired(layout)
    except OSError as error:
        raise ConfigError(
            "output.not_writable", f"{_named(layout)} cannot be written to: {files.reason(error, layout.state)}"
        ) from None
    holder = _holder(layout)
    if lock is None:
        raise FolderInUse(
            "output.in_use",
            f"{_named(layout)} is in use by another invocation{_described(holder)}; "
            "wait for it, or set another output_dir",
        )
    if holder and not holder.is_local:
        os.close(lock)
        raise FolderInUse(
            "output.in_use_elsewhere",
            f"{_named(layout)} is in use by an invocation on another machine{_described(holder)}; wait for it, or if "
            f"it no longer runs there, snakemake --unlock or delete {layout.lock}",
        )
    own = Holder(socket.gethostname(), os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S"))
    os.ftruncate(lock, 0)
    os.pwrite(lock, files.dump_json(to_json(own)), 0)
    atexit.register(_release, layout, lock)


def remove_stale(locks: Path, layout: Layout) -> bool:
    """Remove the locks of an invocation that was writing to an output folder; return whether there were any.

    This process must hold the folder's own lock, so that invocation was killed, which Snakemake cannot tell. Another
    workflow that reads files of the folder keeps its locks.
    """
    folder = layout.output_dir.absolute()
    stale = [
        path
        for path in locks.glob("*.output.lock")
        if any(Path(line).absolute().is_relative_to(folder) for line in path.read_text().splitlines())
    ]
    for path in stale:
        path.unlink(missing_ok=True)
        path.with_name(path.name.replace("output", "input")).unlink(missing_ok=True)
    return bool(stale)


def clear(layout: Layout) -> str | None:
    """Remove the lock of an invocation that has ended. If it still runs on this machine, return a sentence about it."""
    if not layout.lock.exists():
        return None
    lock = _acquired(layout)
    if lock is None:
        holder = _described(_holder(layout))
        return f"{_named(layout)} is still in use by another invocation{holder}; end that invocation first"
    _release(layout, lock)
    return None


def _acquired(layout: Layout) -> int | None:
    """Return a descriptor of the locked file, which child processes do not inherit; None if another process has it."""
    while True:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not _is_lockable(descriptor, layout):
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its last holder has deleted it in the meantime


def _is_lockable(descriptor: int, layout: Layout) -> bool:
    """Lock a file. If the file system does not support locks, check whether the process that holds it still runs."""
    try:
        if fcntl:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        pass
    import psutil

    holder = _holder(layout)
    return not (holder and holder.is_local and psutil.pid_exists(holder.pid))


def _release(layout: Layout, lock: int) -> None:
    with suppress(OSError):  # the folder may have been deleted in the meantime
        layout.lock.unlink(missing_ok=True)
        os.close(lock)
        for folder in (layout.state, layout.output_dir):  # empty if there was nothing to do
            folder.rmdir()


def _holder(layout: Layout) -> Holder | None:
    """Return who holds the lock; None if the file does not say, or not yet."""
    with suppress(OSError, ValueError):
        return Holder.load(layout.lock)
    return None


def _named(layout: Layout) -> str:
    return f"output_dir {layout.output_dir}"


def _described(holder: Holder | None) -> str:
    return f" ({holder})" if holder else ""
