"""The lock of an output folder: one invocation works in it at a time, from whatever folder it was started."""

import atexit
import json
import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies import files
from dailies.errors import FolderInUse

if TYPE_CHECKING:
    from filelock import FileLock

HOLDER, HELD = "lock", "lock.held"
"""The file that says which invocation works in the folder, and the one that the system locks as long as it lives."""


def take(state: Path) -> None:
    """Take the lock of an output folder, whose ``state`` is inside it, until this process ends.

    The system frees the lock of a process on this machine that was killed. Raises FolderInUse when another invocation
    has it, and when one on another machine has left its name, as its end cannot be seen from here.
    """
    state.mkdir(parents=True, exist_ok=True)
    lock, holder = _acquired(state), _holder(state)
    if lock is None:
        raise FolderInUse(
            f"{_named(state)} is in use by another invocation{_described(holder)}; "
            "wait for it, or set another output_dir"
        )
    if holder and holder["host"] != socket.gethostname():
        lock.release()
        raise FolderInUse(
            f"{_named(state)} is in use by an invocation on another machine{_described(holder)}; wait for it, or if it "
            f"no longer runs there, snakemake --unlock or delete {state / HOLDER}"
        )
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    files.write_json(state / HOLDER, {"host": socket.gethostname(), "pid": os.getpid(), "started": started})
    atexit.register(_release, state, lock)


def clear(state: Path) -> str | None:
    """Remove what an invocation left that no longer runs; return a sentence where one still runs on this machine."""
    if not (state / HOLDER).exists():
        return None
    lock = _acquired(state)
    if lock is None:
        return f"{_named(state)} is still in use by another invocation{_described(_holder(state))}; end that one"
    _release(state, lock)
    return None


def is_asked_to_clear(arguments: Iterable[str]) -> bool:
    """Return whether a command line of Snakemake asks to unlock; nothing else in a Snakefile is told of it."""
    return any(len(each) > len("--un") and "--unlock".startswith(each) for each in arguments)


def _acquired(state: Path) -> "FileLock | None":
    from filelock import FileLock, Timeout

    lock = FileLock(state / HELD)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _release(state: Path, lock: "FileLock") -> None:
    with suppress(OSError):  # the folder may have been deleted meanwhile
        (state / HOLDER).unlink(missing_ok=True)
        (state / HELD).unlink(missing_ok=True)
        lock.release()
        for folder in (state, state.parent):  # nothing was found to do
            folder.rmdir()


def _holder(state: Path) -> dict[str, Any] | None:
    """Return who has the lock; None where that is not said, or not yet."""
    with suppress(OSError, json.JSONDecodeError):
        return files.read_json(state / HOLDER)
    return None


def _named(state: Path) -> str:
    return f"output_dir {state.parent}"


def _described(holder: dict[str, Any] | None) -> str:
    return f" (process {holder['pid']} on {holder['host']}, since {holder['started']})" if holder else ""
