"""Measures: the metrics of every frame of a model, measured once and kept.

What a value depends on is the key it is kept under: the digests of the files that it is measured from, and the version
of the code. So only new and changed frames are measured, and what was measured stays, whatever else changes, also while
its metric or its reference is left out.
"""

import json
import logging
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies import backbone, files, manifest, reference
from dailies.errors import DailiesError, SequenceError
from dailies.metrics import LPIPS, measured, of_group
from dailies.sequence import Frame, split
from dailies.sequence import Sequence as FrameSequence
from dailies.sequence import load as load_sequence

if TYPE_CHECKING:
    import numpy as np

    from dailies.lpips import Lpips

log = logging.getLogger(__name__)

MEASURING = 1
"""Version of the code that measures: raise it when the same frames would measure differently."""

SOURCE, CONSENSUS = "@source", "@consensus"
"""Whose measures lie beside those of the models; no model's folder begins with ``@``."""

NOT_RENDERED = "not rendered"
"""How the note begins on a model without frames."""

DIGITS = 9
"""Significant digits that are kept of a value."""

LEAST_MODELS = 3
"""Models of one size that a consensus needs at least."""

SAMPLES = 256 * 2**20
"""Bytes of the frames that a consensus holds at once; where they are more, every n-th row and column stands for all."""

Values = dict[str, float | None]


@dataclass(frozen=True)
class Job:
    """What one job that measures needs to know: of one shard of the sequence."""

    state: Path
    """The folder of the workflow's own state."""
    shard: str
    shard_frames: int
    """Into shards of how many frames the sequence is split; 0: it is not."""
    input_dir: Path
    reference_dir: Path | None
    metrics: tuple[str, ...]
    transfer: str | None
    threads: int
    attempt: int
    lpips_backbone: Path | None = None
    """The file of LPIPS's weights, where that is measured."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, state: Path, shard: str, threads: int, attempt: int) -> "Job":
        """Take what concerns measuring from a validated configuration."""
        asked = measured(config)
        return cls(
            state=state,
            shard=shard,
            shard_frames=config["shard_frames"],
            input_dir=Path(config["input_dir"]),
            reference_dir=Path(config["reference_dir"]) if config["reference_dir"] else None,
            metrics=asked,
            transfer=config["transfer"],
            threads=threads,
            attempt=attempt,
            lpips_backbone=backbone.place(config["lpips_backbone"]) if LPIPS in asked else None,
        )

    @cached_property
    def shot(self) -> FrameSequence:
        """The whole sequence."""
        return load_sequence(self.state / "sequence.json")

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
            {frame.output: frame.sha256 for frame in self.shot.frames},
        )

    @cached_property
    def weights(self) -> list[str]:
        """The digests of what LPIPS depends on beside the frames."""
        return backbone.digests(self.lpips_backbone)

    @cached_property
    def lpips(self) -> "Lpips":
        """LPIPS, whose weights are read when the first frame needs them."""
        from dailies.lpips import Lpips

        return Lpips(self.lpips_backbone)

    def flow_of(self, before: Frame, frame: Frame) -> Path:
        """Say where the flow between two frames of the source is kept."""
        name = files.digest([MEASURING, before.sha256, frame.sha256, self.transfer])[:32]
        return self.state / "flow" / self.shard / f"{name}.npy"


@dataclass(frozen=True)
class Subject:
    """What is measured: the frames of a model, or the source's own."""

    name: str
    paths: Mapping[str, Path] = field(repr=False)
    """By the name of the rendered frame."""
    digests: Mapping[str, str] = field(repr=False)
    """The sha256 of each of them."""


