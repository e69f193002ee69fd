"""Scanning: turning a folder of frames, or a video, into a sequence."""

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
from dailies.core.typed import Record, from_json, to_json
from dailies.frames import choice
from dailies.frames.sequence import (
    EXTENSIONS,
    SUFFIXES,
    VIDEOS,
    Frame,
    ScanCache,
    Sequence,
    natural_order,
    normal_form,
    summarise_notes,
)

log = logging.getLogger(__name__)

READER_VERSION = 2
"""Version of the code that inspects frames; increment it when that code describes or rejects some differently."""

DECODER_VERSION = 2
"""Version of the code that decodes videos; increment it when that code decodes some differently."""


def output_name(name: str, *, floating: bool = False, output_format: str = "auto") -> str:
    """Return the name of a rendered frame: the name of the input with the suffix of the output format."""
    return Path(name).stem + SUFFIXES.get(output_format, ".exr" if floating else ".png")


def list_frames(input_dir: Path) -> list[os.DirEntry]:
    """Return the frames of a folder in natural order; files with other suffixes are ignored.

    A broken link is included, because its frame is missing. Raises SequenceError if the folder does not exist, is not a
    folder, cannot be read, or holds no frame.
    """
    try:
        entries = list(os.scandir(input_dir))
    except FileNotFoundError:
        advice = similar_name(input_dir) or "set input_dir to the folder of your frames"
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
            f"suffixes of frames: {' '.join(EXTENSIONS)}",
        )
    by_name = {entry.name: entry for entry in found}
    return [by_name[name] for name in natural_order(by_name)]


def similar_name(path: Path) -> str | None:
    """Return advice that names an existing neighbour of a missing path with nearly the same name; None if none."""
    try:
        names = sorted(other.name for other in path.parent.iterdir())
    except OSError:
        return None
    for name in names:
        if name.startswith(f"{path.name} #"):
            return f"'{path.with_name(name)}' exists: quote the path, because \" #\" starts a comment in YAML"
        if normal_form(name) == normal_form(path.name):
            return f"the same name exists in another Unicode form, {name!a}: rename it, or copy that name"
    return None


def _is_frame(entry: os.DirEntry) -> bool:
    named = entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
    return named and (entry.is_file() or entry.is_symlink())


def is_video(input_dir: Path) -> bool:
    """Return whether the input is a video rather than a folder of frames."""
    return input_dir.is_file() and input_dir.suffix.lower() in VIDEOS


def fingerprint(input_dir: Path, cache: ScanCache, layer: str | None = None, frames: int | str = choice.ALL) -> str:
    """Return a digest that changes if a frame is added, removed or modified, or with the settings; opens no file.

    For a video it also changes if the decoded frames in ``cache`` are missing. Raises SequenceError as ``list_frames``
    does.
    """
    settings = ([layer] if layer else []) + ([] if frames == choice.ALL else [["frames", frames]])
    if is_video(input_dir):
        lost = cache.clip.is_file() and not cache.video.is_dir()
        return files.digest([_stamp(input_dir), lost, *settings])
    return files.digest([READER_VERSION, *(_stamp(entry) for entry in list_frames(input_dir)), *settings])


def listing(
    input_dir: Path, cache: ScanCache, layer: str | None = None, frames: int | str = choice.ALL
) -> dict[str, Frame | None] | None:
    """Return the chosen frames in order, by name, as far as they were read in their present state; open no frame.

    A frame that must be read again is None. Return None for a video that must be decoded first. Raise SequenceError as
    ``list_frames`` and ``choice.chosen`` do.
    """
    if is_video(input_dir):
        done = _Decoded.load_if_there(cache.clip)
        if done is None or done.stamp != _clip_stamp(input_dir) or not cache.video.is_dir():
            return None
        input_dir = cache.video
    known, entries = _load_cached(cache.frames), list_frames(input_dir)
    wanted = [entries[position] for position in choice.chosen(frames, len(entries))]
    return {entry.name: known.get(_frame_stamp(entry, layer)) for entry in wanted}


def _frame_stamp(entry: os.DirEntry, layer: str | None) -> str:
    return f"{READER_VERSION}|{_stamp(entry)}" + (f"|{layer}" if layer else "")


def _clip_stamp(path: Path) -> str:
    return f"{DECODER_VERSION}|{_stamp(path)}"


def _stamp(entry: os.DirEntry | Path) -> str:
    """Return name, size and modification time of a file, as a text that changes when the file is modified."""
    try:
        stat = entry.stat()
    except OSError:  # a broken link, or a file that was deleted after it was listed
        return f"{entry.name}|gone"
    return f"{entry.name}|{stat.st_size}|{stat.st_mtime_ns}"


