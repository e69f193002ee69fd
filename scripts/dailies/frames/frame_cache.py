"""The frame cache: decoded frames in shared memory, so that jobs can reuse what another one has decoded.

It exists while the invocation's fork server runs. Jobs on other machines, and those without such a server, decode every
frame themselves. Nothing is evicted: jobs read the frames of a sequence in the same order, so the oldest frame would
always be the next one needed.
"""

import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files, fork_server

if TYPE_CHECKING:
    import numpy as np  # a head node, which only plans, lacks it


SMALLEST = 2**20
"""Minimum bytes to cache: caching smaller frames saves almost no time."""

LARGEST_TOTAL, SHARE = 2**32, 8
"""Bytes of all frames together: at most this, and at most one part in ``SHARE`` of this machine's memory."""

MOST_CHANNELS = 4
"""Files with more channels are not cached, because most of them are not part of the picture."""

HEADER = struct.Struct("<8s3I")
"""Before the values: numpy's name of their type, then height, width and channels."""

FULL: set[bool] = set()
"""True if this job found no room for inputs, False if it found none for rendered frames: it does not look again."""

INPUTS = "inputs"
"""The folder of frames that all models share: those of the sequence and of the reference."""


def cached(digest: str | None, decode: Callable[[], "np.ndarray"], *, owner: str = INPUTS) -> "np.ndarray":
    """Return a file's values from the cache; if they are not in it, call ``decode`` and add them.

    Values are ``(height, width, channels)``. ``digest`` identifies the file, and anything else that its values depend
    on; without one, the file is decoded. ``owner`` is the folder name of the model that rendered the frame.
    """
    if digest is None or (folder := fork_server.shared_folder()) is None:
        return decode()
    with suppress(OSError):
        return _load(folder / owner / digest)
    values = decode()
    keep(digest, values, owner=owner)
    return values


def keep(digest: str, values: "np.ndarray", *, owner: str = INPUTS) -> None:
    """Add the values of a file to the cache if there is room. Rendered frames get at most half of it."""
    folder = fork_server.shared_folder()
    is_input = owner == INPUTS
    if folder is None or is_input in FULL or values.nbytes < SMALLEST or values.shape[2] > MOST_CHANNELS:
        return
    with suppress(OSError):
        room = _room(folder) if is_input else _room(folder) // 2
        if _kept_bytes(folder) + HEADER.size + values.nbytes > room:
            FULL.add(is_input)
            return
        _write(folder / owner / digest, values)


def _write(path: Path, values: "np.ndarray") -> None:
    import numpy as np

    path.parent.mkdir(exist_ok=True)  # raises OSError if the server has ended and deleted its folder
    with files.replacing(path, durable=False) as draft, draft.open("wb") as file:
        file.write(HEADER.pack(values.dtype.name.encode(), *values.shape))
        file.write(np.ascontiguousarray(values).data)


def _kept_bytes(folder: Path) -> int:
    """Return how many bytes the frames of all owners take."""
    total = 0
    for owner in folder.iterdir():
        with os.scandir(owner) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another job has just completed or deleted it
                    total += entry.stat().st_size
    return total


def forget(owner: str, digests: Iterable[str]) -> None:
    """Delete a model's rendered frames from the cache once no job needs them."""
    if folder := fork_server.shared_folder():
        for digest in digests:
            with suppress(OSError):  # it was not kept
                (folder / owner / digest).unlink()


def _load(path: Path) -> "np.ndarray":
    """Return cached values, mapped so that writing to them changes a private copy."""
    import numpy as np

    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    name, *shape = HEADER.unpack_from(memory)
    return np.ndarray(shape, np.dtype(name.rstrip(b"\0").decode()), buffer=memory, offset=HEADER.size)


@cache
def _room(folder: Path) -> int:
    """Return the capacity of the cache in bytes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(LARGEST_TOTAL, memory // SHARE, shutil.disk_usage(folder).total // 2)
