"""The reference (ground-truth frames): pairing with the sequence, and the record of it."""

import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.core.text import counted, few
from dailies.core.typed import Record
from dailies.frames import pairing, scan
from dailies.frames.pairing import Pairs
from dailies.frames.sequence import EXTENSIONS, VIDEOS, ScanCache, natural_order
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

WARNING = "warning: "
"""Prefix of a message on which the user should act."""

MAX_LISTED = 3
"""How many frames a message lists."""


@dataclass(frozen=True)
class ReferenceSettings:
    """The settings that concern the reference."""

    place: Path
    """A folder or a video."""
    template: str | None = None
    """``reference_name``."""
    offset: int = 0
    """``reference_offset``."""

    @classmethod
    def from_settings(cls, settings: "Settings") -> "ReferenceSettings | None":
        """Return the settings that concern the reference; None if there is none."""
        if settings.reference_dir is None:
            return None
        return cls(settings.reference_dir, settings.reference_name, settings.reference_offset)

    @property
    def is_video(self) -> bool:
        return scan.is_video(self.place)


@dataclass(frozen=True)
class Reference:
    """The paired files of a reference, and messages for the user about the pairing."""

    paths: Mapping[str, Path]
    """Name of a rendered frame -> path of its reference."""
    messages: tuple[str, ...]
    """How the frames were paired, and problems with that; those that need action start with ``WARNING``."""
    missing: str | None
    """A message that names the frames without a reference; None if all frames have one."""

    @property
    def report(self) -> list[str]:
        """All messages."""
        return [*self.messages, *([self.missing] if self.missing else [])]


@dataclass(frozen=True)
class _Pairing(Record):
    """The record of a pairing."""

    folder: str
    """The folder of the files; relative to the record if they were decoded from a video."""
    decoded: bool
    files: Mapping[str, str]
    """Name of a rendered frame -> name of its file."""
    told: tuple[str, ...]
    """``Reference.messages``."""
    missing: str | None
    """``Reference.missing``."""


