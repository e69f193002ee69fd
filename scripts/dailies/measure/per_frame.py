"""Measure every frame of a model, or of the source: each value once, until what it depends on changes."""

import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core import files, job_environment
from dailies.core.errors import SequenceError
from dailies.core.text import counted
from dailies.frames import frame_cache, reference
from dailies.frames.image import Picture, has_layer, read_frame, reassociate
from dailies.frames.sequence import KNOCKOUT, Frame
from dailies.measure.cache import MeasurementCache, rounded, versions
from dailies.measure.job import NOT_RENDERED, MeasurementJob, Subject, rendered_frames, run
from dailies.measure.metrics import LPIPS, MOTION, REFERENCE, STILL, flicker_note, needing
from dailies.state import manifest
from dailies.state.layout import SOURCE
from dailies.state.records import SUCCESS, Measures, Outcome, Values

if TYPE_CHECKING:
    import numpy as np

    from dailies.measure.source_frame import SourceFrame

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.05
"""How long a thread that finds no idle core waits before it looks again."""

ReadFrame = Callable[..., Picture]
"""``read_frame`` with the transfer bound, and a small cache."""


def measure(job: MeasurementJob, *, outcomes: Sequence[Path]) -> None:
    """Measure the frames of a model and write the job's record.

    ``outcomes`` are the render records of its shard and of the shard before. If one of these renders failed, nothing is
    measured, and the record says so. No exception is raised: a failure is recorded, so it never blocks a render.
    """

    def work() -> Measures:
        for path in outcomes:
            outcome = Outcome.load(path)
            if outcome.status != SUCCESS:
                return Measures(frames={}, notes=(f"{NOT_RENDERED}: {outcome.status}: {outcome.error}",))
        measures = compute_values(job, rendered_frames(job))
        written = manifest.in_place(job.layout.manifests(job.subject), job.layout.frames(job.subject), job.part.outputs)
        frame_cache.forget(job.subject, [entry.sha256 for entry in written.values()])
        return measures

    run(job, work)


def baseline(job: MeasurementJob) -> None:
    """Measure the source as if a model had rendered it, find its motion from frame to frame, and write the record."""

    def work() -> Measures:
        _delete_old_descriptions(job)
        return compute_values(job, job.source)

    run(job, work)


def compute_values(job: MeasurementJob, subject: Subject) -> Measures:
    """Return the values of the shard's measured frames; those that are missing are computed.

    Each thread takes consecutive frames, because neighbours share files to read.
    """
    cache = MeasurementCache(job.cache)
    references = _reference(job)
    plans = [_plan(job, subject, references, before, frame) for before, frame in job.pairs]
    due = [
        plan
        for plan in plans
        if plan.description or any(cache.missing(group.key, group.metrics) for group in plan.groups)
    ]
    log.info("%d of %d frames to measure", len(due), len(plans))
    _in_parallel(partial(_measure_stretch, _Inputs(job, subject, references), cache), due, threads=job.threads)
    requested = {plan.frame.output: [name for group in plan.groups for name in group.metrics] for plan in plans}
    keys = [group.key for plan in plans for group in plan.groups]
    cache.prune(keys, requested, keeps_others=job.is_partial or not job.sequence.is_whole)
    flicker = flicker_note(job.scope, job.metrics)
    return Measures(
        frames={plan.frame.output: _values(cache, plan, job.metrics) for plan in plans},
        of=len(job.part.frames) if job.is_partial else None,
        notes=(*_notes(cache, plans), *([flicker] if flicker else [])),
    )


def comparable(one: Picture, other: Picture) -> tuple["np.ndarray", "np.ndarray"]:
    """Return the colours of two frames. If only one of them is premultiplied by alpha, the other one is as well.

    Both are float32 arrays ``(height, width, 3)``.
    """

    def colours(picture: Picture, beside: Picture) -> "np.ndarray":
        if picture.alpha is None or picture.attributes.associated or not beside.attributes.associated:
            return picture.pixels
        return reassociate(picture.pixels, picture.alpha, associate=True)

    return colours(one, other), colours(other, one)


