"""Measures: the metrics of every frame of a model, measured once and kept."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.errors import SequenceError
from dailies.core.text import counted
from dailies.frames import reference
from dailies.frames.image import read_frame
from dailies.frames.sequence import Frame
from dailies.measure.cache import (
    MEASURING,
    Kept,
    Values,
    rounded,
)
from dailies.measure.job import (
    Measurement,
    Subject,
    alike,
    model_of,
    record,
)
from dailies.measure.metrics import LPIPS, of_group
from dailies.state.records import SUCCESS, Measures, Outcome

if TYPE_CHECKING:
    import numpy as np

    from dailies.frames.image import Picture


from itertools import pairwise

log = logging.getLogger(__name__)

NOT_RENDERED = "not rendered"
"""How the note begins on a model without frames."""


def measure(job: Measurement, *, outcomes: Sequence[Path]) -> None:
    """Measure the frames of a model; ``outcomes`` are the records of its shard and the one before.

    What was not rendered is not measured, and the record says why. Whatever fails is a record, too: measuring
    must never stand in the way of a render.
    """

    def work() -> Measures:
        for path in outcomes:
            outcome = Outcome.load(path)
            if outcome.status != SUCCESS:
                return Measures(frames={}, notes=(f"{NOT_RENDERED}: {outcome.status}: {outcome.error}",))
        return measured(job, model_of(job))

    record(job, work)


def measured(job: Measurement, subject: Subject) -> Measures:
    """Measure what is not known yet, in as many threads as the job has, each a stretch of consecutive frames."""
    kept = Kept(job.kept)
    against = _reference(job)
    plans = [_plan(job, subject, against, before, frame) for before, frame in job.places]
    todo = [plan for plan in plans if any(_unknown(kept, *each) for each in plan.groups)]
    log.info("%d frames, %d of them to measure", len(plans), len(todo))
    size = -(-len(todo) // job.threads) or 1
    with ThreadPoolExecutor(max_workers=job.threads) as pool:
        stretches = [todo[start : start + size] for start in range(0, len(todo), size)]
        for done in [pool.submit(_stretch, job, subject, against, kept, stretch) for stretch in stretches]:
            done.result()
    asked = {plan.frame.output: [name for _, metrics in plan.groups for name in metrics] for plan in plans}
    kept.prune([key for plan in plans for key, _ in plan.groups], asked)
    return Measures(
        frames={plan.frame.output: _values(kept, plan, job.metrics) for plan in plans}, notes=tuple(_notes(kept, plans))
    )


def _reference(job: Measurement) -> Subject | None:
    """Give the frames of the reference that belong to the shard, with their digests; None where there is none."""
    if job.reference_dir is None:
        return None
    asked = reference.ReferenceSettings(job.reference_dir, job.reference_name, job.reference_offset)
    paths = reference.paths_by_output(asked, job.shot, job.layout.pairing)
    mine = {frame.output: paths[frame.output] for _, frame in job.places if frame.output in paths}
    asked = [job.shot.layer] if job.shot.layer else []
    digests = {name: files.sha256_of(path) for name, path in mine.items()}
    return Subject(
        "reference", mine, {name: files.digest([own, *asked]) if asked else own for name, own in digests.items()}
    )


@dataclass(frozen=True)
class _Plan:
    """What is measured of one frame."""

    before: Frame | None
    frame: Frame
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Key and metrics, for each group of metrics that are measured from the same files."""


def _plan(job: Measurement, subject: Subject, against: Subject | None, before: Frame | None, frame: Frame) -> _Plan:
    own, name = subject.digests[frame.output], frame.output
    depends = {"still": [own, *frame.contents]}
    if against and name in against.digests:
        depends["reference"] = [own, against.digests[name]]
        if LPIPS in job.metrics:
            depends[LPIPS] = [*depends["reference"], *job.weights]
    if before:
        depends["motion"] = [own, *frame.contents, subject.digests[before.output], *before.contents]
    found = ((group, _kept_together(job.metrics, group), each) for group, each in depends.items())
    return _Plan(
        before,
        frame,
        tuple(
            (files.digest([MEASURING, group, job.transfer, digests]), metrics)
            for group, metrics, digests in found
            if metrics
        ),
    )


def _kept_together(metrics: Sequence[str], group: str) -> tuple[str, ...]:
    """Name the metrics of a group that depend on the same files; LPIPS, which needs more than its group, is its own."""
    if group == LPIPS:
        return (LPIPS,)
    return tuple(name for name in of_group(metrics, group) if name != LPIPS)


def _unknown(kept: Kept, key: str, metrics: Sequence[str]) -> list[str]:
    known = kept.get(key)
    return [name for name in metrics if name not in known]


def _values(kept: Kept, plan: _Plan, metrics: Sequence[str]) -> Values:
    known = {name: value for key, _ in plan.groups for name, value in kept.get(key).items()}
    return {name: known[name] for name in metrics if name in known}


def _notes(kept: Kept, plans: Sequence[_Plan]) -> list[str]:
    """Say, once for all frames that it is true of, why values are missing."""
    said: dict[str, dict[str, None]] = {}
    for plan in plans:
        for key, _ in plan.groups:
            for note in kept.get(key).get("notes", ()):
                said.setdefault(note, {})[plan.frame.output] = None
    return [f"{counted(len(names), 'frame')} from {next(iter(names))} on: {note}" for note, names in said.items()]