def fingerprint(settings: ReferenceSettings, cache: ScanCache) -> str:
    """Return a digest that changes if a file of the reference is added, removed or modified, or with the settings.

    Raises SequenceError if there is no file, or if there is a template but the reference is a video.
    """
    if settings.is_video:
        _refuse_template_for_video(settings)
        digest = scan.fingerprint(settings.place, cache)
    else:
        stats = ((name, (settings.place / name).stat()) for name in _list_files(settings))
        digest = files.digest([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
    is_default = (settings.template, settings.offset) == (None, 0)
    return digest if is_default else files.digest([digest, settings.template, settings.offset])


def check(settings: ReferenceSettings, sequence: FrameSequence) -> None:
    """Raise SequenceError if no file of the reference can be paired; a video is not checked before it is decoded."""
    if not settings.is_video:
        _paired(settings, sequence, _list_files(settings))


def write(
    settings: ReferenceSettings,
    *,
    sequence_file: Path,
    input_dir: Path,
    transfer: str | None,
    cache: ScanCache,
    output: Path,
    threads: int = 4,
) -> None:
    """Pair the reference with the sequence and write the record that ``load`` reads; a video is decoded first.

    If the reference is a folder, everything in ``cache`` is deleted, including decoded frames of an earlier video.
    Raises SequenceError if no file of the reference can be paired.
    """
    sequence = load_sequence(sequence_file)
    if settings.is_video:
        _refuse_template_for_video(settings)
        clip = scan.scan(settings.place, on_bad_frame="error", cache=cache, threads=threads)
        folder, names = cache.video, [frame.name for frame in clip.frames]
    else:
        shutil.rmtree(cache.folder, ignore_errors=True)
        folder, names = settings.place, _list_files(settings)
    pairs = _paired(settings, sequence, names)
    by = _detected_shift(sequence, pairs, sequence.folder or input_dir, folder, transfer=transfer, threads=threads)
    missing = [frame.name for frame in sequence.frames if frame.name not in pairs.files]
    messages = _pairing_messages(settings, pairs, sequence, names)
    messages += [shift_message(by, settings.offset)] if by else []
    for line in (*messages, missing_message(missing)):
        if line:
            log.log(logging.WARNING if line.startswith(WARNING) else logging.INFO, "%s", line.removeprefix(WARNING))
    record = _Pairing(
        folder=folder.relative_to(output.parent).as_posix() if settings.is_video else str(folder),
        decoded=settings.is_video,
        files={frame.output: pairs.files[frame.name] for frame in sequence.frames if frame.name in pairs.files},
        told=tuple(messages),
        missing=missing_message(missing),
    )
    record.save(output)


def paths_by_output(settings: ReferenceSettings, sequence: FrameSequence, record: Path) -> Mapping[str, Path]:
    """Return name of a rendered frame -> path of its reference.

    Files of a folder are paired again; those of a video are read from the ``record`` that ``write`` wrote.
    """
    if settings.is_video:
        return load(record).paths
    pairs = _paired(settings, sequence, _list_files(settings))
    return {
        frame.output: settings.place / pairs.files[frame.name] for frame in sequence.frames if frame.name in pairs.files
    }


def load(path: Path) -> Reference:
    """Read a record that ``write`` wrote."""
    record = _Pairing.load(path)
    folder = path.parent / record.folder if record.decoded else Path(record.folder)
    return Reference({output: folder / name for output, name in record.files.items()}, record.told, record.missing)


def load_if_any(records: Sequence[str]) -> Reference | None:
    """Read the record among the inputs of a job, which has one at most; None if there is no reference."""
    return load(Path(records[0])) if records else None


def paths_if_any(records: Sequence[str]) -> Mapping[str, Path] | None:
    """Return ``Reference.paths`` of the record among the inputs of a job; None if there is no reference."""
    reference = load_if_any(records)
    return reference.paths if reference else None


def missing_message(missing: Iterable[str]) -> str | None:
    """Return a message that names the frames without a reference; None if there are none."""
    names = list(missing)
    frames = counted(len(names), "frame")
    return f"{frames} without a reference, not compared with one: {few(names, MAX_LISTED)}" if names else None


def shift_message(by: int, offset: int) -> str:
    """Return a warning that the frames match better those of the reference that are ``by`` frames later."""
    where = f"{counted(abs(by), 'frame')} {'later' if by > 0 else 'earlier'}"
    return (
        f"{WARNING}the reference seems to be shifted: frames match its frames {where} far better than those that they "
        f"are paired with; set reference_offset to {offset + by} (it is {offset})"
    )


def _pairing_messages(
    settings: ReferenceSettings, pairs: Pairs, sequence: FrameSequence, names: Sequence[str]
) -> list[str]:
    """Return messages on how all frames of the input were paired, which are ambiguous, and which files are unused."""
    methods = list(pairs.methods)
    if len(methods) > 1:
        methods = [f"{count} {method}" for method, count in pairs.methods.items()]
    offset = f", with reference_offset {settings.offset}" if settings.offset else ""
    count = len(sequence.names)
    of = f"{len(pairs.files)} of {counted(count, 'frame')}" if len(pairs.files) < count else counted(count, "frame")
    messages = [f"reference: {of} paired{',' if len(methods) > 1 else ''} {' and '.join(methods)}{offset}"]
    if pairs.ambiguous:
        messages.append(
            f"{counted(len(pairs.ambiguous), 'frame')} not paired, because several files match; "
            f"set reference_name to choose: {_ambiguous_list(pairs)}"
        )
    used = set(pairs.files.values())
    if unused := [name for name in names if name not in used]:
        messages.append(f"{counted(len(unused), 'frame')} of the reference not used: {few(unused, MAX_LISTED)}")
    return messages


def _ambiguous_list(pairs: Pairs) -> str:
    texts = (f"{name} ({few(candidates, MAX_LISTED)})" for name, candidates in pairs.ambiguous.items())
    return few(texts, MAX_LISTED, "; ")


def _paired(settings: ReferenceSettings, sequence: FrameSequence, names: Sequence[str]) -> Pairs:
    """Pair files of the reference with all frames of the input; raise SequenceError if there is no pair."""
    frames = sequence.names
    # names of a video's frames differ only in their numbers
    by_name = sequence.folder is None and not settings.is_video
    pairs = pairing.pair(frames, names, template=settings.template, offset=settings.offset, by_name=by_name)
    if pairs.files:
        return pairs
    if pairs.ambiguous:
        raise SequenceError(
            "reference.ambiguous",
            f"no frame can be paired with reference_dir {settings.place}, because several files match each frame; "
            f"set reference_name to choose: {_ambiguous_list(pairs)}",
        )
    existing = few(names, MAX_LISTED)
    if settings.template is not None:
        wanted = pairing.expected_names(settings.template, frames, settings.offset)
        raise SequenceError(
            "reference.name_matches_nothing",
            f"reference_name {settings.template!r} matches no file of reference_dir {settings.place}: it holds "
            f"{existing}, but the names would be {few(wanted, MAX_LISTED)}; correct reference_name",
        )
    shift = f", each {settings.offset} frames later (reference_offset)" if settings.offset else ""
    raise SequenceError(
        "reference.nothing_paired",
        f"no frame of reference_dir {settings.place} belongs to a frame of the sequence: it holds {existing}, but the "
        f"sequence holds {few(frames, MAX_LISTED)}{shift}; {_advice(settings, frames, names)}, or set reference_dir to "
        "none",
    )


def _advice(settings: ReferenceSettings, frames: Sequence[str], names: Sequence[str]) -> str:
    """Return which keys to set, and the offset that pairs the first frames if both sides are numbered."""
    ours, theirs = (pairing.frame_numbers(each).values() for each in (frames, names))
    keys = [] if settings.is_video else ["reference_name"]
    if ours and theirs:
        keys.append(f"reference_offset ({min(theirs) - min(ours)} pairs the first frames)")
    compared = "numbers" if settings.is_video else "names or numbers"
    return f"{compared} must match{', so set ' * bool(keys)}{' or '.join(keys)}"


def _detected_shift(
    sequence: FrameSequence, pairs: Pairs, source: Path, folder: Path, *, transfer: str | None, threads: int
) -> int:
    """Return by how many frames the pairs seem to be shifted, 0 if they are not or if the check fails.

    ``source`` and ``folder`` hold the frames and the reference. Neighbours are needed, so frames that were not chosen
    are compared as well; they are assumed to have the size and layer of the first one.
    """
    from dailies.frames.reference_shift import choose_samples, estimate_shift

    numbers, by_name = pairing.frame_numbers(sequence.names), {frame.name: frame for frame in sequence.frames}
    counts = Counter(numbers.values())
    once = {number: name for name, number in numbers.items() if counts[number] == 1}
    references = {number: folder / pairs.files[name] for number, name in once.items() if name in pairs.files}
    described = {name: by_name.get(name, sequence.frames[0]) for name in once.values()}
    ours = {number: (source / name, (described[name].width, described[name].height)) for number, name in once.items()}
    try:
        layers = {source / name: frame.layer for name, frame in described.items() if frame.layer}
        return estimate_shift(choose_samples(ours, references), transfer=transfer, threads=threads, layers=layers)
    except Exception as error:  # the frames are user data, and the result is only advice
        log.warning("could not check whether the reference is shifted: %s", error)
        return 0


def _refuse_template_for_video(settings: ReferenceSettings) -> None:
    if settings.template is not None:
        raise SequenceError(
            "reference.name_for_video",
            f"reference_name {settings.template!r} applies to files, but reference_dir {settings.place} is a video, "
            "whose frames are paired by number; remove reference_name, and set reference_offset if the two start at "
            "different frames",
        )


def _list_files(settings: ReferenceSettings) -> list[str]:
    """Return the frames of a folder in natural order; if the template has sub-folders, those in all sub-folders."""
    folder, advice = settings.place, "set reference_dir to the folder of the reference's frames, to a video, or to none"
    depth = (settings.template or "").count("/")
    try:
        names = list(_scan_names(folder, depth))
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
            "reference.no_frames",
            f"reference_dir {folder} holds no frame{below}; suffixes of frames: {' '.join(EXTENSIONS)}",
        )
    return natural_order(names)


def _scan_names(folder: Path, depth: int, prefix: str = "") -> Iterable[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if depth and entry.is_dir():
            yield from _scan_names(folder / entry.name, depth - 1, f"{prefix}{entry.name}/")
        elif not depth and entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
            yield prefix + entry.name
