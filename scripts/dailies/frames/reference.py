"""The reference: the frames as they should be, each paired with the frame of the sequence that it belongs to."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files as files_module
from dailies.core.errors import SequenceError
from dailies.core.text import counted, few
from dailies.core.typed import Record
from dailies.frames import pairing, scan, sequence
from dailies.frames.pairing import Pairs
from dailies.frames.sequence import (
    EXTENSIONS,
    VIDEOS,
    Frame,
    ScanFiles,
    in_order,
)

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

WARNING = "warning: "
"""How a sentence begins on which the user should act."""

FIRST = 3
"""How many frames a report spells out."""


@dataclass(frozen=True)
class Asked:
    """Which reference a configuration asks for, and how its frames are paired."""

    place: Path
    """A folder or a video."""
    template: str | None = None
    """``reference_name``."""
    offset: int = 0
    """``reference_offset``."""

    @classmethod
    def from_settings(cls, settings: "Settings") -> "Asked | None":
        """Take what concerns the reference from the settings; None if they ask for none."""
        if settings.reference_dir is None:
            return None
        return cls(settings.reference_dir, settings.reference_name, settings.reference_offset)

    @property
    def is_video(self) -> bool:
        return scan.is_video(self.place)


@dataclass(frozen=True)
class Reference:
    """Which file of the reference belongs to which frame of the sequence, and what a user has to know of it."""

    paths: Mapping[str, Path]
    """By the name of the rendered frame."""
    told: tuple[str, ...]
    """How the frames were paired, and what is wrong with that, in sentences."""
    missing: str | None
    """Which frames of the sequence have no reference, as a sentence; None where all have one."""

    @property
    def report(self) -> list[str]:
        return [*self.told, *([self.missing] if self.missing else [])]


@dataclass(frozen=True)
class _Pairing(Record):
    """What is written of a reference."""

    folder: str
    """Where its files are; relative to the record if they were decoded."""
    decoded: bool
    files: Mapping[str, str]
    """The name of the file by that of the rendered frame."""
    told: tuple[str, ...]
    missing: str | None


def fingerprint(asked: Asked, cache: ScanFiles) -> str:
    """Return a digest that changes when a frame of the reference comes, goes or is written again, or its pairing does.

    Raises SequenceError when there is no frame, or when the template cannot be used.
    """
    if asked.is_video:
        _refuse_template(asked)
        found = scan.fingerprint(asked.place, cache)
    else:
        stats = ((name, (asked.place / name).stat()) for name in _listed(asked))
        found = files_module.digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    ordinary = (asked.template, asked.offset) == (None, 0)
    return found if ordinary else files_module.digest([found, asked.template, asked.offset])


def check(asked: Asked, shot: sequence.Sequence) -> None:
    """Raise SequenceError when no frame of a folder belongs to the sequence; those of a video are not known yet."""
    if not asked.is_video:
        _paired(asked, shot, _listed(asked))


def write(
    asked: Asked,
    *,
    sequence_file: Path,
    input_dir: Path,
    transfer: str | None,
    cache: ScanFiles,
    output: Path,
    threads: int = 4,
) -> None:
    """Pair the reference with the sequence and write what ``load`` reads; a video is decoded first.

    What ``cache`` holds, decoded frames among it, is deleted when the reference is a folder. Raises SequenceError when
    no frame belongs to any of the sequence.
    """
    shot = sequence.load(sequence_file)
    if asked.is_video:
        _refuse_template(asked)
        clip = scan.scan(asked.place, on_bad_frame="error", cache=cache, threads=threads)
        folder, names = clip.folder, [frame.name for frame in clip.frames]
    else:
        shutil.rmtree(cache.folder, ignore_errors=True)
        folder, names = asked.place, _listed(asked)
    pairs = _paired(asked, shot, names)
    sources = {frame.name: (shot.folder or input_dir) / frame.name for frame in shot.frames}
    by = _shift(shot.frames, pairs, sources, folder, transfer=transfer, threads=threads)
    missing = [frame.name for frame in shot.frames if frame.name not in pairs.files]
    told = [*_told(asked, pairs, missing, names), *([told_shift(by, asked.offset)] if by else [])]
    for line in (*told, told_missing(missing)):
        if line:
            log.log(logging.WARNING if line.startswith(WARNING) else logging.INFO, "%s", line.removeprefix(WARNING))
    record = _Pairing(
        folder=folder.relative_to(output.parent).as_posix() if asked.is_video else str(folder),
        decoded=asked.is_video,
        files={frame.output: pairs.files[frame.name] for frame in shot.frames if frame.name in pairs.files},
        told=tuple(told),
        missing=told_missing(missing),
    )
    record.save(output)


def paths_of(asked: Asked, shot: sequence.Sequence, record: Path) -> Mapping[str, Path]:
    """Return the files of the reference by the names of the rendered frames.

    Those of a folder are known by their names alone; those of a video by the ``record`` that ``write`` left.
    """
    if asked.is_video:
        return load(record).paths
    pairs = _paired(asked, shot, _listed(asked))
    return {frame.output: asked.place / pairs.files[frame.name] for frame in shot.frames if frame.name in pairs.files}


def load(path: Path) -> Reference:
    """Read what ``write`` wrote."""
    record = _Pairing.load(path)
    folder = path.parent / record.folder if record.decoded else Path(record.folder)
    return Reference({output: folder / name for output, name in record.files.items()}, record.told, record.missing)


def found(records: Sequence[str]) -> Reference | None:
    """Read the record of a job's input, which holds none where there is no reference."""
    return load(Path(records[0])) if records else None


