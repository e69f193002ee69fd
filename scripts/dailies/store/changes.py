"""Whether a local store has changed, as its files show it: without MLflow, whose import alone takes seconds."""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

SETTLED = 2 * 10**9
"""Nanoseconds for which no file may have changed. Two changes that follow at once may leave the same time."""

MOST_ENTRIES = 200_000
"""Files and folders of a store that are looked at. For more, MLflow is likely to be faster."""

SQLITE_HEADER = 100
"""Bytes of a sqlite file's header. Without a write-ahead log, every transaction increments a counter in it."""

ARTIFACTS = "artifacts"
"""The folder of artifacts of a run or a logged model. They are listed apart from the store."""


def sqlite_state(path: Path) -> str | None:
    """Return a digest of a sqlite file's state; None if a recent change could hide a later one or it is unreadable."""
    try:
        with path.open("rb") as file:  # opened first: on a network, that is when the times of a file become current
            header = file.read(SQLITE_HEADER)
            entries = [(path.name, os.fstat(file.fileno()))]
        for other in (path.with_name(path.name + ending) for ending in ("-wal", "-journal")):
            if other.exists():
                with other.open("rb") as file:
                    header += file.read(SQLITE_HEADER)
                    entries.append((other.name, os.fstat(file.fileno())))
    except OSError:
        return None
    return _digest(header, entries)


def folder_state(path: Path) -> str | None:
    """Return a digest that changes with whatever is written to a folder store, artifacts aside.

    Return None if something may not have settled yet, cannot be read, or if there is too much to look at.
    """
    try:
        entries = list(islice(_entries(path), MOST_ENTRIES + 1))
    except OSError:
        return None
    return _digest(b"", entries) if len(entries) <= MOST_ENTRIES else None


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the path and state of everything below a folder store, as MLflow reads it: links are followed."""
    folders: list[tuple[str, tuple[str, ...]]] = [(str(root), ())]
    while folders:
        folder, parts = folders.pop()
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                yield entry.path, entry.stat()
                below = (*parts, entry.name)
                if entry.is_dir() and not _holds_artifacts(below):
                    folders.append((entry.path, below))


def _holds_artifacts(parts: tuple[str, ...]) -> bool:
    """Return whether a folder is ``experiment/run/artifacts`` or ``experiment/models/model/artifacts``."""
    is_models = len(parts) == 4 and parts[1] == "models"
    return parts[-1] == ARTIFACTS and (len(parts) == 3 or is_models)


def _digest(header: bytes, entries: Iterable[tuple[str, os.stat_result]]) -> str | None:
    found, newest = hashlib.sha256(header), 0
    for name, stat in entries:
        newest = max(newest, stat.st_mtime_ns, stat.st_ctime_ns)
        state = (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        found.update(repr(state).encode("utf-8", "backslashreplace"))
    return found.hexdigest() if newest < time.time_ns() - SETTLED else None
