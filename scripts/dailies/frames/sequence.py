"""The sequence: an ordered list of frames that were all read successfully, its file, and its shards."""

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

from dailies.core import files
from dailies.core.text import counted, few
from dailies.core.typed import OMITTED, from_json, to_json
from dailies.frames import choice
from dailies.frames.choice import spread

log = logging.getLogger(__name__)

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".exr", ".dpx", ".webp"),
    *(".tga", ".hdr", ".jp2", ".cin"),
)
"""Suffixes of frames, in lower case."""

VIDEOS = (".mov", ".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mxf", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")
"""Suffixes of videos, in lower case."""

SUFFIXES = {"png": ".png", "png16": ".png", "exr": ".exr", "tiff": ".tif"}
"""``output_format`` -> suffix of rendered frames; with ``auto`` it is .exr for floating-point frames, else .png."""

NUMBER = re.compile(r"((?:(?<![^._])-)?\d+)")
"""A number in a name; a dash before it is a minus sign at the start of the name and after a dot or underscore."""

WHOLE_SEQUENCE = "all"
"""Name of the only shard of a sequence that is not split."""

KNOCKOUT = "knockout"
"""Name of the shard that all models render first if there is a knockout. Its frames are also part of other shards."""


@dataclass(frozen=True)
class ScanCache:
    """Paths of the cached results of scanning one input."""

    folder: Path
    """Folder of all of them."""
    frames: Path
    """JSON: state of a frame's file -> its description."""
    video: Path
    """Folder of the decoded frames of a video."""
    clip: Path
    """JSON: the record of the decoded video."""


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
    """Remarks for the user, such as what of the frame is not rendered."""
    revision: str = field(default="", metadata=OMITTED)
    """Names the change since the first release in how such a file is read; empty if none."""
    layer: str = field(default="", metadata=OMITTED)
    """EXR only: the layer that is rendered; empty if it is the default one."""

    @property
    def contents(self) -> list[str]:
        """Everything that the decoded pixels depend on."""
        layer = f"layer {self.layer}" if self.layer else ""
        return [self.sha256, *filter(None, (self.revision, layer))]


@dataclass(frozen=True)
class Sequence:
    """The frames to render, in order."""

    frames: tuple[Frame, ...]
    skipped: tuple[dict[str, str], ...] = ()
    """Name and reason of the unreadable frames that were skipped."""
    folder: Path | None = None
    """Folder of the decoded frames of a video; None if the frames are in ``input_dir``."""
    fps: float | None = None
    """Frame rate of a video."""
    layer: str | None = None
    """The setting ``layer``."""
    listing: tuple[str, ...] = ()
    """The names of all readable frames of the input in order, if only some of them were chosen; empty if all were."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all frames of the input, including those that were not chosen."""
        return self.listing or tuple(frame.name for frame in self.frames)

    @property
    def is_whole(self) -> bool:
        """Whether every frame of the input was chosen."""
        return not self.listing

    @property
    def choice(self) -> str | None:
        """How many frames were chosen, such as ``12 of 201 frames``; None if all were."""
        return None if self.is_whole else f"{len(self.frames)} of {counted(len(self.listing), 'frame')}"

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """The position of each frame among all frames of the input."""
        places = {name: place for place, name in enumerate(self.names)}
        return tuple(places[frame.name] for frame in self.frames)

    @cached_property
    def before(self) -> dict[Frame, Frame]:
        """The frame before each frame, unless it was not chosen."""
        places = zip(pairwise(self.frames), pairwise(self.positions), strict=True)
        return {frame: before for (before, frame), (earlier, later) in places if later - earlier == 1}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the frames' output names and contents."""
        return files.digest([[frame.output, *frame.contents] for frame in self.frames])

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the rendered frames."""
        return frozenset(frame.output for frame in self.frames)

    @cached_property
    def pixels(self) -> int:
        """Number of pixels of all frames together."""
        return sum(frame.width * frame.height for frame in self.frames)

    @cached_property
    def largest(self) -> int:
        """Number of pixels of the largest frame."""
        return max(frame.width * frame.height for frame in self.frames)


def normal_form(name: str) -> str:
    """Return the NFC form of a name; macOS writes an accented letter as two characters, Linux and Windows as one."""
    return unicodedata.normalize("NFC", name)


def numbers(names: Iterable[str]) -> dict[str, int | None]:
    """Return file name -> frame number, which is the last number before the suffix, or None if there is none.

    A dash is a minus sign at the start of a name and after a dot or underscore: ``shot.-0002.exr`` is frame -2, as
    written by Maya and Houdini. Elsewhere it is a separator: ``shot-0002.exr`` is frame 2, unless other files of the
    folder are numbered without it: beside ``shot0000.exr``, ``shot-0002.exr`` is frame -2.
    """
    names = list(names)
    negative = _with_minus_sign(names)
    return {name: int(parts[-2]) if len(parts := _parts(name, name in negative)) > 1 else None for name in names}


def natural_order(names: Iterable[str]) -> list[str]:
    """Sort the files of a folder by name, with numbers in numeric order: frame_-1, frame_2, frame_10."""
    names = list(names)
    negative = _with_minus_sign(names)
    return sorted(names, key=lambda name: natural_key(name, negative=name in negative))


def natural_key(name: str, *, negative: bool = False) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key by which frame precedes frame_2, and frame_2 precedes frame_10.

    With ``negative``, a dash before the last number is a minus sign, whatever precedes it.
    """
    parts = _parts(name.casefold(), negative)
    return [(1, 0, part) if index % 2 == 0 else (0, int(part), "") for index, part in enumerate(parts) if part], name


def _parts(name: str, negative: bool = False) -> list[str]:
    """Split a file name without suffix into alternating texts and numbers, starting and ending with a text."""
    parts = NUMBER.split(Path(name).stem)
    return [*parts[:-3], parts[-3][:-1], f"-{parts[-2]}", parts[-1]] if negative else parts


def _with_minus_sign(names: Iterable[str]) -> set[str]:
    """Return the names in which a dash is a minus sign only because other names are numbered without it."""
    split = {name: parts for name in names if len(parts := _parts(name)) > 1}
    around = {(*parts[:-2], parts[-1]) for parts in split.values()}
    return {
        name
        for name, parts in split.items()
        if parts[-3].endswith("-") and (*parts[:-3], parts[-3][:-1], parts[-1]) in around
    }


def summarise_notes(found: Iterable[Frame]) -> list[str]:
    """Return each distinct note of the frames once, with the names of its frames."""
    named: dict[str, list[str]] = {}
    for frame in found:
        for note in frame.notes:
            named.setdefault(note, []).append(frame.name)
    return [f"{few(names)}: {note}" for note, names in named.items()]


def save(sequence: Sequence, path: Path) -> None:
    """Write a sequence as JSON, beside the folder of a video's decoded frames; the bytes are reproducible."""
    files.write_json(
        path,
        {
            "digest": sequence.digest,
            "folder": None if sequence.folder is None else sequence.folder.name,
            "fps": sequence.fps,
            "skipped": list(sequence.skipped),
            "frames": to_json(sequence.frames),
            **({"layer": sequence.layer} if sequence.layer else {}),
            **({"listing": list(sequence.listing)} if sequence.listing else {}),
        },
    )


def load(path: Path) -> Sequence:
    """Read a sequence that ``save`` wrote."""
    data = files.read_json(path)
    return Sequence(
        frames=tuple(from_json(Frame, frame) for frame in data["frames"]),
        skipped=tuple(data["skipped"]),
        folder=None if data["folder"] is None else path.parent / data["folder"],
        fps=data["fps"],
        layer=data.get("layer"),
        listing=tuple(data.get("listing", ())),
    )


def split(sequence: Sequence, shard_frames: int, knockout_frames: int = 0) -> dict[str, Sequence]:
    """Split a sequence into contiguous shards of ``shard_frames`` frames, named by number from 1.

    If ``shard_frames`` is 0, or the sequence is not longer, the only shard is the whole sequence, named ``all``. If
    there are more than ``knockout_frames``, which is not 0, that number of evenly spread frames is a further shard,
    named ``knockout``.
    """
    count = len(sequence.frames)
    if 0 < shard_frames < count:
        parts = {
            str(number): replace(sequence, frames=sequence.frames[start : start + shard_frames])
            for number, start in enumerate(range(0, count, shard_frames), start=1)
        }
    else:
        parts = {WHOLE_SEQUENCE: sequence}
    if 0 < knockout_frames < count:
        frames = tuple(sequence.frames[position] for position in spread(knockout_frames, count))
        parts[KNOCKOUT] = replace(sequence, frames=frames, listing=sequence.names)
    return parts


def measured_parts(parts: Mapping[str, Sequence], measure_frames: int | str) -> dict[str, Sequence]:
    """Return the frames of each shard that are measured: evenly spread over the sequence, and all of ``knockout``.

    ``parts`` are all shards, as ``split`` returns them. A shard may have no measured frame.
    """
    outputs = [frame.output for name, part in parts.items() if name != KNOCKOUT for frame in part.frames]
    wanted = {outputs[place] for place in choice.measured_positions(measure_frames, len(outputs))}

    def chosen(part: Sequence) -> Sequence:
        return replace(part, frames=tuple(frame for frame in part.frames if frame.output in wanted))

    return {name: part if name == KNOCKOUT else chosen(part) for name, part in parts.items()}


def shards(path: Path, shard_frames: int, knockout_frames: int = 0) -> dict[str, Sequence]:
    """Load a sequence that ``save`` wrote and split it; the result is cached until the file is modified."""
    return _shards(path, path.stat().st_mtime_ns, shard_frames, knockout_frames)


def measured_shards(
    path: Path, shard_frames: int, knockout_frames: int, measure_frames: int | str
) -> dict[str, Sequence]:
    """Return the frames of each shard that are measured; the result is cached as that of ``shards``."""
    return _measured_shards(path, path.stat().st_mtime_ns, shard_frames, knockout_frames, measure_frames)


@lru_cache(maxsize=4)
def _measured_shards(
    path: Path, modified: int, shard_frames: int, knockout_frames: int, measure_frames: int | str
) -> dict[str, Sequence]:
    return measured_parts(_shards(path, modified, shard_frames, knockout_frames), measure_frames)


@lru_cache(maxsize=4)
def _shards(path: Path, modified: int, shard_frames: int, knockout_frames: int) -> dict[str, Sequence]:
    del modified  # only part of the cache's key
    return split(load(path), shard_frames, knockout_frames)
