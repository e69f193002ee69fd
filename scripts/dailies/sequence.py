"""The sequence: an ordered folder of frames, every one of them known to be readable."""

import hashlib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

from dailies import files
from dailies.errors import SequenceError
from dailies.text import few
from dailies.typed import OMITTED, Record, from_json, to_json

log = logging.getLogger(__name__)

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".exr", ".dpx", ".webp"),
    *(".tga", ".hdr", ".jp2", ".cin"),
)
"""What counts as a frame, whatever the case of the letters."""

VIDEOS = (".mov", ".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mxf", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")
"""What counts as a video, whatever the case of the letters."""

DECODER = 2
"""Version of the code that decodes videos: raise it when it would decode them differently."""

READER = 2
"""Version of the code that describes frames: raise it when it would describe or refuse some differently."""

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


def output_name(name: str, *, floating: bool = False, output_format: str = "auto") -> str:
    """Give the name of the rendered frame: the input's own name, with the ending of the format it is written in."""
    return Path(name).stem + SUFFIXES.get(output_format, ".exr" if floating else ".png")


def listing(input_dir: Path) -> list[os.DirEntry]:
    """List the frames of a folder in natural order; other files are not frames.

    A link that leads nowhere is listed: a frame is missing there. Raises SequenceError when the folder is missing,
    is not a folder, cannot be read, or holds no frame.
    """
    try:
        entries = list(os.scandir(input_dir))
    except FileNotFoundError:
        advice = misnamed(input_dir) or "set input_dir to the folder of your frames"
        raise SequenceError("sequence.missing", f"input_dir {input_dir} does not exist; {advice}") from None
    except NotADirectoryError:
        raise SequenceError(
            "sequence.not_a_folder",
            f"input_dir {input_dir} is a file but not a video ({' '.join(VIDEOS)}); "
            "set input_dir to the folder of your frames, or to a video",
        ) from None
    except OSError as error:
        raise SequenceError("sequence.unreadable", f"input_dir {input_dir} cannot be read: {error.strerror}") from error
    found = [entry for entry in entries if _is_frame(entry)]
    if not found:
        raise SequenceError(
            "sequence.no_frames",
            f"input_dir {input_dir} holds no frame ({len(entries)} other entries); "
            f"frames end in {' '.join(EXTENSIONS)}",
        )
    by_name = {entry.name: entry for entry in found}
    return [by_name[name] for name in in_order(by_name)]


def misnamed(path: Path) -> str | None:
    """Say what a path that is not there should have been called, where a neighbour tells."""
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return None
    for name in names:
        if name.startswith(f"{path.name} #"):
            return f"there is '{path.with_name(name)}': put it in quotes, for in a file \" #\" begins a comment"
        if normal_form(name) == normal_form(path.name):
            return f"its name is there in another Unicode form, {name!a}: rename it, or copy its name"
    return None


def _is_frame(entry: os.DirEntry) -> bool:
    named = entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
    return named and (entry.is_file() or entry.is_symlink())


def is_video(input_dir: Path) -> bool:
    """Tell whether the input is a video and not a folder of frames."""
    return input_dir.is_file() and input_dir.suffix.lower() in VIDEOS


def fingerprint(input_dir: Path, cache: ScanFiles, layer: str | None = None) -> str:
    """Give a digest that changes when a frame comes, goes or is written again, or with ``layer``; nothing is opened.

    Of a video it also changes when its decoded frames in ``cache`` were lost. Raises SequenceError as ``listing`` does.
    """
    asked = [layer] if layer else []
    if is_video(input_dir):
        lost = cache.clip.is_file() and not cache.video.is_dir()
        return files.digest([_stamp(input_dir), lost, *asked])
    return files.digest([READER, *(_stamp(entry) for entry in listing(input_dir)), *asked])


def _stamp(entry: os.DirEntry | Path) -> str:
    """Name a state of a file: it changes when the file is written again."""
    try:
        stat = entry.stat()
    except OSError:  # a link that leads nowhere, or a file that was there a moment ago
        return f"{entry.name}|gone"
    return f"{entry.name}|{stat.st_size}|{stat.st_mtime_ns}"


def scan(
    input_dir: Path,
    *,
    on_bad_frame: str,
    cache: ScanFiles,
    output_format: str = "auto",
    layer: str | None = None,
    threads: int = 4,
) -> Sequence:
    """Read every frame of a folder once and describe it; frames already in ``cache`` are not read again.

    ``cache.frames`` maps the name, size and modification time of a frame's file to its description.
    ``on_bad_frame`` is ``error`` (an unreadable frame raises SequenceError, naming the first few) or ``skip``
    (it is left out: the sequence keeps a gap, no name shifts). Two frames that would render to one name raise
    SequenceError. A frame that came back with its name in another Unicode form renders to the name that it had.
    ``layer`` is the name of the layer of EXR frames that is their picture, or a glob. A video is decoded
    into ``cache.video``, once.
    """
    if is_video(input_dir):
        if layer:
            raise SequenceError(
                "video.no_layers", f"layer is '{layer}', but video {input_dir.name} has no layers; set layer to none"
            )
        clip = _clip(input_dir, cache, threads)
        found = scan(cache.video, on_bad_frame="error", cache=cache, output_format=output_format, threads=threads)
        return replace(found, folder=cache.video, fps=clip.fps)
    entries = listing(input_dir)
    _report_others(input_dir, entries)
    _refuse_clashes([entry.name for entry in entries])
    known = _known(cache.frames)
    stems = _stems_before(known.values())

    def describe(entry: os.DirEntry) -> tuple[str, Frame | SequenceError]:
        stamp = f"{READER}|{_stamp(entry)}" + (f"|{layer}" if layer else "")
        try:
            frame = known.get(stamp) or _read(Path(entry.path), layer)
            output = output_name(frame.name, floating=frame.floating, output_format=output_format)
            stem = stems.get(normal_form(Path(output).stem), Path(output).stem)
            return stamp, replace(frame, output=stem + Path(output).suffix)
        except SequenceError as error:
            return stamp, error

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        described = list(pool.map(describe, entries))
    good = {stamp: frame for stamp, frame in described if isinstance(frame, Frame)}
    bad = [
        {"name": entry.name, "reason": str(error)}
        for entry, (_, error) in zip(entries, described, strict=True)
        if isinstance(error, SequenceError)
    ]
    files.write_json(cache.frames, to_json(good))
    if bad and (on_bad_frame == "error" or not good):
        advice = "Replace them, or set on_bad_frame to skip to leave them out" if good else "Check input_dir"
        reasons = few([each["reason"] for each in bad], separator="; ")
        raise SequenceError(
            "sequence.unusable_frames", f"{len(bad)} of {len(entries)} frames cannot be used: {reasons}. {advice}"
        )
    for each in bad:
        log.warning("skipped: %s", each["reason"])
    for line in notes(good.values()):
        log.warning("%s", line)
    return Sequence(tuple(good.values()), tuple(bad), layer=layer)


def forget(cache: ScanFiles) -> None:
    """Forget what earlier scans found: every frame is read again, and a video decoded again."""
    cache.frames.unlink(missing_ok=True)
    cache.clip.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Decoded(Record):
    """Which video was decoded, and what came of it."""

    stamp: str
    frames: int
    fps: float | None


def _clip(path: Path, cache: ScanFiles, threads: int) -> _Decoded:
    """Decode a video, unless that is done, and give the record of it."""
    from dailies import video

    stamp, record = f"{DECODER}|{_stamp(path)}", cache.clip
    done = _Decoded.load_if_there(record)
    if done and done.stamp == stamp and len(list(cache.video.glob("*.png"))) == done.frames:
        return done
    record.unlink(missing_ok=True)
    clip = video.decode(path, cache.video, threads=threads)
    done = _Decoded(stamp, clip.frames, clip.fps)
    done.save(record)
    return done


def _known(cache: Path) -> dict[str, Frame]:
    """Give what earlier scans found; nothing when there were none, or when another version of Dailies wrote them."""
    try:
        return {stamp: from_json(Frame, frame) for stamp, frame in files.read_json(cache).items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _stems_before(frames: Iterable[Frame]) -> dict[str, str]:
    """Return how the rendered frames were named, by normal form, where that is not the only form of the name."""
    stems = (Path(frame.output).stem for frame in frames)
    return {normal_form(stem): stem for stem in stems if not stem.isascii()}


def _read(path: Path, layer: str | None) -> Frame:
    from dailies import frames

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SequenceError("frame.unreadable", f"frame {path.name} cannot be read: {error.strerror}") from error
    return Frame(
        name=path.name,
        output=path.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **asdict(frames.inspect(data, path.name, layer=layer)),
    )


def _report_others(input_dir: Path, entries: list[os.DirEntry]) -> None:
    frames = {entry.name for entry in entries}
    others = sorted(path.name for path in input_dir.iterdir() if path.name not in frames)
    if others:
        log.info("not frames, ignored: %s", few(others))


def notes(found: Iterable[Frame]) -> list[str]:
    """Say what of the frames is not rendered, or is a choice, once and not for each of them."""
    named: dict[str, list[str]] = {}
    for frame in found:
        for note in frame.notes:
            named.setdefault(note, []).append(frame.name)
    return [f"{few(names)}: {note}" for note, names in named.items()]


def _refuse_clashes(names: list[str]) -> None:
    # whatever they end in: the page, too, knows a frame by its name alone
    stems = {name: normal_form(Path(name).stem) for name in names}
    counts = Counter(stems.values())
    clashes = [name for name in names if counts[stems[name]] > 1]
    if clashes:
        by_form = len({Path(name).stem for name in clashes}) > len({stems[name] for name in clashes})
        listed = (
            few(map(ascii, clashes)) + " (names that differ in their Unicode form alone)" if by_form else few(clashes)
        )
        raise SequenceError(
            "sequence.name_collision",
            f"several frames would be rendered to the same name: {listed}. Rename or remove all but one of each",
        )


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