def paths(records: Sequence[str]) -> Mapping[str, Path] | None:
    """Return the files of the reference by the names of the rendered frames, as ``found`` does."""
    reference = found(records)
    return reference and reference.paths


def told_missing(missing: Iterable[str]) -> str | None:
    """Say which frames have no reference; None when all do."""
    names = list(missing)
    frames = counted(len(names), "frame")
    return f"{frames} without a reference cannot be compared with one: {few(names, FIRST)}" if names else None


def told_shift(by: int, offset: int) -> str:
    """Say that the frames agree better with those of the reference that are ``by`` frames later."""
    where = f"{counted(abs(by), 'frame')} {'later' if by > 0 else 'earlier'}"
    return (
        f"{WARNING}the reference seems to be shifted: frames agree far better with its frames {where} than with those "
        f"they are paired with; set reference_offset to {offset + by} (it is {offset})"
    )


def _told(asked: Asked, pairs: Pairs, missing: Sequence[str], names: Sequence[str]) -> list[str]:
    """Say how the frames were paired, which could not be told apart, and which of the reference are left over."""
    ways = [f"{count} {way}" for way, count in pairs.ways.items()] if len(pairs.ways) > 1 else list(pairs.ways)
    offset = f", with reference_offset {asked.offset}" if asked.offset else ""
    count = len(pairs.files) + len(missing)
    of = f"{len(pairs.files)} of {counted(count, 'frame')}" if missing else counted(count, "frame")
    told = [f"reference: {of} paired{',' if len(ways) > 1 else ''} {' and '.join(ways)}{offset}"]
    if pairs.several:
        told.append(
            f"{counted(len(pairs.several), 'frame')} left out that could be paired in several ways; "
            f"set reference_name to decide: {_doubtful(pairs)}"
        )
    used = set(pairs.files.values())
    if left := [name for name in names if name not in used]:
        told.append(f"{counted(len(left), 'frame')} of the reference left over: {few(left, FIRST)}")
    return told


def _doubtful(pairs: Pairs) -> str:
    return few((f"{name} ({few(candidates, FIRST)})" for name, candidates in pairs.several.items()), FIRST, "; ")