def _stretch(job: Measurement, subject: Subject, against: Subject | None, kept: Kept, stretch: Sequence[_Plan]) -> None:
    """Measure consecutive frames; the two last of each kind are at hand, so that each is read once."""
    read = lru_cache(maxsize=4)(partial(read_frame, transfer=job.transfer))
    for plan in stretch:
        for key, metrics in plan.groups:
            if unknown := _unknown(kept, key, metrics):
                values, notes = _of_frame(job, subject, against, plan, unknown, read)
                kept.add(key, values | {"notes": notes}, frame=plan.frame.output)


class _Unfit(Exception):
    """Why a frame has no values."""


def _of_frame(
    job: Measurement,
    subject: Subject,
    against: Subject | None,
    plan: _Plan,
    metrics: Sequence[str],
    read: Callable[..., "Picture"],
) -> tuple[Values, list[str]]:
    """Measure the metrics of one group, and say why where one cannot be."""
    name = plan.frame.output
    try:
        if of_group(metrics, "reference"):
            return _compared(job, read(*subject.place(name)), against.paths[name], metrics)
        return rounded(_beside_source(job, subject, plan, metrics, read)), []
    except _Unfit as reason:
        return dict.fromkeys(metrics), [str(reason)]


def _compared(job: Measurement, picture: "Picture", path: Path, metrics: Sequence[str]) -> tuple[Values, list[str]]:
    """Compare with the reference, in the layer that the sequence is rendered from where the reference has that, too."""
    from dailies.frames import image
    from dailies.measure import quality

    layer, notes = job.shot.layer, []
    try:
        if layer and not image.has_layer(path.read_bytes(), path.name, layer):
            notes.append(f"the reference has no layer '{layer}'; the picture that it holds is compared")
            layer = None
        image, truth = alike(picture, read_frame(path, layer, transfer=job.transfer))
    except (SequenceError, OSError) as error:
        raise _Unfit(f"the reference cannot be read: {error}") from error
    if truth.shape != image.shape:
        raise _Unfit(f"the frame is {_size(image)} pixels and its reference {_size(truth)}")
    _refuse_infinite(frame=image, reference=truth)
    found = {LPIPS: job.lpips(image, truth)} if LPIPS in metrics else quality.compared(image, truth, metrics)
    return rounded(found), notes


def _beside_source(
    job: Measurement, subject: Subject, plan: _Plan, metrics: Sequence[str], read: Callable[..., "Picture"]
) -> Mapping[str, float | None]:
    from dailies.measure import quality

    def pair(name: str) -> tuple["np.ndarray", "np.ndarray"]:
        return alike(read(*subject.place(name)), read(*job.source.place(name)))

    image, source = pair(plan.frame.output)
    _refuse_infinite(frame=image, source=source)
    fitted = quality.fitted(image, source.shape)
    if fitted is None:
        raise _Unfit(f"the frame is {_size(image)} pixels, no whole number of times its source's {_size(source)}")
    if of_group(metrics, "still"):
        return {metric: quality.STILL[metric](fitted, source) for metric in metrics}
    image_before, source_before = pair(plan.before.output)
    images = fitted, quality.fitted(image_before, source.shape)
    return {"flicker": _flicker(job, plan, (source, source_before), images)}


def _flicker(
    job: Measurement,
    plan: _Plan,
    source: tuple["np.ndarray", "np.ndarray"],
    images: tuple["np.ndarray", "np.ndarray | None"],
) -> float | None:
    """Give the flicker from the frame before, each pair in the order of frame and frame before.

    None where the source cannot be followed. What the baseline failed to find is found here.
    """
    import numpy as np

    from dailies.measure import flicker

    path = job.flow_of(plan.before, plan.frame)
    moved = np.load(path) if path.is_file() else flicker.flow(*source)
    return None if images[1] is None or moved is None else flicker.Path(moved, *source).flicker(*images)


def _refuse_infinite(**images: "np.ndarray") -> None:
    """Raise _Unfit for floating-point numbers, which ``transfer: none`` leaves as they are, that cannot be measured."""
    import numpy as np

    for what, image in images.items():
        if not np.isfinite(image).all():
            raise _Unfit(f"the {what} holds values that are not finite")


def _size(image: "np.ndarray") -> str:
    return f"{image.shape[1]}×{image.shape[0]}"


def baseline(job: Measurement) -> None:
    """Measure the source itself, as if it were a model's answer, and find its motion from frame to frame."""

    def work() -> Measures:
        if "flicker" in job.metrics:
            _find_motion(job)
        return measured(job, job.source)

    record(job, work)


def _find_motion(job: Measurement) -> None:
    """Find the flow between the frames of the source that has not been found, and delete what no shard needs."""
    pairs = [(before, frame) for before, frame in job.places if before]
    wanted = {job.flow_of(*pair): pair for pair in pairs}
    missing = [path for path in wanted if not path.is_file()]
    size = -(-len(missing) // job.threads) or 1

    def find(paths: Sequence[Path]) -> None:
        import io

        import numpy as np

        from dailies.measure import flicker

        read = lru_cache(maxsize=2)(partial(read_frame, transfer=job.transfer))
        for path in paths:
            before, frame = (read(*job.source.place(each.output)).pixels for each in wanted[path])
            found = flicker.flow(frame, before)
            if found is not None:
                data = io.BytesIO()
                np.save(data, found)
                files.write_bytes(path, data.getvalue())

    with ThreadPoolExecutor(max_workers=job.threads) as pool:
        for done in [pool.submit(find, missing[start : start + size]) for start in range(0, len(missing), size)]:
            done.result()
    needed = {job.flow_of(*pair) for pair in pairwise(job.shot.frames)}
    for path in job.layout.flows.glob("*.npy"):
        if path not in needed:
            path.unlink(missing_ok=True)  # the job of another shard does the same
