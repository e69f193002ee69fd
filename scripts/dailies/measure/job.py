"""Subjects: the frames that a job measures, of a model or of the source itself, and the record of how it went."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.errors import DailiesError, SequenceError
from dailies.core.text import counted
from dailies.frames.sequence import Frame, split
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.measure import backbone
from dailies.measure.cache import MEASURING
from dailies.measure.metrics import LPIPS, measured
from dailies.state import manifest
from dailies.state.layout import SOURCE, Layout
from dailies.state.records import Attempt, Measures

if TYPE_CHECKING:
    import numpy as np

    from dailies.frames.image import Picture
    from dailies.measure.lpips import Lpips
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """What a job that measures needs to know: whose frames of which shard, and what of them."""

    layout: Layout
    subject: str
    """The name of the model's folder, or ``@source``."""
    shard: str
    shard_frames: int
    """Into shards of how many frames the sequence is split; 0: it is not."""
    input_dir: Path
    reference_dir: Path | None
    metrics: tuple[str, ...]
    transfer: str | None
    threads: int
    attempt: int
    reference_name: str | None = None
    reference_offset: int = 0
    lpips_backbone: Path | None = None
    """The file of LPIPS's weights, where that is measured."""

    @classmethod
    def from_settings(
        cls, settings: "Settings", *, subject: str, shard: str, threads: int, attempt: int
    ) -> "Measurement":
        """Take what concerns measuring from the settings."""
        asked = measured(settings)
        return cls(
            layout=Layout(settings.output_dir),
            subject=subject,
            shard=shard,
            shard_frames=settings.shard_frames,
            input_dir=settings.input_dir,
            reference_dir=settings.reference_dir,
            reference_name=settings.reference_name,
            reference_offset=settings.reference_offset,
            metrics=asked,
            transfer=settings.transfer,
            threads=threads,
            attempt=attempt,
            lpips_backbone=backbone.place(settings.lpips_backbone) if LPIPS in asked else None,
        )

    @property
    def output(self) -> Path:
        """Its record."""
        return self.layout.measures(self.subject, self.shard)

    @property
    def kept(self) -> Path:
        """The file of the values that are known already."""
        return self.layout.values(self.subject, self.shard)

    @cached_property
    def shot(self) -> FrameSequence:
        """The whole sequence."""
        return load_sequence(self.layout.sequence)

    @cached_property
    def places(self) -> list[tuple[Frame | None, Frame]]:
        """Each frame of the shard, after the one before it in the sequence."""
        before = dict(zip(self.shot.frames[1:], self.shot.frames, strict=False))
        return [(before.get(frame), frame) for frame in split(self.shot, self.shard_frames)[self.shard].frames]

    @cached_property
    def source(self) -> "Subject":
        """The frames that all models were given."""
        folder = self.shot.folder or self.input_dir
        return Subject(
            SOURCE,
            {frame.output: folder / frame.name for frame in self.shot.frames},
            {frame.output: "".join(frame.contents) for frame in self.shot.frames},
            {frame.output: frame.layer for frame in self.shot.frames if frame.layer},
        )

    @cached_property
    def weights(self) -> list[str]:
        """The digests of what LPIPS depends on beside the frames."""
        return backbone.digests(self.lpips_backbone)

    @cached_property
    def lpips(self) -> "Lpips":
        """LPIPS, whose weights are read when the first frame needs them."""
        from dailies.measure.lpips import Lpips

        return Lpips(self.lpips_backbone)

    def flow_of(self, before: Frame, frame: Frame) -> Path:
        """Say where the flow between two frames of the source is kept."""
        name = files.digest([MEASURING, *before.contents, *frame.contents, self.transfer])[:32]
        return self.layout.flow(name)


@dataclass(frozen=True)
class Subject:
    """What is measured: the frames of a model, or the source's own."""

    name: str
    paths: Mapping[str, Path] = field(repr=False)
    """By the name of the rendered frame."""
    digests: Mapping[str, str] = field(repr=False)
    """The sha256 of each of them, or a digest of it and its layer."""
    layers: Mapping[str, str] = field(repr=False, default_factory=dict)
    """Of those that are EXRs: the layer that is their picture, where that is not plain."""

    def place(self, name: str) -> tuple[Path, str | None]:
        """Say where a frame is: its file, and the layer in it."""
        return self.paths[name], self.layers.get(name)


def model_of(job: Measurement) -> Subject:
    """Give the frames of a model that the job needs; raise SequenceError when some are not there."""
    folder = job.layout.frames(job.subject)
    names = {frame.output for pair in job.places for frame in pair if frame}
    written = manifest.in_place(job.layout.manifests(job.subject), folder, names)
    there = [name for name in names if (folder / name).is_file()]
    digests = {name: written[name].sha256 if name in written else files.sha256_of(folder / name) for name in there}
    if lost := sorted(names - digests.keys()):
        raise SequenceError(
            "measure.frames_missing",
            f"{job.subject} lacks {counted(len(lost), 'frame')}, the first of them {lost[0]}; render them again",
        )
    return Subject(job.subject, {name: folder / name for name in names}, digests)


def record(job: Measurement, work: Callable[[], Measures]) -> None:
    """Do the work and write how it went: the job's record, and the state that decides whether it is tried again."""
    try:
        ending = work()
    except Exception as error:  # frames are foreign data, and no metric is worth a render
        if not isinstance(error, DailiesError):
            log.error("measuring failed", exc_info=error)
        ending = Measures(status="error", error=str(error) or type(error).__name__)
    if ending.error:
        log.error("%s", ending.error)
    for note in ending.notes or ():
        log.warning("%s", note)
    Attempt(status=ending.status, attempt=job.attempt).save(job.layout.measuring(job.subject, job.shard))
    ending.save(job.output)


def alike(one: "Picture", other: "Picture") -> tuple["np.ndarray", "np.ndarray"]:
    """Give the colours of two frames to compare: where only one's are multiplied by alpha, the other's are, too."""
    from dailies.frames import image

    def colours(own: "Picture", beside: "Picture") -> "np.ndarray":
        has_other_kind = beside.attributes.associated and not own.attributes.associated
        if own.alpha is None or not has_other_kind:
            return own.pixels
        return image.reassociate(own.pixels, own.alpha, associate=True)

    return colours(one, other), colours(other, one)
