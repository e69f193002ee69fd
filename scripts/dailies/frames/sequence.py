"""The sequence: an ordered folder of frames, every one of them known to be readable."""

import logging
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from dailies.core import files
from dailies.core.text import few
from dailies.core.typed import (
    OMITTED,
    from_json,
    to_json,
)

log = logging.getLogger(__name__)

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".exr", ".dpx", ".webp"),
    *(".tga", ".hdr", ".jp2", ".cin"),
)
"""What counts as a frame, whatever the case of the letters."""

VIDEOS = (".mov", ".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mxf", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")
"""What counts as a video, whatever the case of the letters."""

SUFFIXES = {"png": ".png", "png16": ".png", "exr": ".exr", "tiff": ".tif"}
"""How rendered frames of an ``output_format`` end; with ``auto`` that is EXR for floating-point numbers, else PNG."""

NUMBER = re.compile(r"((?:(?<![^._])-)?\d+)")
"""A number in a name; a minus belongs to it at the start of the name and after a dot or underscore."""
WHOLE = "all"
"""The name of the one shard of a sequence that is not split."""


@dataclass(frozen=True)
class ScanFiles:
    """Where scans of one input keep what they found, so that they need not find it again."""

    folder: Path
    """Where all of it lies."""
    frames: Path
    """JSON: what was found, by the state of each frame's file."""
    video: Path
    """The folder of a video's decoded frames."""
    clip: Path
    """JSON: which video was decoded into it."""


@dataclass(frozen=True)
class Frame:
    """One readable frame of the sequence."""

    name: str
    """The file's own name."""
    output: str
    """The name of the rendered file in each model's folder."""
    width: int
    height: int
    mode: str
    """L, LA, RGB or RGBA."""
    bit_depth: int
    """Bits per channel."""
    size: int
    """Bytes on disk."""
    sha256: str
    """Digest of the file's bytes."""
    floating: bool = False
    """Whether the values are floating-point numbers."""
    notes: tuple[str, ...] = ()
    """What of the frame is not rendered, in words."""
    revision: str = field(default="", metadata=OMITTED)
    """What was changed about reading such a file since frames were first rendered from it; empty: nothing."""
    layer: str = field(default="", metadata=OMITTED)
    """Of an EXR: the layer that is its picture; empty where that is the one that is taken without asking."""

    @property
    def contents(self) -> list[str]:
        """What the pixels that are read depend on."""
        layer = f"layer {self.layer}" if self.layer else ""
        return [self.sha256, *filter(None, (self.revision, layer))]


@dataclass(frozen=True)
class Sequence:
    """The frames to render, in order."""

    frames: tuple[Frame, ...]
    skipped: tuple[dict[str, str], ...] = ()
    """Unreadable frames that the user chose to pass over: name and reason."""
    folder: Path | None = None
    """Where the frames of a video are; without one they are in ``input_dir``."""
    fps: float | None = None
    """A video's own rate."""
    layer: str | None = None
    """The layer of EXR frames that the user asked for."""

    @cached_property
    def digest(self) -> str:
        """A sha256 over the frames' output names and contents."""
        return files.digest([[frame.output, *frame.contents] for frame in self.frames])

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The names of the rendered frames."""
        return frozenset(frame.output for frame in self.frames)

    @cached_property
    def pixels(self) -> int:
        """The number of pixels of all frames together."""
        return sum(frame.width * frame.height for frame in self.frames)

    @cached_property
    def largest(self) -> int:
        """The number of pixels of the largest frame."""
        return max(frame.width * frame.height for frame in self.frames)


def normal_form(name: str) -> str:
    """Return the NFC form of a name: macOS writes an accented letter as two characters, Linux and Windows as one."""
    return unicodedata.normalize("NFC", name)


def numbers(names: Iterable[str]) -> dict[str, int | None]:
    """Return the frame number of each file of a folder, by file name: the last number before its ending, or None.

    A minus is a sign at the start of a name and after a dot or underscore: ``shot.-0002.exr`` is frame -2, as Maya and
    Houdini write it. Elsewhere it separates, ``shot-0002.exr`` is frame 2, unless other files of the folder are
    numbered without it: beside ``shot0000.exr``, ``shot-0002.exr`` is frame -2.
    """
    names = list(names)
    negative = _negative(names)
    return {name: int(parts[-2]) if len(parts := _parts(name, name in negative)) > 1 else None for name in names}


def in_order(names: Iterable[str]) -> list[str]:
    """Sort the files of a folder by name, with numbers as ``numbers`` reads them: frame_-1, frame_2, frame_10."""
    names = list(names)
    negative = _negative(names)
    return sorted(names, key=lambda name: natural(name, negative=name in negative))


def natural(name: str, *, negative: bool = False) -> tuple[list[tuple[int, int, str]], str]:
    """Give a sort key that puts frame before frame_2, and frame_2 before frame_10.

    With ``negative`` the dash before the last number is a minus sign, whatever precedes it.
    """
    parts = _parts(name.casefold(), negative)
    return [(1, 0, part) if index % 2 == 0 else (0, int(part), "") for index, part in enumerate(parts) if part], name


def _parts(name: str, negative: bool = False) -> list[str]:
    """Split a file name before its ending into text and numbers, which take turns: the first and last are text."""
    parts = NUMBER.split(Path(name).stem)
    return [*parts[:-3], parts[-3][:-1], f"-{parts[-2]}", parts[-1]] if negative else parts


def _negative(names: Iterable[str]) -> set[str]:
    """Return the names in which a dash is a minus only because other names are numbered without it."""
    split = {name: parts for name in names if len(parts := _parts(name)) > 1}
    around = {(*parts[:-2], parts[-1]) for parts in split.values()}
    return {
        name
        for name, parts in split.items()
        if parts[-3].endswith("-") and (*parts[:-3], parts[-3][:-1], parts[-1]) in around
    }


def notes(found: Iterable[Frame]) -> list[str]:
    """Say what of the frames is not rendered, or is a choice, once and not for each of them."""
    named: dict[str, list[str]] = {}
    for frame in found:
        for note in frame.notes:
            named.setdefault(note, []).append(frame.name)
    return [f"{few(names)}: {note}" for note, names in named.items()]


def save(sequence: Sequence, path: Path) -> None:
    """Write a sequence as JSON, beside the folder of a video's frames; the same frames give the same bytes."""
    files.write_json(
        path,
        {
            "digest": sequence.digest,
            "folder": None if sequence.folder is None else sequence.folder.name,
            "fps": sequence.fps,
            "skipped": list(sequence.skipped),
            "frames": to_json(sequence.frames),
            **({"layer": sequence.layer} if sequence.layer else {}),
        },
    )


def load(path: Path) -> Sequence:
    """Read what ``save`` wrote."""
    data = files.read_json(path)
    return Sequence(
        frames=tuple(from_json(Frame, frame) for frame in data["frames"]),
        skipped=tuple(data["skipped"]),
        folder=None if data["folder"] is None else path.parent / data["folder"],
        fps=data["fps"],
        layer=data.get("layer"),
    )


def split(sequence: Sequence, shard_frames: int) -> dict[str, Sequence]:
    """Split a sequence into contiguous shards of ``shard_frames`` frames, named by number.

    With 0, or no more frames than that, the whole sequence is one shard, ``all``.
    """
    count = len(sequence.frames)
    if not 0 < shard_frames < count:
        return {WHOLE: sequence}
    return {
        str(number): replace(sequence, frames=sequence.frames[start : start + shard_frames])
        for number, start in enumerate(range(0, count, shard_frames), start=1)
    }


def shards(path: Path, shard_frames: int) -> dict[str, Sequence]:
    """Load a sequence that ``save`` wrote and split it; a file that stays the same is read once."""
    return _shards(path, path.stat().st_mtime_ns, shard_frames)


@lru_cache(maxsize=4)
def _shards(path: Path, modified: int, shard_frames: int) -> dict[str, Sequence]:
    del modified  # part of the cache's key: a sequence that was written anew is read anew
    return split(load(path), shard_frames)
