"""The manifest: which frames a model's jobs wrote, from what, and how long each took."""

import hashlib
import json
import os
import threading
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from dailies.core import files
from dailies.core.typed import OMITTED, from_json, to_json
from dailies.frames.sequence import Frame, Sequence, normal_form

PIXELS = 2
"""Version of the code that makes pixels. Raise it when the same frame and model would render differently."""


RECENT = 50
"""How many of the last frames say how fast a render is."""


CLOCK_LAG = 1.0
"""Seconds by which the times of files may be behind the clock."""


@dataclass(frozen=True)
class Entry:
    """A frame that was written."""

    output: str
    """The file's name."""
    key: str
    """Digest of everything that its pixels depend on."""
    size: int
    """Bytes of the file."""
    sha256: str
    """Digest of the file's bytes."""
    seconds: float
    """Wall time from the previous frame to this one."""
    device: str
    tiled: bool
    startup: float | None = field(default=None, metadata=OMITTED)
    """Only for the first frame of a job: what the job took before it, in seconds."""


PENDING = Entry(output="", key="", size=-1, sha256="", seconds=0.0, device="", tiled=False)
"""The entry of a frame that is about to be written."""


def keys_of(sequence: Sequence, artifact: str, settings: Any) -> dict[str, str]:
    """Return the key that each frame of a sequence must have, by output name."""
    return {frame.output: frame_key(frame, artifact, settings) for frame in sequence.frames}


def frame_key(frame: Frame, artifact: str, settings: Any) -> str:
    """Return the digest of everything that a rendered frame depends on.

    That is the contents of the input frame, the sha256 of the ``artifact``, the settings and the version of the code.
    """
    return files.digest([PIXELS, *frame.contents, artifact, settings])


class Manifest:
    """The written frames of one shard of a model: a file with a line of JSON for each frame that is safely on disk.

    The manifests of the model's other shards are in the same folder. They are read too, because the sequence may have
    been split into other shards before.
    """

    def __init__(self, path: Path, *, folder: Path, keys: Mapping[str, str], forced: bool = False) -> None:
        """Open the manifest at ``path``.

        Args:
            path: the file, which may not exist yet.
            folder: the folder of the model's frames.
            keys: the key that each frame of the shard must have, by output name.
            forced: whether the render is forced; then the other shards' manifests are ignored.
        """
        self.path = path
        self._forced = forced
        self._folder = folder
        self._keys = keys
        self._lock = threading.Lock()

    def done(self) -> dict[str, Entry]:
        """Return the entries of frames that need no rendering: the key is right, and the file exists with its size.

        If the manifests of several shards have different entries for a frame, the digest of its bytes decides.
        """
        fitting = _fitting([self.path] if self._forced else self._files(), self._folder, self._keys)
        right = ((name, [entry for entry in fitting[name] if entry.key == self._keys[name]]) for name in fitting)
        return {name: entries[0] for name, entries in right if entries}

    def restart(self) -> None:
        """Forget the frames of this shard that have to be rendered, and collect the entries of the others.

        A frame that another manifest also lists becomes ``PENDING``: if it is written but this job is killed before it
        adds the line, the next job compares the bytes.
        """
        done = self.done()
        kept = {name: entry for name, entry in _read(self.path).items() if name not in self._keys}
        elsewhere = {name for path in self._files() if path != self.path for name in _read(path)}
        pending = [replace(PENDING, output=name) for name in self._keys if name in elsewhere and name not in done]
        _write(self.path, [*kept.values(), *done.values(), *pending])

    def add(
        self, output: str, data: bytes, *, seconds: float, device: str, tiled: bool, startup: float | None = None
    ) -> str:
        """Record that a frame was written with these bytes, and return their sha256. Thread-safe."""
        digest = hashlib.sha256(data).hexdigest()
        startup = None if startup is None else round(startup, 2)
        entry = Entry(output, self._keys[output], len(data), digest, round(seconds, 4), device, tiled, startup)
        with self._lock, self.path.open("a") as file:
            file.write(_line(entry))
        return digest

    def _files(self) -> list[Path]:
        return _all(self.path.parent)