def _paired(asked: Asked, shot: sequence.Sequence, names: Sequence[str]) -> Pairs:
    frames = [frame.name for frame in shot.frames]
    by_name = shot.folder is None and not asked.is_video  # frames of a video have numbers only
    pairs = pairing.pair(frames, names, template=asked.template, offset=asked.offset, by_name=by_name)
    if pairs.files:
        return pairs
    if pairs.several:
        raise SequenceError(
            "reference.ambiguous",
            f"no frame can be paired with reference_dir {asked.place}, because those that match could be paired in "
            f"several ways; set reference_name to decide: {_doubtful(pairs)}",
        )
    there = f"there are {few(names, FIRST)}"
    if asked.template is not None:
        wanted = pairing.expected(asked.template, frames, asked.offset)
        raise SequenceError(
            "reference.name_matches_nothing",
            f"reference_name {asked.template!r} names no file of reference_dir {asked.place}: {there}, but looked for "
            f"were {few(wanted, FIRST)}; correct reference_name",
        )
    shift = f", each {asked.offset} frames later (reference_offset)" if asked.offset else ""
    raise SequenceError(
        "reference.nothing_paired",
        f"no frame of reference_dir {asked.place} belongs to a frame of the sequence: {there}, but wanted are "
        f"{few(frames, FIRST)}{shift}; {_advice(asked, frames, names)}, or set reference_dir to none",
    )


def _advice(asked: Asked, frames: Sequence[str], names: Sequence[str]) -> str:
    """Say which keys can pair both, and which offset pairs the first of both, where both are numbered."""
    ours, theirs = (pairing.numbered(each).values() for each in (frames, names))
    keys = [] if asked.is_video else ["reference_name"]
    if ours and theirs:
        keys.append(f"reference_offset (with {min(theirs) - min(ours)} the first frames are a pair)")
    agree = "numbers have" if asked.is_video else "names or numbers have"
    return f"{agree} to agree{', so set ' * bool(keys)}{' or '.join(keys)}"


def _shift(
    frames: Sequence[Frame],
    pairs: Pairs,
    sources: Mapping[str, Path],
    folder: Path,
    *,
    transfer: str | None,
    threads: int,
) -> int:
    """Return by how many frames the pairs seem to be off, by the numbers of the frames; whatever fails is no shift."""
    from dailies.frames import shift as shift_module

    numbers, by_name = pairing.numbered([frame.name for frame in frames]), {frame.name: frame for frame in frames}
    counts = Counter(numbers.values())
    once = {number: name for name, number in numbers.items() if counts[number] == 1}
    found = {number: folder / pairs.files[name] for number, name in once.items() if name in pairs.files}
    ours = {number: (sources[name], (by_name[name].width, by_name[name].height)) for number, name in once.items()}
    try:
        layers = {sources[frame.name]: frame.layer for frame in frames if frame.layer and frame.name in sources}
        return shift_module.best_shift(
            shift_module.samples(ours, found), transfer=transfer, threads=threads, layers=layers
        )
    except Exception as error:  # frames are foreign data, and this is only advice
        log.warning("whether the reference is shifted could not be checked: %s", error)
        return 0


def _refuse_template(asked: Asked) -> None:
    if asked.template is not None:
        raise SequenceError(
            "reference.name_for_video",
            f"reference_name {asked.template!r} names files, but reference_dir {asked.place} is a video, whose frames "
            "are paired by number; remove reference_name, and set reference_offset if both do not begin together",
        )


def _listed(asked: Asked) -> list[str]:
    """Name the frames of a folder, in order; where the template names a sub-folder, those of all its sub-folders."""
    folder, advice = asked.place, "set reference_dir to the folder of the reference's frames, to a video, or to none"
    depth = (asked.template or "").count("/")
    try:
        names = list(_names(folder, depth))
    except FileNotFoundError:
        raise SequenceError("reference.missing", f"reference_dir {folder} does not exist; {advice}") from None
    except NotADirectoryError:
        raise SequenceError(
            "reference.not_a_folder", f"reference_dir {folder} is a file but not a video ({' '.join(VIDEOS)}); {advice}"
        ) from None
    except OSError as error:
        raise SequenceError(
            "reference.unreadable", f"reference_dir {folder} cannot be read: {error.strerror}"
        ) from error
    if not names:
        below = " in its sub-folders" if depth else ""
        raise SequenceError(
            "reference.no_frames", f"reference_dir {folder} holds no frame{below}; frames end in {' '.join(EXTENSIONS)}"
        )
    return in_order(names)


def _names(folder: Path, depth: int, prefix: str = "") -> Iterable[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if depth and entry.is_dir():
            yield from _names(folder / entry.name, depth - 1, f"{prefix}{entry.name}/")
        elif not depth and entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
            yield prefix + entry.name