class Kept:
    """Values by key: a file with a line of JSON for each; those of the other shards lie beside it and are read, too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {}
        self._frames: dict[str, str | None] = {}
        """The frame that the values of a key are of, by name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        for other in sorted(path.parent.glob("*.jsonl")):
            for line in other.read_text(errors="replace").splitlines():
                with suppress(ValueError, TypeError, KeyError):  # a line that a crash cut short
                    entry = json.loads(line)
                    self._values.setdefault(entry["key"], {}).update(entry["values"])
                    self._frames.setdefault(entry["key"], entry.get("frame"))

    def get(self, key: str) -> Values:
        """Give what is known under a key."""
        return self._values.get(key, {})

    def add(self, key: str, values: Mapping[str, Any], *, frame: str | None = None) -> None:
        """Keep values, of a frame if they are of one alone; may be called from several threads."""
        with self._lock:
            self._values.setdefault(key, {}).update(values)
            self._frames[key] = frame
            with self._path.open("a") as file:
                file.write(_line(key, values, frame))

    def prune(self, keys: Sequence[str], asked: Mapping[str, Collection[str]]) -> None:
        """Forget what is known under other keys, but for metrics that are not among those ``asked`` for of its frame.

        A metric or a reference that is left out for one invocation is measured once all the same.
        """
        left_out = (
            key
            for key, frame in self._frames.items()
            if frame in asked and self._values[key].keys() - {"notes", *asked[frame]}
        )
        known = (key for key in dict.fromkeys([*keys, *left_out]) if key in self._values)
        lines = (_line(key, self._values[key], self._frames[key]) for key in known)
        files.write_bytes(self._path, "".join(lines).encode())


def _line(key: str, values: Mapping[str, Any], frame: str | None) -> str:
    return json.dumps({"key": key, "frame": frame, "values": dict(values)}) + "\n"


def baseline(job: Job, *, output: Path) -> None:
    """Measure the source itself, as if it were a model's answer, and find its motion from frame to frame."""

    def work() -> dict[str, Any]:
        if "flicker" in job.metrics:
            _find_motion(job)
        return _measured(job, job.source)

    _record(job, SOURCE, output, work)


def measure(job: Job, *, folder: Path, outcomes: Sequence[Path], output: Path) -> None:
    """Measure the frames of a model in ``folder``; ``outcomes`` are the records of its shard and the one before.

    What was not rendered is not measured, and the record says why. Whatever fails is a record, too: measuring
    must never stand in the way of a render.
    """

    def work() -> dict[str, Any]:
        for path in outcomes:
            outcome = files.read_json(path)
            if outcome["status"] != "success":
                return {"frames": {}, "notes": [f"{NOT_RENDERED}: {outcome['status']}: {outcome['error']}"]}
        return _measured(job, _model(job, folder))

    _record(job, folder.name, output, work)


def consensus(job: Job, *, output_dir: Path, outcomes: Sequence[Path], output: Path) -> None:
    """Measure how far each rendered model is from the median of all.

    ``outcomes`` are the records of this shard of all models, each in a folder of the model's name.
    """

    def work() -> dict[str, Any]:
        rendered = [path.parent.name for path in outcomes if files.read_json(path)["status"] == "success"]
        return {"models": _consensus(job, [_model(job, output_dir / name) for name in rendered])}

    _record(job, CONSENSUS, output, work)


def _record(job: Job, name: str, output: Path, work: Callable[[], dict[str, Any]]) -> None:
    """Do the work and write how it went, to ``output`` and to the state that decides whether it is tried again."""
    try:
        ending = {"status": "success", "error": None} | work()
    except Exception as error:  # frames are foreign data, and no metric is worth a render
        if not isinstance(error, DailiesError):
            log.error("measuring failed", exc_info=error)
        ending = {"status": "error", "error": str(error) or type(error).__name__}
    if ending["error"]:
        log.error("%s", ending["error"])
    for note in ending.get("notes", ()):
        log.warning("%s", note)
    state = job.state / "measured" / name / f"{job.shard}.json"
    files.write_json(state, {"status": ending["status"], "attempt": job.attempt})
    files.write_json(output, ending)


def _model(job: Job, folder: Path) -> Subject:
    names = {frame.output for pair in job.places for frame in pair if frame}
    written = manifest.in_place(job.state / "frames" / folder.name, folder, names)
    there = [name for name in names if (folder / name).is_file()]
    digests = {name: written[name].sha256 if name in written else files.sha256_of(folder / name) for name in there}
    if lost := sorted(names - digests.keys()):
        raise SequenceError(f"{folder.name} lacks {len(lost)} frames, the first of them {lost[0]}; render them again")
    return Subject(folder.name, {name: folder / name for name in names}, digests)


