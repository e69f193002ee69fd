"""The manifest: which frames a model's jobs wrote, from what, and how long each took."""

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dailies.core import files
from dailies.core.typed import from_json
from dailies.frames.sequence import (
    Frame,
    Sequence,
    normal_form,
)
from dailies.state.records import SUCCESS, Attempt

PIXELS = 2
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
    return files.digest([PIXELS, *frame.contents, artifact, settings])


class Manifest:
    """What is written of one shard of a model: a file with a line of JSON per frame that is safely in place.

    The files of the model's other shards lie beside it and are read, too: the sequence may have been split otherwise.
    """

    def __init__(self, path: Path, *, folder: Path, keys: Mapping[str, str], forced: bool = False) -> None:
        """Open the manifest at ``path``; where the render is ``forced``, what the others tell does not count."""
        self.path = path
        self._forced = forced
        self._folder = folder
        """Where the frames are."""
        self._keys = keys
        """The key that each frame of the shard must have, by output name."""
        self._lock = threading.Lock()

    def done(self) -> dict[str, Entry]:
        """Give the entries of frames that need no rendering: of the right key, and the file in place with its size.

        Where several shards' files tell of one frame, the digest of its bytes decides.
        """
        fitting = _fitting([self.path] if self._forced else self._files(), self._folder, self._keys)
        right = ((name, [entry for entry in fitting[name] if entry.key == self._keys[name]]) for name in fitting)
        return {name: entries[0] for name, entries in right if entries}

    def restart(self) -> None:
        """Forget the frames of this shard that have to be rendered, and gather what is told of the others.

        A frame that another file tells of is noted as ``PENDING``: should it be written and this job be killed before
        its line, its bytes are compared.
        """
        done = self.done()
        kept = {name: entry for name, entry in _read(self.path).items() if name not in self._keys}
        elsewhere = {name for path in self._files() if path != self.path for name in _read(path)}
        pending = [replace(PENDING, output=name) for name in self._keys if name in elsewhere and name not in done]
        entries = [*kept.values(), *done.values(), *pending]
        files.write_bytes(self.path, "".join(map(_line, entries)).encode())

    def add(self, output: str, data: bytes, *, seconds: float, device: str, tiled: bool) -> None:
        """Note that a frame was written with these bytes; may be called from several threads."""
        digest = hashlib.sha256(data).hexdigest()
        entry = Entry(output, self._keys[output], len(data), digest, round(seconds, 4), device, tiled)
        with self._lock, self.path.open("a") as file:
            file.write(_line(entry))

    def _files(self) -> list[Path]:
        return _all(self.path.parent)


PENDING = Entry(output="", key="", size=-1, sha256="", seconds=0.0, device="", tiled=False)
"""What a manifest says of a frame that is about to be written."""


def _read(path: Path) -> dict[str, Entry]:
    """Give the last entry of each frame by output name; a line that a crash cut short is passed over."""
    found = {}
    text = path.read_text(errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError, TypeError):
            entry = from_json(Entry, json.loads(line))
            found[entry.output] = entry
    return found


def forget(path: Path, mark: Path, names: Collection[str], token: str) -> None:
    """Forget the frames ``names`` of the manifest at ``path``, once per ``token``: all of them are rendered again.

    They are noted as ``PENDING``: should other manifests tell of them too, and this render be interrupted, the bytes
    of each are compared before the next one takes it as done. ``mark`` keeps the last token.
    """
    if mark.is_file() and mark.read_text() == token:
        return
    kept = [entry for name, entry in _read(path).items() if name not in names]
    pending = [replace(PENDING, output=name) for name in sorted(names)]
    files.write_bytes(path, "".join(map(_line, [*kept, *pending])).encode())
    files.write_bytes(mark, token.encode())


def _fitting(manifests: Iterable[Path], folder: Path, names: Collection[str]) -> dict[str, list[Entry]]:
    """Give what ``manifests`` of a model tell truly of those of the files ``names`` that are in its ``folder``.

    The size must be right; where several manifests tell of one frame otherwise, the digest of its bytes decides.
    """
    told = defaultdict(list)
    for path in manifests:
        for name, entry in _read(path).items():
            told[name].append(entry)
    found = {}
    for name, entries in ((name, told[name]) for name in names if name in told):
        size = _size(folder / name)
        found[name] = [entry for entry in entries if entry.size == size]
        if found[name] and len({entry.sha256 for entry in entries}) > 1:
            digest = files.sha256_of(folder / name)
            found[name] = [entry for entry in found[name] if entry.sha256 == digest]
    return found


def in_place(manifests: Path, folder: Path, names: Collection[str]) -> dict[str, Entry]:
    """Give the entries of those of the frames ``names`` that are in the ``folder`` of a model as they were written."""
    return {name: entries[-1] for name, entries in _fitting(_all(manifests), folder, names).items() if entries}


def prune(manifests: Path, folder: Path, names: Iterable[str]) -> None:
    """Delete the manifests of shards that are not among ``names``; these know all frames of the sequence by now.

    What they tell of frames that have left it, which are still in ``folder``, may be older than what the others tell:
    that is taken out of them.
    """
    kept = {manifests / f"{name}.jsonl" for name in names}
    others = [path for path in manifests.glob("*.jsonl") if path not in kept]
    told = {name for path in others for name in _read(path)}
    true = _fitting(_all(manifests), folder, told)
    for path in kept:
        entries = _read(path)
        right = [entry for name, entry in entries.items() if name not in told or entry in true.get(name, ())]
        if len(right) < len(entries):
            files.write_bytes(path, "".join(map(_line, right)).encode())
    for path in others:
        path.unlink(missing_ok=True)


def _all(manifests: Path) -> list[Path]:
    return sorted(manifests.glob("*.jsonl"))


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _after(last: Attempt | None) -> int:
    return 1 if last is None else last.attempt + (last.status != SUCCESS)


def names(folder: Path) -> frozenset[str]:
    """Give the names of all files in a folder, none where there is no folder; it is listed when it has changed."""
    try:
        return _names(folder, folder.stat().st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


@lru_cache(maxsize=4)
def _names(folder: Path, modified: int) -> frozenset[str]:
    del modified  # part of the cache's key
    return frozenset(entry.name for entry in folder.iterdir())


def restore_names(folder: Path, outputs: Collection[str]) -> None:
    """Rename those of the frames ``outputs`` in a folder whose names came back from a copy in another Unicode form."""
    there = names(folder)
    missing = {normal_form(name): name for name in outputs if name not in there and not name.isascii()}
    for name in there if missing else ():
        wanted = missing.get(normal_form(name))
        if wanted and not (folder / wanted).exists():
            (folder / name).rename(folder / wanted)


def keys_of(sequence: Sequence, artifact: str, settings: Any) -> dict[str, str]:
    """Give the key that each frame of a sequence must have, by output name."""
    return {frame.output: frame_key(frame, artifact, settings) for frame in sequence.frames}
