"""Scan: turn a folder of frames, or a video, into a sequence."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.core.text import few
from dailies.core.typed import (
    Record,
    from_json,
    to_json,
)
from dailies.frames.sequence import (
    EXTENSIONS,
    SUFFIXES,
    VIDEOS,
    Frame,
    ScanFiles,
    Sequence,
    in_order,
    normal_form,
    notes,
)

log = logging.getLogger(__name__)

READER = 2
"""Version of the code that describes frames: raise it when it would describe or refuse some differently."""

DECODER = 2
"""Version of the code that decodes videos: raise it when it would decode them differently."""


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
    from dailies.frames import video

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
    from dailies.frames import image

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SequenceError("frame.unreadable", f"frame {path.name} cannot be read: {error.strerror}") from error
    return Frame(
        name=path.name,
        output=path.name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        **asdict(image.inspect(data, path.name, layer=layer)),
    )


def _report_others(input_dir: Path, entries: list[os.DirEntry]) -> None:
    frames = {entry.name for entry in entries}
    others = sorted(path.name for path in input_dir.iterdir() if path.name not in frames)
    if others:
        log.info("not frames, ignored: %s", few(others))


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