def _measured(job: Job, subject: Subject) -> dict[str, Any]:
    """Measure what is not known yet, in as many threads as the job has, each a stretch of consecutive frames."""
    kept = Kept(job.state / "measured" / subject.name / f"{job.shard}.jsonl")
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
    return {
        "frames": {plan.frame.output: _values(kept, plan, job.metrics) for plan in plans},
        "notes": _notes(kept, plans),
    }


def _reference(job: Job) -> Subject | None:
    """Give the frames of the reference that belong to the shard, with their digests; None where there is none."""
    if job.reference_dir is None:
        return None
    paths = reference.matched(job.shot.frames, job.reference_dir).paths
    mine = {frame.output: paths[frame.output] for _, frame in job.places if frame.output in paths}
    return Subject("reference", mine, {name: files.sha256_of(path) for name, path in mine.items()})


@dataclass(frozen=True)
class _Plan:
    """What is measured of one frame."""

    before: Frame | None
    frame: Frame
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """Key and metrics, for each group of metrics that are measured from the same files."""


def _plan(job: Job, subject: Subject, against: Subject | None, before: Frame | None, frame: Frame) -> _Plan:
    own, name = subject.digests[frame.output], frame.output
    depends = {"still": [own, frame.sha256]}
    if against and name in against.digests:
        depends["reference"] = [own, against.digests[name]]
        if LPIPS in job.metrics:
            depends[LPIPS] = [*depends["reference"], *job.weights]
    if before:
        depends["motion"] = [own, frame.sha256, subject.digests[before.output], before.sha256]
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
    return [f"{len(names)} frames from {next(iter(names))} on: {note}" for note, names in said.items()]


def _stretch(job: Job, subject: Subject, against: Subject | None, kept: Kept, stretch: Sequence[_Plan]) -> None:
    """Measure consecutive frames; the two last of each kind are at hand, so that each is read once."""
    read = lru_cache(maxsize=4)(partial(_read, transfer=job.transfer))
    for plan in stretch:
        for key, metrics in plan.groups:
            if unknown := _unknown(kept, key, metrics):
                values, notes = _of_frame(job, subject, against, plan, unknown, read)
                kept.add(key, values | {"notes": notes}, frame=plan.frame.output)


class _Unfit(Exception):
    """Why a frame has no values."""


def _of_frame(
    job: Job,
    subject: Subject,
    against: Subject | None,
    plan: _Plan,
    metrics: Sequence[str],
    read: Callable[[Path], "np.ndarray"],
) -> tuple[Values, list[str]]:
    """Measure the metrics of one group, and say why where one cannot be."""
    name = plan.frame.output
    try:
        if of_group(metrics, "reference"):
            found = _compared(job, read(subject.paths[name]), against.paths[name], metrics)
        else:
            found = _beside_source(job, subject, plan, metrics, read)
        return _rounded(found), []
    except _Unfit as reason:
        return dict.fromkeys(metrics), [str(reason)]


def _compared(job: Job, image: "np.ndarray", path: Path, metrics: Sequence[str]) -> Mapping[str, float | None]:
    from dailies import quality

    try:
        truth = _read(path, transfer=job.transfer)
    except (SequenceError, OSError) as error:
        raise _Unfit(f"the reference cannot be read: {error}") from error
    if truth.shape != image.shape:
        raise _Unfit(f"the frame is {_size(image)} pixels and its reference {_size(truth)}")
    _refuse_infinite(frame=image, reference=truth)
    return {LPIPS: job.lpips(image, truth)} if LPIPS in metrics else quality.compared(image, truth, metrics)


def _beside_source(
    job: Job, subject: Subject, plan: _Plan, metrics: Sequence[str], read: Callable[[Path], "np.ndarray"]
) -> Mapping[str, float | None]:
    from dailies import quality

    name = plan.frame.output
    image, source = read(subject.paths[name]), read(job.source.paths[name])
    _refuse_infinite(frame=image, source=source)
    fitted = quality.fitted(image, source.shape)
    if fitted is None:
        raise _Unfit(f"the frame is {_size(image)} pixels, no whole number of times its source's {_size(source)}")
    if of_group(metrics, "still"):
        return {metric: quality.STILL[metric](fitted, source) for metric in metrics}
    behind = plan.before.output
    sources = source, read(job.source.paths[behind])
    images = fitted, quality.fitted(read(subject.paths[behind]), source.shape)
    return {"flicker": _flicker(job, plan, sources, images)}


