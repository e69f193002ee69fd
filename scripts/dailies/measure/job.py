"""The job that measures one shard: its settings, the frames of a model or of the source, and its record."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.errors import DailiesError, SequenceError
from dailies.core.text import counted
from dailies.frames import frame_cache
from dailies.frames.choice import ALL
from dailies.frames.sequence import KNOCKOUT, Frame, Sequence, measured_parts, split
from dailies.frames.sequence import load as load_sequence
from dailies.measure import lpips_weights
from dailies.measure.cache import VERSIONS
from dailies.measure.metrics import LPIPS, MOTION, REFERENCE, STILL, needing, requested
from dailies.state import manifest
from dailies.state.layout import SOURCE, Layout
from dailies.state.records import Attempt, Measures

if TYPE_CHECKING:
    from dailies.measure.lpips import Lpips
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

NOT_RENDERED = "not rendered"
"""How the note of a record begins if the model has no frames because its render failed."""


@dataclass(frozen=True)
class MeasurementJob:
    """Which shard of which model is measured, with which metrics."""

    layout: Layout
    subject: str
    """The folder name of the model; ``@source`` for the source."""
    shard: str
    shard_frames: int
    """The number of frames per shard; 0 if the sequence is not split."""
    input_dir: Path
    reference_dir: Path | None
    metrics: tuple[str, ...]
    transfer: str | None
    threads: int
    attempt: int
    reference_name: str | None = None
    reference_offset: int = 0
    knockout_frames: int = 0
    """The number of frames of the first round of a knockout; 0 without one."""
    measure_frames: int | str = ALL
    """Which frames of the sequence are measured: a number of them, ``auto`` or ``all``."""
    lpips_backbone: Path | None = None
    """The file of LPIPS's weights; None if LPIPS is not requested."""

    @classmethod
    def from_settings(
        cls, settings: "Settings", *, subject: str, shard: str, threads: int, attempt: int
    ) -> "MeasurementJob":
        """Return the job with everything that the settings say about measuring."""
        names = requested(settings)
        return cls(
            layout=Layout(settings.output_dir),
            subject=subject,
            shard=shard,
            shard_frames=settings.shard_frames,
            knockout_frames=settings.knockout_frames,
            measure_frames=settings.measure_frames,
            input_dir=settings.input_dir,
            reference_dir=settings.reference_dir,
            reference_name=settings.reference_name,
            reference_offset=settings.reference_offset,
            metrics=names,
            transfer=settings.transfer,
            threads=threads,
            attempt=attempt,
            lpips_backbone=lpips_weights.path_of(settings.lpips_backbone) if LPIPS in names else None,
        )

    @property
    def output(self) -> Path:
        """The file of its record."""
        return self.layout.measures(self.subject, self.shard)

    @property
    def cache(self) -> Path:
        """The file of the values that are known already."""
        return self.layout.measurement_cache(self.subject, self.shard)

    @cached_property
    def sequence(self) -> Sequence:
        """The whole sequence."""
        return load_sequence(self.layout.sequence)

    @cached_property
    def parts(self) -> dict[str, Sequence]:
        """The frames of all shards."""
        return split(self.sequence, self.shard_frames, self.knockout_frames)

    @property
    def part(self) -> Sequence:
        """The frames of the shard."""
        return self.parts[self.shard]

    @cached_property
    def scope(self) -> Sequence:
        """The frames that are rendered before this job runs, as far as they may be needed."""
        return self.part if self.shard == KNOCKOUT else self.sequence

    @cached_property
    def measured(self) -> tuple[Frame, ...]:
        """The frames of the shard that are measured."""
        return measured_parts(self.parts, self.measure_frames)[self.shard].frames

    @property
    def is_partial(self) -> bool:
        """Whether some frames of the shard are not measured."""
        return len(self.measured) < len(self.part.frames)

    @cached_property
    def pairs(self) -> list[tuple[Frame | None, Frame]]:
        """Each measured frame, preceded by the one before it in the sequence, or None if that was not chosen."""
        before = self.scope.before
        return [(before.get(frame), frame) for frame in self.measured]

    @cached_property
    def source(self) -> "Subject":
        """The frames that all models take as input."""
        folder = self.sequence.folder or self.input_dir
        frames = self.sequence.frames
        return Subject(
            SOURCE,
            paths={frame.output: folder / frame.name for frame in frames},
            digests={frame.output: "".join(frame.contents) for frame in frames},
            exr_layers={frame.output: frame.layer for frame in frames if frame.layer},
        )

    @cached_property
    def lpips_digests(self) -> list[str]:
        """The digests of the files, other than frames, that LPIPS depends on."""
        if self.lpips_backbone is None:
            raise ValueError("LPIPS is not requested")
        return lpips_weights.digests(self.lpips_backbone)

    @cached_property
    def lpips(self) -> "Lpips":
        """LPIPS. Its weights are read on first use."""
        if self.lpips_backbone is None:
            raise ValueError("LPIPS is not requested")
        from dailies.measure.lpips import Lpips  # which imports torch

        return Lpips(self.lpips_backbone)

    def source_frame(self, before: Frame | None, frame: Frame) -> Path:
        """Return the file that describes a frame of the source, and its motion from the one ``before`` it."""
        earlier = before.contents if before and needing(MOTION, self.metrics) else ()
        key = [VERSIONS[STILL], VERSIONS[MOTION], *earlier, *frame.contents, self.transfer]
        return self.layout.source_frame(files.digest(key)[:32])