class Follower:
    """Follows a manifest to which a job is adding lines, without reading any line twice."""

    def __init__(self, path: Path, names: Collection[str], *, since: float) -> None:
        """Follow the manifest at ``path``.

        Args:
            path: the file, which may not exist yet.
            names: the output names of the frames that the job is to have written in the end.
            since: when the job started, in seconds since 1970. An older file is that of an earlier job.
        """
        self._path = path
        self._names = names
        self._since = since
        self._file: int | None = None
        self._offset = 0
        self.written: set[str] = set()
        """The frames that are in place."""
        self._seconds: deque[float] = deque(maxlen=RECENT)

    @property
    def total(self) -> int:
        """The number of frames that are in place in the end."""
        return len(self._names)

    @property
    def rate(self) -> float:
        """Frames per second, over the last of those that were added while the file was followed; 0 if none were."""
        seconds = sum(self._seconds)
        return len(self._seconds) / seconds if seconds else 0.0

    def update(self) -> None:
        """Read what was added to the file; if it was replaced, read all of it."""
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                if stat.st_mtime < self._since - CLOCK_LAG:
                    return
                is_new = stat.st_ino != self._file or stat.st_size < self._offset
                if is_new:
                    self._file, self._offset = stat.st_ino, 0
                    self.written.clear()
                    self._seconds.clear()
                file.seek(self._offset)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if not line.endswith(b"\n"):  # its rest is not written yet
                break
            self._offset += len(line)
            self._add(line, is_old=is_new)

    def _add(self, line: bytes, *, is_old: bool) -> None:
        with suppress(ValueError, TypeError):
            entry = from_json(Entry, json.loads(line))
            if entry.size >= 0 and entry.output in self._names:
                self.written.add(entry.output)
                if not is_old:
                    self._seconds.append(entry.seconds)


def forget(path: Path, mark: Path, names: Collection[str], token: str, *, renewed: Collection[Entry] = ()) -> None:
    """Forget the frames ``names`` of the manifest at ``path``, once per ``token``, so that all are rendered again.

    They become ``PENDING``: if other manifests list them too and this render is interrupted, the next one compares the
    bytes of each frame before it accepts it. ``mark`` is the file that holds the last token. Frames that another shard
    has rendered again for the same token keep their ``renewed`` entries.
    """
    if _has_token(mark, token):
        return
    kept = [entry for name, entry in _read(path).items() if name not in names]
    done = [entry for entry in renewed if entry.output in names]
    due = {*names} - {entry.output for entry in done}
    _write(path, [*kept, *done, *(replace(PENDING, output=name) for name in sorted(due))])
    files.write_bytes(mark, token.encode())


def renewed(path: Path, mark: Path, names: Collection[str], token: str) -> list[Entry]:
    """Return the entries of those of ``names`` that were rendered again after ``forget`` reset them for ``token``."""
    if not _has_token(mark, token):
        return []
    return [entry for name, entry in _read(path).items() if name in names and entry.size >= 0]


def _has_token(mark: Path, token: str) -> bool:
    return mark.is_file() and mark.read_text() == token


def in_place(manifests: Path, folder: Path, names: Collection[str]) -> dict[str, Entry]:
    """Return the entries of those of the frames ``names`` that are in a model's ``folder`` as they were written."""
    return {name: entries[-1] for name, entries in _fitting(_all(manifests), folder, names).items() if entries}


def digests(manifests: Path, folder: Path, names: Collection[str]) -> dict[str, str]:
    """Return the sha256 of those of the frames ``names`` that have certainly not changed since they were written.

    That is known without reading a frame if its size is right and its manifest is not older.
    """
    latest = max((path.stat().st_mtime_ns for path in _all(manifests)), default=0)
    return {
        name: entry.sha256
        for name, entry in in_place(manifests, folder, names).items()
        if (folder / name).stat().st_mtime_ns <= latest
    }


