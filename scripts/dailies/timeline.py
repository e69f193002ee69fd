"""The timeline: the source, the reference and every model as tracks of one OpenTimelineIO file, for desktop players."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import dailies
from dailies import files
from dailies.errors import TimelineError
from dailies.sequence import Sequence as FrameSequence
from dailies.sequence import load as load_sequence
from dailies.sequence import numbers

if TYPE_CHECKING:
    import opentimelineio as otio

log = logging.getLogger(__name__)

FPS = 24.0
"""How fast a sequence plays that has no rate of its own."""

NUMBERED = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)
"""A file name around the last number in it."""

LARGEST_NUMBER = 10**9
"""No frame number is larger: a longer row of digits is a name."""


@dataclass(frozen=True)
class Stretch:
    """Frames whose names count up without a gap."""

    names: tuple[str, ...]
    prefix: str
    start: int | None
    """The first frame's number; None for one frame that has none."""
    digits: int
    """To how many digits numbers are filled up with zeros, without the sign."""
    suffix: str

    @property
    def following(self) -> tuple[str, int | None, str]:
        """What the next frame would be called: prefix, number and suffix."""
        return self.prefix, None if self.start is None else self.start + len(self.names), self.suffix

    def goes_on_with(self, name: str) -> bool:
        """Tell whether a name is that of the frame after the last."""
        prefix, number, suffix = self.following
        if number is None:
            return False
        return name == f"{prefix}{'-' if number < 0 else ''}{abs(number):0{self.digits}d}{suffix}"


def stretches(names: Iterable[str]) -> list[Stretch]:
    """Split a sequence's names, in order, where the numbers in them have a gap or are written otherwise."""
    found: list[Stretch] = []
    names = list(names)
    known = numbers(names)
    for name in names:
        if found and found[-1].goes_on_with(name):
            last = found[-1]
            found[-1] = Stretch((*last.names, name), last.prefix, last.start, last.digits, last.suffix)
            continue
        suffix = Path(name).suffix
        match = NUMBERED.fullmatch(name.removesuffix(suffix))
        if match and int(match[2]) <= LARGEST_NUMBER:
            prefix = match[1][:-1] if known[name] < 0 else match[1]
            found.append(Stretch((name,), prefix, known[name], len(match[2]), match[3] + suffix))
        else:
            found.append(Stretch((name,), name, None, 0, ""))
    return found


def write(
    metadata: Sequence[Path],
    *,
    sequence: Path,
    input_dir: Path,
    reference: Mapping[str, Path] | None,
    fps: float | None,
    output: Path,
) -> None:
    """Write a track of the source, one of the reference if there is one, and one of every model that was rendered.

    Tracks refer to the frames where they are now. A frame keeps its number: where numbers are missing there is a gap,
    and so there is where a file is. Frames whose names hold no number follow one another. Raises TimelineError
    when OpenTimelineIO is not installed.
    """
    try:
        import opentimelineio as otio
    except ImportError:
        raise TimelineError("OpenTimelineIO, which writes timelines, is missing: pip install opentimelineio") from None
    shot = load_sequence(sequence)
    rate = float(fps or shot.fps or FPS)
    timeline = otio.schema.Timeline(name=input_dir.stem)
    parts = stretches(frame.name for frame in shot.frames)
    first = next((part.start for part in parts[:1] if part.start is not None), 0)
    timeline.global_start_time = otio.opentime.RationalTime(first, rate)
    timeline.metadata["dailies"] = {"version": dailies.__version__, "sequence_digest": shot.digest}
    for name, folder, names in _tracks(shot, metadata, input_dir, reference):
        timeline.tracks.append(_track(otio, name, folder, names, parts, rate))
    files.write_bytes(output, otio.adapters.write_to_string(timeline, "otio_json").encode())
    log.info("%d tracks of %d frames at %g fps", len(timeline.tracks), len(shot.frames), rate)


def _tracks(
    shot: FrameSequence, metadata: Sequence[Path], input_dir: Path, reference: Mapping[str, Path] | None
) -> Iterator[tuple[str, Path, list[str | None]]]:
    """Give a name, a folder and the name of each frame's file, in the sequence's order; None where there is none."""
    yield "source", shot.folder or input_dir, [frame.name for frame in shot.frames]
    if reference:
        folder = Path(os.path.commonpath([path.parent for path in reference.values()]))
        found = (reference.get(frame.output) for frame in shot.frames)
        yield "reference", folder, [path and path.relative_to(folder).as_posix() for path in found]
    for path in metadata:
        if files.read_json(path)["render"]["status"] == "success":
            yield path.parent.name, path.parent, [frame.output for frame in shot.frames]
        else:
            log.warning("%s was not rendered and has no track", path.parent.name)


def _track(
    otio: "otio", name: str, folder: Path, names: Sequence[str | None], parts: Sequence[Stretch], rate: float
) -> "otio.schema.Track":
    """Lay a folder's files out as the sequence's own names are: ``parts`` says where those have gaps."""
    track = otio.schema.Track(name=name, kind=otio.schema.TrackKind.Video)
    files_left = iter(names)
    before: Stretch | None = None
    for part in parts:
        if before and (missing := _missing(before, part)):
            track.append(_gap(otio, missing, rate))
        present = [file if file and (folder / file).exists() else None for file in islice(files_left, len(part.names))]
        for run in _runs(present):
            if run[0] is None:
                track.append(_gap(otio, len(run), rate))
            else:
                track.extend(_clip(otio, folder, piece, rate) for piece in stretches(run))
        before = part
    return track


def _missing(before: Stretch, after: Stretch) -> int:
    """Count the frame numbers between two stretches of one numbering."""
    prefix, number, suffix = before.following
    same = (prefix, suffix) == (after.prefix, after.suffix) and number is not None and after.start is not None
    return max(after.start - number, 0) if same else 0


def _runs(present: Sequence[str | None]) -> Iterator[list[str | None]]:
    """Split files into runs of those that are there and of those that are not."""
    run: list[str | None] = []
    for file in present:
        if run and (run[-1] is None) != (file is None):
            yield run
            run = []
        run.append(file)
    if run:
        yield run


def _gap(otio: "otio", frames: int, rate: float) -> "otio.schema.Gap":
    return otio.schema.Gap(source_range=_range(otio, 0, frames, rate))


def _range(otio: "otio", start: int, frames: int, rate: float) -> "otio.opentime.TimeRange":
    return otio.opentime.TimeRange(otio.opentime.RationalTime(start, rate), otio.opentime.RationalTime(frames, rate))


def _clip(otio: "otio", folder: Path, part: Stretch, rate: float) -> "otio.schema.Clip":
    covered = _range(otio, part.start or 0, len(part.names), rate)
    if part.start is None:
        media = otio.schema.ExternalReference((folder.absolute() / part.names[0]).as_uri(), available_range=covered)
    else:
        media = otio.schema.ImageSequenceReference(
            target_url_base=f"{folder.absolute().as_uri()}/",
            name_prefix=quote(part.prefix),
            name_suffix=quote(part.suffix),
            start_frame=part.start,
            frame_step=1,
            rate=rate,
            frame_zero_padding=part.digits,
            # what is lost later is shown as lost, not as the frame before it
            missing_frame_policy=otio.schema.ImageSequenceReference.MissingFramePolicy.black,
            available_range=covered,
        )
    return otio.schema.Clip(name=part.names[0], media_reference=media, source_range=covered)