@dataclass(frozen=True)
class Subject:
    """A set of frames: those of a model, of the source or of the reference."""

    name: str
    paths: Mapping[str, Path] = field(repr=False)
    """By the output name of the frame."""
    digests: Mapping[str, str] = field(repr=False)
    """By output name: the sha256 of the file, or a digest of that and the EXR layer."""
    exr_layers: Mapping[str, str] = field(repr=False, default_factory=dict)
    """By output name: the layer to read from an EXR with several; absent for all others."""

    def location(self, name: str) -> tuple[Path, str | None, str, str]:
        """Return the file of a frame, the EXR layer to read, its digest, and its owner in the frame cache."""
        owner = frame_cache.INPUTS if self.name in {SOURCE, REFERENCE} else self.name
        return self.paths[name], self.exr_layers.get(name), self.digests[name], owner


def rendered_frames(job: MeasurementJob) -> Subject:
    """Return the model's frames that the job needs. Raises SequenceError if one does not exist."""
    folder = job.layout.frames(job.subject)
    names = {frame.output for pair in job.pairs for frame in pair if frame}
    written = manifest.in_place(job.layout.manifests(job.subject), folder, names)
    present = [name for name in names if (folder / name).is_file()]
    digests = {name: written[name].sha256 if name in written else files.sha256_of(folder / name) for name in present}
    if lost := sorted(names - digests.keys()):
        raise SequenceError(
            "measure.frames_missing",
            f"{job.subject} lacks {counted(len(lost), 'frame')}, starting with {lost[0]}; render them again",
        )
    return Subject(job.subject, {name: folder / name for name in names}, digests)


def run(job: MeasurementJob, work: Callable[[], Measures]) -> None:
    """Do the work, and write its record and the attempt, which decides whether it is retried.

    An exception is logged and recorded, not raised: measuring must never block a render.
    """
    try:
        record = work()
    except Exception as error:  # frames are foreign data: anything may go wrong with them
        if not isinstance(error, DailiesError):
            log.error("measuring failed", exc_info=error)
        record = Measures(status="error", error=str(error) or type(error).__name__)
    if record.error:
        log.error("%s", record.error)
    for note in record.notes or ():
        log.warning("%s", note)
    Attempt(status=record.status, attempt=job.attempt).save(job.layout.measuring_attempt(job.subject, job.shard))
    record.save(job.output)
