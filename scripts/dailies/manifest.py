"""The manifest: which frames a model's jobs wrote, from what, and how long each took."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from dailies import files
from dailies.sequence import Frame, Sequence

PIXELS = 1
"""Version of the code that makes pixels: raise it when the same frame and model would render differently."""


@dataclass(frozen=True)
class Entry:
    """A frame that was written."""

    output: str
    """The file's name."""
    key: str
    """Digest of all that its pixels depend on."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Digest of the file's bytes."""
    seconds: float
    """Wall time from the frame before it to this one."""
    device: str
    tiled: bool


def frame_key(frame: Frame, artifact: str, settings: Any) -> str:
    """Give the digest of what a rendered frame depends on: input, artifact (both sha256), settings and code."""
    return files.digest([PIXELS, frame.sha256, artifact, settings])


class Manifest:
    """What is written of one model: a file with a line of JSON per frame, added when the frame is safely in place."""

    def __init__(self, path: Path, *, folder: Path, keys: Mapping[str, str]) -> None:
        self._path = path
        self._folder = folder
        """Where the frames are."""
        self._keys = keys
        """The key that each frame must have, by output name."""
        self._lock = threading.Lock()

    def done(self) -> dict[str, Entry]:
        """Give the entries of frames that need no rendering: of the right key, and the file in place with its size."""
        last = {entry.output: entry for entry in self._entries()}
        return {
            name: entry
            for name, entry in last.items()
            if self._keys.get(name) == entry.key and _size(self._folder / name) == entry.size
        }

    def restart(self) -> None:
        """Forget the frames that have to be rendered."""
        files.write_bytes(self._path, "".join(_line(entry) for entry in self.done().values()).encode())

    def add(self, output: str, data: bytes, *, seconds: float, device: str, tiled: bool) -> None:
        """Note that a frame was written with these bytes; may be called from several threads."""
        digest = hashlib.sha256(data).hexdigest()
        entry = Entry(output, self._keys[output], len(data), digest, round(seconds, 4), device, tiled)
        with self._lock, self._path.open("a") as file:
            file.write(_line(entry))

    def _entries(self) -> Iterator[Entry]:
        """Give all entries in the order of writing; a line that a crash cut short is passed over."""
        text = self._path.read_text(errors="replace") if self._path.is_file() else ""
        for line in text.splitlines():
            with suppress(ValueError, TypeError):
                yield Entry(**json.loads(line))


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def next_attempt(state: Path, sequence: Path, folder: Path) -> int:
    """Give the number of the attempt at a model that is due.

    It is the last attempt's own number while that one succeeded and all its frames are in ``folder``, else one more:
    as a rule's parameter it makes Snakemake run again exactly what failed or lost frames. ``state`` is the record of
    the last attempt, ``sequence`` the sequence that it rendered; both may be missing.
    """
    if not state.is_file():
        return 1
    last = files.read_json(state)
    if last["status"] != "success":
        return last["attempt"] + 1
    if sequence.is_file() and not _outputs(str(sequence), sequence.stat().st_mtime_ns) <= _names(folder):
        return last["attempt"] + 1
    return last["attempt"]


@lru_cache(maxsize=8)
def _outputs(path: str, modified: int) -> frozenset[str]:
    del modified  # part of the cache's key: a sequence that was written anew is read anew
    return frozenset(frame["output"] for frame in files.read_json(Path(path))["frames"])


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except FileNotFoundError:
        return frozenset()


def keys_of(sequence: Sequence, artifact: str, settings: Any) -> dict[str, str]:
    """Give the key that each frame of a sequence must have, by output name."""
    return {frame.output: frame_key(frame, artifact, settings) for frame in sequence.frames}