def _in_parallel(work: Callable[[Iterable[Any]], None], items: Sequence[Any], *, threads: int) -> None:
    """Process stretches of consecutive items, each in two threads, one from each end.

    With one thread, the second one takes an item only while a core is idle, so that the last job of an invocation uses
    all cores.
    """
    stretches = max(1, threads // 2)
    size = -(-len(items) // stretches) or 1
    with ThreadPoolExecutor(max_workers=2 * stretches) as pool:
        working = []
        for start in range(0, len(items), size):
            stretch = deque(items[start : start + size])
            working.append(pool.submit(work, _drained(stretch, stretch.popleft)))
            if threads > 1:
                working.append(pool.submit(work, _drained(stretch, stretch.pop)))
            elif job_environment.may_use_spare_cores():
                working.append(pool.submit(work, _drained(stretch, stretch.pop, may_take=_is_core_idle)))
        for done in working:
            done.result()


def _drained(
    items: Collection[Any], take: Callable[[], Any], *, may_take: Callable[[], bool] = lambda: True
) -> Iterator[Any]:
    """Yield what ``take`` returns, whenever it may be called, until no items are left."""
    while items:
        if not may_take():
            time.sleep(IDLE_SECONDS)
            continue
        try:
            item = take()
        except IndexError:  # the other thread took the last one
            return
        yield item


def _is_core_idle() -> bool:
    """Return whether no more threads are running on this machine, this one included, than it has cores."""
    try:
        running, _, _ = Path("/proc/loadavg").read_text().split()[3].partition("/")
    except OSError:  # not Linux
        return False
    return int(running) <= (os.cpu_count() or 1)


def _reference(job: MeasurementJob) -> Subject | None:
    """Return the frames of the reference that belong to the shard; None if there is no reference."""
    if job.reference_dir is None:
        return None
    setting = reference.ReferenceSettings(job.reference_dir, job.reference_name, job.reference_offset)
    all_paths = reference.paths_by_output(setting, job.sequence, job.layout.pairing)
    paths = {frame.output: all_paths[frame.output] for _, frame in job.pairs if frame.output in all_paths}
    digests = {name: files.sha256_of(path) for name, path in paths.items()}
    if layer := job.sequence.layer:
        digests = {name: files.digest([digest, layer]) for name, digest in digests.items()}
    return Subject(REFERENCE, paths, digests)


@dataclass(frozen=True)
class _Group:
    """Metrics that are computed from the same files, and share an entry of the cache."""

    key: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """What is measured of one frame."""

    before: Frame | None
    frame: Frame
    groups: tuple[_Group, ...]
    description: Path | None
    """The file that is to describe this frame of the source; None if it exists, or if another job writes it."""


@dataclass(frozen=True)
class _Inputs:
    """Where the pixels come from."""

    job: MeasurementJob
    subject: Subject
    references: Subject | None


def _plan(
    job: MeasurementJob, subject: Subject, references: Subject | None, before: Frame | None, frame: Frame
) -> _Plan:
    """Group the metrics of a frame by the digests of the files that they depend on."""
    name = frame.output
    digest = subject.digests[name]
    dependencies = {STILL: [digest, *frame.contents]}
    if references and name in references.digests:
        dependencies[REFERENCE] = [digest, references.digests[name]]
        if LPIPS in job.metrics:
            dependencies[LPIPS] = [*dependencies[REFERENCE], *job.lpips_digests]
    if before:
        dependencies[MOTION] = [digest, *frame.contents, subject.digests[before.output], *before.contents]
    version = versions(job.transfer)
    groups = (
        _Group(files.digest([version[kind], kind, job.transfer, digests]), _metrics_of(kind, job.metrics))
        for kind, digests in dependencies.items()
    )
    measured = tuple(group for group in groups if group.metrics)
    return _Plan(before, frame, measured, _missing_description(job, before, frame))


def _metrics_of(kind: str, metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics of a group. LPIPS has its own group, because it also depends on its weights."""
    if kind == LPIPS:
        return (LPIPS,)
    return tuple(name for name in needing(kind, metrics) if name != LPIPS)


def _values(cache: MeasurementCache, plan: _Plan, metrics: Sequence[str]) -> Values:
    """Return the values of a frame in the order of ``metrics``."""
    known = {name: value for group in plan.groups for name, value in cache.values(group.key).items()}
    return {name: known[name] for name in metrics if name in known}


def _notes(cache: MeasurementCache, plans: Sequence[_Plan]) -> list[str]:
    """Return why values are missing, each reason once with the number of frames that it applies to."""
    frames_of: dict[str, dict[str, None]] = {}
    for plan in plans:
        for group in plan.groups:
            for note in cache.notes(group.key):
                frames_of.setdefault(note, {})[plan.frame.output] = None
    return [f"{counted(len(names), 'frame')} from {next(iter(names))} on: {note}" for note, names in frames_of.items()]


def _measure_stretch(inputs: _Inputs, cache: MeasurementCache, plans: Iterable[_Plan]) -> None:
    """Measure frames that follow each other, in either direction, and add their values to the cache."""
    # the last two frames of the model and of the source: each is read once, though flicker needs pairs
    read = lru_cache(maxsize=4)(partial(read_frame, transfer=inputs.job.transfer))
    for plan in plans:
        if plan.description:
            with suppress(_Incomparable):  # the record of every model then says why
                described = _described(inputs.job, plan.before, plan.frame, read, associated=False)
                files.write_bytes(plan.description, described.to_bytes())
        for group in plan.groups:
            if missing := cache.missing(group.key, group.metrics):
                values, notes = _measure_group(inputs, plan, missing, read)
                cache.add(group.key, values, frame=plan.frame.output, notes=notes)


class _Incomparable(Exception):
    """The reason why a frame has no values."""


def _measure_group(
    inputs: _Inputs, plan: _Plan, metrics: Sequence[str], read: ReadFrame
) -> tuple[Values, Sequence[str]]:
    """Return the values of metrics of one group, and notes on them. If the frame is incomparable, all are None."""
    try:
        if needing(REFERENCE, metrics):
            values, notes = _against_reference(inputs, plan, metrics, read)
        else:
            values, notes = _against_source(inputs, plan, metrics, read), []
    except _Incomparable as reason:
        return dict.fromkeys(metrics), [str(reason)]
    return rounded(values), notes


def _against_reference(
    inputs: _Inputs, plan: _Plan, metrics: Sequence[str], read: ReadFrame
) -> tuple[Values, Sequence[str]]:
    """Compare a frame with its reference; if the rendered EXR layer exists there, with that layer."""
    from dailies.measure import quality

    name, layer = plan.frame.output, inputs.job.sequence.layer
    picture, notes = read(*inputs.subject.location(name)), []
    assert inputs.references is not None  # a frame without a reference has no such group
    path, _, digest, owner = inputs.references.location(name)
    try:
        if layer and not has_layer(path.read_bytes(), path.name, layer):
            notes.append(f"the reference has no layer '{layer}'; its default layer is compared")
            layer = None
        truth_picture = read_frame(path, layer, digest, owner, transfer=inputs.job.transfer)
    except (SequenceError, OSError) as error:
        raise _Incomparable(f"the reference cannot be read: {error}") from error
    image, truth = comparable(picture, truth_picture)
    if truth.shape != image.shape:
        raise _Incomparable(f"the frame is {_size(image)} pixels and its reference {_size(truth)}")
    _check_finite(frame=picture, reference=truth_picture)
    if LPIPS in metrics:
        return {LPIPS: inputs.job.lpips(image, truth)}, notes
    return quality.compute(image, truth, metrics), notes


def _against_source(inputs: _Inputs, plan: _Plan, metrics: Sequence[str], read: ReadFrame) -> Values:
    """Compare a frame with the source; a larger frame is reduced to the source's size first."""
    from dailies.measure import quality
    from dailies.measure.flicker import flicker

    def pixels(frame: Frame) -> "np.ndarray | None":
        rendered = read(*inputs.subject.location(frame.output))
        _check_finite(frame=rendered)
        return quality.reduced(_associated_as(rendered, source.associated), (source.height, source.width))

    picture = read(*inputs.subject.location(plan.frame.output))
    source = _source_frame(inputs.job, plan, picture, read)
    image = pixels(plan.frame)
    if image is None:
        size = f"{source.width}×{source.height}"
        raise _Incomparable(f"the frame is {_size(picture.pixels)} pixels, not a whole multiple of its source's {size}")
    if plan.before is None or needing(STILL, metrics):
        return quality.compute(image, source.still, metrics)
    before = pixels(plan.before)
    if before is None or source.motion is None or before.shape != image.shape:
        return dict.fromkeys(metrics)
    return {"flicker": flicker(image, before, source.motion)}


def _associated_as(picture: Picture, associated: bool) -> "np.ndarray":
    """Return the colours of a frame; if they are to be premultiplied by alpha, as the source's are, they are."""
    if not associated or picture.alpha is None or picture.attributes.associated:
        return picture.pixels
    return reassociate(picture.pixels, picture.alpha, associate=True)


def _source_frame(job: MeasurementJob, plan: _Plan, picture: Picture, read: ReadFrame) -> "SourceFrame":
    """Return what a rendered ``picture`` is compared with: as the baseline stored it, or from the source itself.

    The latter if the baseline failed, or if the colours of the picture are premultiplied and those of the source not.
    """
    from dailies.measure.source_frame import SourceFrame

    path = job.source_frame(plan.before, plan.frame)
    stored = SourceFrame.from_bytes(path.read_bytes()) if path.is_file() else None
    if stored and (stored.associated or not picture.attributes.associated):
        return stored
    return _described(job, plan.before, plan.frame, read, associated=picture.attributes.associated)


def _described(
    job: MeasurementJob, before: Frame | None, frame: Frame, read: ReadFrame, *, associated: bool
) -> "SourceFrame":
    """Describe a frame of the source, premultiplied by alpha if it is, or if it has to be ``associated``."""
    from dailies.measure.source_frame import SourceFrame

    def colours(of: Frame) -> "np.ndarray":
        picture = read(*job.source.location(of.output))
        _check_finite(source=picture)
        return _associated_as(picture, associated)

    is_associated = associated or read(*job.source.location(frame.output)).attributes.associated
    earlier = colours(before) if before and needing(MOTION, job.metrics) else None
    return SourceFrame.of(colours(frame), earlier, associated=is_associated)


def _check_finite(**pictures: Picture) -> None:
    """Raise _Incomparable if a picture has values that are not finite."""
    for what, picture in pictures.items():
        if not picture.is_finite:
            raise _Incomparable(f"the {what} has values that are not finite")


def _size(image: "np.ndarray") -> str:
    return f"{image.shape[1]}×{image.shape[0]}"


def _missing_description(job: MeasurementJob, before: Frame | None, frame: Frame) -> Path | None:
    """Return the file in which the job has to describe a frame of the source, if it is missing."""
    if job.subject != SOURCE or not (needing(STILL, job.metrics) or needing(MOTION, job.metrics)):
        return None
    path = job.source_frame(before, frame)
    return None if path.is_file() else path


def _delete_old_descriptions(job: MeasurementJob) -> None:
    """Delete the descriptions of frames of the source that no shard needs."""
    if not job.sequence.is_whole or job.shard == KNOCKOUT:
        return  # the others are needed once all frames are measured
    needed = {job.source_frame(job.sequence.before.get(frame), frame) for frame in job.sequence.frames}
    for path in job.layout.source_frames.glob("*.npz"):
        if path not in needed:
            path.unlink(missing_ok=True)  # the job of another shard may have deleted it
    shutil.rmtree(job.layout.state / "flow", ignore_errors=True)  # where versions before 2026-12 kept the motion