def rendered(manifests: Path) -> list[Entry]:
    """Return the last entry of every frame that a model rendered, whether or not its file is still in place."""
    entries = (entry for path in _all(manifests) for entry in _read(path).values())
    return [entry for entry in entries if entry.size >= 0]


def prune(manifests: Path, folder: Path, names: Iterable[str]) -> None:
    """Delete the manifests of all shards but ``names``, which by now list all frames of the sequence.

    The remaining manifests may hold older entries than the deleted ones for frames in ``folder`` that are no longer
    part of the sequence. Such entries are removed.
    """
    kept = {manifests / f"{name}.jsonl" for name in names}
    others = [path for path in manifests.glob("*.jsonl") if path not in kept]
    listed = {name for path in others for name in _read(path)}
    true = _fitting(_all(manifests), folder, listed)
    for path in kept:
        entries = _read(path)
        right = [entry for name, entry in entries.items() if name not in listed or entry in true.get(name, ())]
        if len(right) < len(entries):
            _write(path, right)
    for path in others:
        path.unlink(missing_ok=True)


def file_names(folder: Path) -> frozenset[str]:
    """Return the names of all files in a folder; none if it does not exist. Cached until the folder changes."""
    try:
        return _file_names(folder, folder.stat().st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


@lru_cache(maxsize=4)
def _file_names(folder: Path, modified: int) -> frozenset[str]:
    del modified  # part of the cache's key
    return frozenset(os.listdir(folder))  # noqa: PTH208 - iterdir takes ten times as long: every model's folder is listed


def missing(outputs: frozenset[str], folder: Path) -> frozenset[str]:
    """Return those of the frames ``outputs`` that a folder does not list. It is not listed again until it changes."""
    try:
        modified = folder.stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return outputs
    return frozenset() if _is_complete(outputs, folder, modified) else outputs - _file_names(folder, modified)


@lru_cache(maxsize=10_000)  # unlike the names, the answers for thousands of models need no memory worth mentioning
def _is_complete(outputs: frozenset[str], folder: Path, modified: int) -> bool:
    return outputs <= _file_names(folder, modified)


def restore_names(folder: Path, outputs: Collection[str]) -> None:
    """Rename those of the frames ``outputs`` whose names changed to another Unicode form when a folder was copied."""
    there = file_names(folder)
    missing = {normal_form(name): name for name in outputs if name not in there and not name.isascii()}
    for name in there if missing else ():
        wanted = missing.get(normal_form(name))
        if wanted and not (folder / wanted).exists():
            (folder / name).rename(folder / wanted)


def _fitting(manifests: Iterable[Path], folder: Path, names: Collection[str]) -> dict[str, list[Entry]]:
    """Return, for each of the files ``names`` that ``manifests`` list, the entries that match the file in ``folder``.

    The size must be right. If the manifests have different entries for a frame, the digest of its bytes decides.
    """
    listed = defaultdict(list)
    for path in manifests:
        for name, entry in _read(path).items():
            listed[name].append(entry)
    found = {}
    for name, entries in ((name, listed[name]) for name in names if name in listed):
        size = _size(folder / name)
        found[name] = [entry for entry in entries if entry.size == size]
        if found[name] and len({entry.sha256 for entry in entries}) > 1:
            digest = files.sha256_of(folder / name)
            found[name] = [entry for entry in found[name] if entry.sha256 == digest]
    return found


def _read(path: Path) -> dict[str, Entry]:
    """Return the last entry of each frame by output name, ignoring a line that a crash cut short."""
    found = {}
    text = path.read_text(errors="replace") if path.is_file() else ""
    for line in text.splitlines():
        with suppress(ValueError, TypeError):
            entry = from_json(Entry, json.loads(line))
            found[entry.output] = entry
    return found


def _write(path: Path, entries: Iterable[Entry]) -> None:
    files.write_bytes(path, "".join(map(_line, entries)).encode())


def _line(entry: Entry) -> str:
    return json.dumps(to_json(entry)) + "\n"


def _all(manifests: Path) -> list[Path]:
    return sorted(manifests.glob("*.jsonl"))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
