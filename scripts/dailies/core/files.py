"""Atomic file writes, digests, and strict JSON."""

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LARGEST_DOUBLE = 1.797e308
"""MLflow stores an infinite metric as ±1.8e308, the largest double. Anything beyond this bound is infinite."""

SYNCERS = 8
"""Files that are synced at once: 500 small ones took 0.2 s, and 1.2 s one after the other."""

UNPACKED_ALLOWANCE, LARGEST_RATIO = 64 * 2**20, 8
"""Bytes that any archive may unpack to, and how many times its own size it may add. Weights do not compress, code
does."""


def write_bytes(path: Path, data: bytes, *, durable: bool = True, keep_time: bool = False) -> None:
    """Write ``data`` to ``path`` atomically: a reader sees the old file or the new one, never a part.

    A file that is not ``durable`` may be empty after a power failure until ``persist`` has been called for it. With
    ``keep_time``, an existing file keeps its time of modification.
    If the disk is full or not writable, raise OSError and leave no temporary file behind.
    """
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)
        if keep_time and path.exists():
            before = path.stat()
            os.utime(temporary, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; the file that the block writes there replaces ``path`` atomically.

    If the block raises an error, the temporary file is deleted. A file that is not ``durable`` may be empty after a
    power failure until ``persist`` has been called for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:80]}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            persist(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def persist(path: Path) -> None:
    """Flush a file to the disk, so that it outlasts a power failure. A missing file is ignored."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        os.fsync(file.fileno())


def persist_all(paths: Iterable[Path]) -> None:
    """Flush files to the disk, several at a time."""
    with ThreadPoolExecutor(SYNCERS) as pool:
        for _ in pool.map(persist, paths):
            pass


def delete_drafts(folder: Path, names: Iterable[str]) -> None:
    """Delete the temporary files that a killed ``write_bytes`` left in a folder for files of these names."""
    drafts = {f".{name[:80]}." for name in names}
    for path in folder.glob(".*.tmp"):
        if path.name[: -len("01234567.tmp")] in drafts:
            path.unlink(missing_ok=True)


def prefetch(path: Path) -> None:
    """Ask the system to read a file into its cache in the background. Does nothing where that is not supported."""
    if hasattr(os, "posix_fadvise") and path.is_file():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def reason(error: OSError, place: Path) -> str:
    """Return the system's message and the file that it concerns, or ``place`` if the error names no file.

    If the error names two files, as that of a rename does, the target is meant.
    """
    return f"{error.strerror or error}: {error.filename2 or error.filename or place}"


def unpacked_limit(size: int) -> int:
    """Return how many bytes an archive of ``size`` bytes may unpack to. A larger one is likely to be a zip bomb."""
    return UNPACKED_ALLOWANCE + LARGEST_RATIO * size


def dump_json(value: Any) -> bytes:
    """Return strict JSON with stable bytes: keys in the given order, NaN and infinities as null.

    Characters that do not print, such as those that reverse the direction of text, are written as ``\\uXXXX``.
    """
    text = json.dumps(strict(value), indent=2, ensure_ascii=False, allow_nan=False)
    return (re.sub(r"[^ -~\n]", _escaped, text) + "\n").encode()


def _escaped(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def strict(value: Any) -> Any:
    """Return a value without what JSON cannot hold: NaN, infinities and MLflow's stand-ins for them become None."""
    if isinstance(value, float):
        return value if math.isfinite(value) and abs(value) < LARGEST_DOUBLE else None
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return value


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as strict JSON, atomically."""
    write_bytes(path, dump_json(value))


def write_json_if_changed(path: Path, value: Any, *, durable: bool = True) -> bool:
    """Write ``value`` as strict JSON unless the file already holds it; return whether it was written."""
    data = dump_json(value)
    if path.is_file() and path.read_bytes() == data:
        return False
    write_bytes(path, data, durable=durable)
    return True


def read_json(path: Path) -> Any:
    """Read a JSON file. Raise FileNotFoundError or json.JSONDecodeError."""
    return json.loads(path.read_bytes())


def digest(value: Any) -> str:
    """Return the sha256 of a JSON value. Equal values have equal digests, whatever the order of their keys."""
    text = json.dumps(strict(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(root: Path, paths: Iterable[str]) -> str:
    """Return one sha256 over the names and contents of several files below ``root``, whatever their order."""
    return digest([[path, sha256_of(root / path)] for path in sorted(paths)])


def sibling(path: str, name: str) -> str:
    """Return the path of the file ``name`` in the folder of ``path``; both are paths within a store."""
    return f"{path.rpartition('/')[0]}/{name}".lstrip("/")