def scan(
    input_dir: Path,
    *,
    on_bad_frame: str,
    cache: ScanCache,
    output_format: str = "auto",
    layer: str | None = None,
    frames: int | str = choice.ALL,
    threads: int = 4,
) -> Sequence:
    """Read and describe the chosen frames of a folder, or of a video, which is decoded into ``cache.video`` first.

    Frames in ``cache.frames`` and a video in ``cache.clip`` are read again only if name, size or modification time
    changed. If a frame reappears with its name in another Unicode form, its rendered frame keeps the earlier name.

    ``on_bad_frame`` is ``error`` (raise SequenceError, naming the first unreadable frames) or ``skip`` (leave them out,
    without renaming any other frame). ``layer`` is the name of the layer of EXR frames that is their picture, or a
    glob. ``frames`` is the setting of this name; frames that it does not choose are not read. Raises SequenceError as
    ``list_frames`` and ``choice.chosen`` do, if two frames would be rendered to the same name, if no frame is readable,
    or if ``layer`` is set for a video.
    """
    if is_video(input_dir):
        if layer:
            raise SequenceError(
                "video.no_layers", f"layer is '{layer}', but video {input_dir.name} has no layers; set layer to none"
            )
        clip = _decode_if_due(input_dir, cache, threads)
        found = scan(
            cache.video,
            on_bad_frame="error",
            cache=cache,
            output_format=output_format,
            frames=frames,
            threads=threads,
        )
        return replace(found, folder=cache.video, fps=clip.fps)
    entries = list_frames(input_dir)
    _log_other_files(input_dir, entries)
    _refuse_clashes([entry.name for entry in entries])
    wanted = [entries[position] for position in choice.chosen(frames, len(entries))]
    cached = _load_cached(cache.frames)
    stems = _previous_stems(cached.values())

    def stamp_of(entry: os.DirEntry) -> str:
        return _frame_stamp(entry, layer)

    def describe(entry: os.DirEntry) -> tuple[str, Frame | SequenceError]:
        stamp = stamp_of(entry)
        try:
            frame = cached.get(stamp) or _inspect(Path(entry.path), layer)
            output = output_name(frame.name, floating=frame.floating, output_format=output_format)
            stem = stems.get(normal_form(Path(output).stem), Path(output).stem)
            return stamp, replace(frame, output=stem + Path(output).suffix)
        except SequenceError as error:
            return stamp, error

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        described = list(pool.map(describe, wanted))
    good = {stamp: frame for stamp, frame in described if isinstance(frame, Frame)}
    bad = [
        {"name": entry.name, "reason": str(error)}
        for entry, (_, error) in zip(wanted, described, strict=True)
        if isinstance(error, SequenceError)
    ]
    unread = [] if len(wanted) == len(entries) else [stamp for stamp in map(stamp_of, entries) if stamp in cached]
    files.write_json(cache.frames, to_json({stamp: cached[stamp] for stamp in unread} | good))
    if bad and (on_bad_frame == "error" or not good):
        advice = "Replace them, or leave them out with on_bad_frame: skip" if good else "Check input_dir"
        reasons = few([each["reason"] for each in bad], separator="; ")
        raise SequenceError(
            "sequence.unusable_frames", f"{len(bad)} of {len(wanted)} frames cannot be used: {reasons}. {advice}"
        )
    for each in bad:
        log.warning("skipped: %s", each["reason"])
    for line in summarise_notes(good.values()):
        log.warning("%s", line)
    unreadable = {each["name"] for each in bad}
    listing = () if len(wanted) == len(entries) else (e.name for e in entries if e.name not in unreadable)
    return Sequence(tuple(good.values()), tuple(bad), layer=layer, listing=tuple(listing))


def clear_cache(cache: ScanCache) -> None:
    """Delete the results of earlier scans, so that every frame is read, and a video decoded, again."""
    cache.frames.unlink(missing_ok=True)
    cache.clip.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Decoded(Record):
    """The record of a decoded video."""

    stamp: str
    """State of the video's file, and version of the decoder."""
    frames: int
    """Number of frames."""
    fps: float | None


def _decode_if_due(path: Path, cache: ScanCache, threads: int) -> _Decoded:
    """Decode a video unless its frames are in the cache, and return the record."""
    from dailies.frames import video

    stamp, record = _clip_stamp(path), cache.clip
    done = _Decoded.load_if_there(record)
    if done and done.stamp == stamp and len(list(cache.video.glob("*.png"))) == done.frames:
        return done
    record.unlink(missing_ok=True)
    clip = video.decode(path, cache.video, threads=threads)
    done = _Decoded(stamp, clip.frames, clip.fps)
    done.save(record)
    return done


def _load_cached(cache: Path) -> dict[str, Frame]:
    """Return the frames of earlier scans; empty if there are none, or if another version of Dailies wrote them."""
    try:
        return {stamp: from_json(Frame, frame) for stamp, frame in files.read_json(cache).items()}
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _previous_stems(frames: Iterable[Frame]) -> dict[str, str]:
    """Return normal form -> stem of the rendered frames whose names have several Unicode forms."""
    stems = (Path(frame.output).stem for frame in frames)
    return {normal_form(stem): stem for stem in stems if not stem.isascii()}


def _inspect(path: Path, layer: str | None) -> Frame:
    from dailies.frames import image

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SequenceError("frame.unreadable", f"frame {path.name} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    header = image.inspect(data, path.name, layer=layer, digest=None if layer else digest)
    return Frame(name=path.name, output=path.name, size=len(data), sha256=digest, **asdict(header))


def _log_other_files(input_dir: Path, entries: list[os.DirEntry]) -> None:
    frames = {entry.name for entry in entries}
    others = sorted(path.name for path in input_dir.iterdir() if path.name not in frames)
    if others:
        log.info("not frames, ignored: %s", few(others))


def _refuse_clashes(names: list[str]) -> None:
    # suffixes are ignored, because the page identifies a frame by its stem, too
    stems = {name: normal_form(Path(name).stem) for name in names}
    counts = Counter(stems.values())
    clashes = [name for name in names if counts[stems[name]] > 1]
    if clashes:
        by_form = len({Path(name).stem for name in clashes}) > len({stems[name] for name in clashes})
        listed = (
            few(map(ascii, clashes)) + " (names that differ only in their Unicode form)" if by_form else few(clashes)
        )
        raise SequenceError(
            "sequence.name_collision",
            f"several frames would be rendered to the same name: {listed}. Keep one of each name; rename or remove "
            "the others",
        )
