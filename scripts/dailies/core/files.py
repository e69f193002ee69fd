"""Files that are whole or absent, and JSON that every reader accepts."""

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

LARGEST_DOUBLE = 1.797e308
"""MLflow stores an infinite metric as ±1.8e308, the largest double; anything beyond this is infinite."""

SYNCERS = 8
"""Files that the disk is asked for at once: 500 small ones took 0.2 s, and 1.2 s one after the other."""

SLACK, INFLATION = 64 * 2**20, 8
"""Bytes that any archive may declare to hold, and how many times its own size: weights do not shrink, code does."""


def most_unpacked(size: int) -> int:
    """Give the most bytes that an archive of ``size`` bytes may declare; one with more is there to fill the memory."""
    return SLACK + INFLATION * size


def write_bytes(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Put ``data`` at ``path`` in one step: a reader sees the old file or the new one, never a part.

    One that is not ``lasting`` may be empty after a power failure, until ``persist`` was called for it.
    Raises OSError, and leaves no temporary file behind, when the disk is full or not writable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_bytes(data)
        if lasting:
            persist(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def persist(path: Path) -> None:
    """Return when a file that was written is on the disk, and outlasts a power failure; what is gone is no error."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        os.fsync(file.fileno())


def persist_all(paths: Iterable[Path]) -> None:
    """Return when files that were written are on the disk: for many, sooner than one after the other."""
    with ThreadPoolExecutor(SYNCERS) as pool:
        for _ in pool.map(persist, paths):
            pass


def reason(error: OSError, place: Path) -> str:
    """Say what was wrong with which file: of two the one that was written, ``place`` where none is named."""
    return f"{error.strerror or error}: {error.filename2 or error.filename or place}"


def fetch(path: Path) -> None:
    """Have the system read a file into its cache, and go on meanwhile; where it cannot, nothing happens."""
    if hasattr(os, "posix_fadvise") and path.is_file():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Delete what ``write_bytes`` was writing under these names in a folder when its process was killed."""
    drafts = {f".{name[:80]}." for name in names}
    for path in folder.glob(".*.tmp"):
        if path.name[: -len("01234567.tmp")] in drafts:
            path.unlink(missing_ok=True)


def dump_json(value: Any) -> bytes:
    """Give strict JSON with stable bytes: keys in the order given, NaN and infinities as null.

    Characters that do not print, such as those that turn a line around, are written as ``\\uXXXX``.
    """
    text = json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    return (re.sub(r"[^ -~\n]", _escaped, text) + "\n").encode()


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def strict(value: Any) -> Any:
    """Replace what JSON cannot hold: NaN, infinities and MLflow's stand-ins for them become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) and abs(value) < LARGEST_DOUBLE else None
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as strict JSON, in one step."""
    write_bytes(path, dump_json(value))


def write_json_if_changed(path: Path, value: Any, *, lasting: bool = True) -> bool:
    """Write ``value`` unless the file holds it already; return whether it was written."""
    data = dump_json(value)
    if path.is_file() and path.read_bytes() == data:
        return False
    write_bytes(path, data, lasting=lasting)
    return True


def read_json(path: Path) -> Any:
    """Read a JSON file; raises FileNotFoundError or json.JSONDecodeError."""
    return json.loads(path.read_bytes())


def digest(value: Any) -> str:
    """Give the sha256 of a JSON value; equal values have equal digests, whatever the order of their keys."""
    text = json.dumps(strict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def sha256_of(path: Path) -> str:
    """Give the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(root: Path, paths: Iterable[str]) -> str:
    """Give one sha256 for several files below ``root``: over their names and contents, in name order."""
    return digest([[path, sha256_of(root / path)] for path in sorted(paths)])


def sibling(path: str, name: str) -> str:
    """Return the path of another file in the same folder of a store."""
    return f"{path.rpartition('/')[0]}/{name}".lstrip("/")
