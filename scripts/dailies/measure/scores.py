"""The scores of a model: its values per frame, and their means over all frames and over those it was not trained on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dailies.frames import training
from dailies.frames.reference import Reference
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.measure.metrics import BY_NAME
from dailies.state.layout import model_of
from dailies.state.records import Means, Measures, Metadata, Outcome, RunRecord, Values

FrameValues = Mapping[str, Values]
"""Values by the output name of the frame, then by metric."""


@dataclass(frozen=True)
class Scores:
    """The values of a model, or of the source, on every frame."""

    model: str
    """The model's folder name; ``@source`` for the source."""
    run: RunRecord | None
    """None for the source."""
    outcome: Outcome | None
    """How the model's render went; None for the source."""
    frames: FrameValues
    """Empty if the render failed, even if some frames were measured."""
    training_frames: frozenset[str]
    """The output names of the frames that the model was trained on."""

    def value(self, metric: str, frame: str) -> float | None:
        """Return the value of a metric on a frame; None if it has none."""
        return self.frames.get(frame, {}).get(metric)


def training_frames(
    run: training.TrainedRun, sequence: FrameSequence, names: Iterable[str], input_dir: Path
) -> frozenset[str]:
    """Return the output names of the frames that a model was trained on, according to its run.

    ``names`` are those of the params, tags or datasets that may list them.
    """
    return training.training_frames(run, sequence.frames, names=names, input_dir=input_dir, listing=sequence.names)


def training_frames_by_model(
    metadata: Iterable[Path], *, sequence: Path, names: Iterable[str], input_dir: Path
) -> dict[str, frozenset[str]]:
    """Return the ``training_frames`` of several models, by folder name; ``metadata`` are their ``metadata.json``."""
    frames, names = load_sequence(sequence), list(names)
    return {model_of(path): training_frames(Metadata.load(path), frames, names, input_dir) for path in metadata}


def merged(records: Iterable[Measures]) -> dict[str, Values]:
    """Return the values of all frames from the records of a model's shards."""
    return {frame: values for record in records for frame, values in (record.frames or {}).items()}


def measured_part(records: Iterable[Measures]) -> tuple[int, int] | None:
    """Return how many frames were measured, and of how many, from the records of a model's shards; None if all were."""
    records = list(records)
    if not any(record.of for record in records):
        return None
    counts = [len(record.frames or ()) for record in records]
    return sum(counts), sum(record.of or count for record, count in zip(records, counts, strict=True))


def column(frames: FrameValues, metric: str, names: Iterable[str]) -> list[float]:
    """Return the values of a metric on the named frames, without the frames that have none."""
    values = (frames.get(name, {}).get(metric) for name in names)
    return [value for value in values if value is not None]


def means(frames: FrameValues, metrics: Iterable[str], names: Iterable[str]) -> dict[str, float | None]:
    """Return the mean of each metric over the named frames; None if no frame has a value."""
    names = list(names)
    columns = {metric: column(frames, metric, names) for metric in metrics}
    return {metric: sum(values) / len(values) if values else None for metric, values in columns.items()}


def summarized(
    measures: Sequence[Path],
    run: Path,
    *,
    sequence: Path,
    names: Iterable[str],
    input_dir: Path,
    reference: Reference | None = None,
    reference_fingerprint: str | None = None,
) -> Means | None:
    """Return the means of a model for its ``metadata.json``: over all measured frames, unseen ones and training frames.

    ``measures`` are the records of its shards; without any, the result is None. ``run`` is the record of its run, and
    ``names`` are those of ``training_frames``. If there is a ``reference``, the result says how its frames were paired,
    and which one it is.
    """
    if not measures:
        return None
    frame_sequence, records = load_sequence(sequence), [Measures.load(path) for path in measures]
    frames = merged(records)
    metrics = [name for name in BY_NAME if any(name in values for values in frames.values())]
    seen = training_frames(RunRecord.load(run), frame_sequence, names, input_dir)
    outputs = [frame.output for frame in frame_sequence.frames]
    trained = [name for name in outputs if name in seen]
    part = measured_part(records)
    return Means(
        frames=len(frames),
        of=part[1] if part else None,
        training_frames=len(trained),
        error=next((record.error for record in records if record.error), None),
        notes=tuple(sorted({note for record in records for note in record.notes or ()})),
        mean=means(frames, metrics, outputs),
        mean_unseen=means(frames, metrics, [name for name in outputs if name not in seen]),
        mean_training=means(frames, metrics, trained) if trained else None,
        reference=tuple(reference.report) if reference else None,
        reference_fingerprint=reference_fingerprint,
        shards=tuple(path.stem for path in measures),
    )
