"""The lock of an output folder: one invocation works in it at a time, from whatever folder it was started."""

import atexit
import os
import socket
import time
from contextlib import suppress
from typing import Any

from dailies.core import files
from dailies.core.errors import ConfigError, FolderInUse
from dailies.state.layout import Layout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

SAID = {"host", "pid", "started"}
"""What it says."""


def take(layout: Layout) -> None:
    """Take the lock of an output folder until this process ends.

    The system frees the lock of a process on this machine that was killed. Raises FolderInUse when another invocation
    has it, and when one on another machine has left its name, as its end cannot be seen from here; ConfigError when the
    folder cannot be written to.
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
    if holder and holder["host"] != socket.gethostname():
        os.close(lock)
        raise FolderInUse(
            "output.in_use_elsewhere",
            f"{_named(layout)} is in use by an invocation on another machine{_described(holder)}; wait for it, or if "
            f"it no longer runs there, snakemake --unlock or delete {layout.lock}",
        )
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(lock, 0)
    os.pwrite(lock, files.dump_json({"host": socket.gethostname(), "pid": os.getpid(), "started": started}), 0)
    atexit.register(_release, layout, lock)


def clear(layout: Layout) -> str | None:
    """Remove what an invocation left that no longer runs; return a sentence where one still runs on this machine."""
    if not layout.lock.exists():
        return None
    lock = _acquired(layout)
    if lock is None:
        return f"{_named(layout)} is still in use by another invocation{_described(_holder(layout))}; end that one"
    _release(layout, lock)
    return None


def _acquired(layout: Layout) -> int | None:
    """Return a descriptor of the file, locked; None where another process has it. It is not handed on to children."""
    while True:
        descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not _is_lockable(descriptor, layout):
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its last holder has deleted it meanwhile


def _is_lockable(descriptor: int, layout: Layout) -> bool:
    """Lock a file; where the disk knows no locks, look whether its holder lives."""
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
    return not (holder and holder["host"] == socket.gethostname() and psutil.pid_exists(holder["pid"]))


def _release(layout: Layout, lock: int) -> None:
    with suppress(OSError):  # the folder may have been deleted meanwhile
        layout.lock.unlink(missing_ok=True)
        os.close(lock)
        for folder in (layout.state, layout.output_dir):  # where nothing was found to do
            folder.rmdir()


def _holder(layout: Layout) -> dict[str, Any] | None:
    """Return who has the lock; None where that is not said, not yet, or not legibly."""
    with suppress(OSError, ValueError):
        found = files.read_json(layout.lock)
        return found if isinstance(found, dict) and found.keys() >= SAID else None
    return None


def _named(layout: Layout) -> str:
    return f"output_dir {layout.output_dir}"


def _described(holder: dict[str, Any] | None) -> str:
    return f" (process {holder['pid']} on {holder['host']}, since {holder['started']})" if holder else ""