def _flicker(
    job: Job, plan: _Plan, source: tuple["np.ndarray", "np.ndarray"], images: tuple["np.ndarray", "np.ndarray | None"]
) -> float | None:
    """Give the flicker from the frame before, each pair in the order of frame and frame before; None without a flow."""
    import numpy as np

    from dailies import motion

    path = job.flow_of(plan.before, plan.frame)
    if images[1] is None or not path.is_file():
        return None
    return motion.Path(np.load(path), *source).flicker(*images)


def _find_motion(job: Job) -> None:
    """Find the flow between the frames of the source that has not been found, and delete what is not needed."""
    pairs = [(before, frame) for before, frame in job.places if before]
    wanted = {job.flow_of(*pair): pair for pair in pairs}
    missing = [path for path in wanted if not path.is_file()]
    size = -(-len(missing) // job.threads) or 1

    def find(paths: Sequence[Path]) -> None:
        import io

        import numpy as np

        from dailies import motion

        read = lru_cache(maxsize=2)(partial(_read, transfer=job.transfer))
        for path in paths:
            before, frame = (read(job.source.paths[each.output]) for each in wanted[path])
            found = motion.flow(frame, before)
            if found is not None:
                data = io.BytesIO()
                np.save(data, found)
                files.write_bytes(path, data.getvalue())

    with ThreadPoolExecutor(max_workers=job.threads) as pool:
        for done in [pool.submit(find, missing[start : start + size]) for start in range(0, len(missing), size)]:
            done.result()
    for path in (job.state / "flow" / job.shard).glob("*.npy"):
        if path not in wanted:
            path.unlink()


def _consensus(job: Job, subjects: Sequence[Subject]) -> dict[str, Values]:
    """Give, by model and frame, the difference from the median of the models whose frames are of the same size."""
    kept = Kept(job.state / "measured" / CONSENSUS / f"{job.shard}.jsonl")
    found: dict[str, Values] = {subject.name: {} for subject in subjects}
    keys = []
    for _, frame in job.places:
        name = frame.output
        digests = [[subject.name, subject.digests[name]] for subject in subjects]
        key = files.digest([MEASURING, "consensus", job.transfer, sorted(digests)])
        keys.append(key)
        if not kept.get(key):
            kept.add(key, _differences(job, {subject.name: subject.paths[name] for subject in subjects}))
        for model, value in kept.get(key).items():
            found[model][name] = value
    kept.prune(keys, {})
    return found


def _differences(job: Job, paths: Mapping[str, Path]) -> Values:
    import numpy as np

    from dailies import quality

    found: Values = dict.fromkeys(paths)
    by_shape: dict[tuple[int, ...], dict[str, np.ndarray]] = {}
    for name, path in paths.items():
        image = _read(path, transfer=job.transfer)
        step = 1
        while image.nbytes // step**2 * len(paths) > SAMPLES:
            step += 1
        by_shape.setdefault(image.shape, {})[name] = image[::step, ::step].copy()
    for images in by_shape.values():
        if len(images) >= LEAST_MODELS:
            median = np.median(np.stack(list(images.values())), axis=0)
            found |= {name: quality.difference(image, median) for name, image in images.items()}
    return _rounded(found)


def _read(path: Path, *, transfer: str | None) -> "np.ndarray":
    """Read a frame as float32 from 0 to 1: integers over their largest, floating-point numbers as ``transfer`` says."""
    from dailies import frames

    return frames.converted(frames.decode(path.read_bytes(), path.name, transfer=transfer).pixels, "float32")


def _refuse_infinite(**images: "np.ndarray") -> None:
    """Raise _Unfit for floating-point numbers, which ``transfer: none`` leaves as they are, that cannot be measured."""
    import numpy as np

    for what, image in images.items():
        if not np.isfinite(image).all():
            raise _Unfit(f"the {what} holds values that are not finite")


def _size(image: "np.ndarray") -> str:
    return f"{image.shape[1]}×{image.shape[0]}"


def _rounded(values: Mapping[str, float | None]) -> Values:
    """Shorten values; None for one that is not finite, as frames before this one may make it."""
    known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
    return dict.fromkeys(values) | {name: float(f"{value:.{DIGITS}g}") for name, value in known.items()}
