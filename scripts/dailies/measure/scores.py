"""Scores: means of per-frame values, over all frames and over those that were not trained on."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.frames import training
from dailies.frames.reference import Reference
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.frames.training import TrainedRun
from dailies.measure.metrics import BY_NAME
from dailies.state.layout import model_of
from dailies.state.records import (
    Means,
    Measures,
    Metadata,
    RunRecord,
    Values,
)

if TYPE_CHECKING:
    pass


Frames = Mapping[str, Values]
"""Values by frame, by metric."""


def seen_by(about: TrainedRun, shot: FrameSequence, names: Iterable[str], input_dir: Path) -> frozenset[str]:
    """Name the frames of the sequence that a model was trained on, as far as its run says."""
    return training.training_frames(about, shot.frames, names=names, input_dir=input_dir)


def seen_by_models(
    metadata: Iterable[Path], *, sequence: Path, names: Iterable[str], input_dir: Path
) -> dict[str, frozenset[str]]:
    """Name, by a model's folder, the rendered frames that it was trained on, as ``seen_by`` does."""
    shot, names = load_sequence(sequence), list(names)
    return {model_of(path): seen_by(Metadata.load(path), shot, names, input_dir) for path in metadata}


def merged(records: Iterable[Measures]) -> dict[str, Values]:
    """Give the values of all frames from the records of a model's shards."""
    return {frame: values for record in records for frame, values in (record.frames or {}).items()}


def column(frames: Frames, metric: str, names: Iterable[str]) -> list[float]:
    """Give the values of a metric on those of the frames that have one."""
    values = (frames.get(name, {}).get(metric) for name in names)
    return [value for value in values if value is not None]


def means(frames: Frames, metrics: Iterable[str], names: Iterable[str]) -> dict[str, float | None]:
    """Give the mean of each metric over those of the frames that have a value; None where none has."""
    names = list(names)
    columns = {metric: column(frames, metric, names) for metric in metrics}
    return {metric: sum(values) / len(values) if values else None for metric, values in columns.items()}


def summed_up(
    measures: Sequence[Path],
    run: Path,
    *,
    sequence: Path,
    names: Iterable[str],
    input_dir: Path,
    reference: Reference | None = None,
) -> Means | None:
    """Sum up a model's measures for its ``metadata.json``: means over all, over unseen, and over training frames.

    ``run`` is the record of its run. None where nothing was measured. With the ``reference`` it is said how its frames
    were paired.
    """
    if not measures:
        return None
    shot, records = load_sequence(sequence), [Measures.load(path) for path in measures]
    frames = merged(records)
    metrics = [name for name in BY_NAME if any(name in values for values in frames.values())]
    seen = seen_by(RunRecord.load(run), shot, names, input_dir)
    outputs = [frame.output for frame in shot.frames]
    trained = [name for name in outputs if name in seen]
    return Means(
        frames=len(frames),
        training_frames=len(trained),
        error=next((record.error for record in records if record.error), None),
        notes=tuple(sorted({note for record in records for note in record.notes or ()})),
        mean=means(frames, metrics, outputs),
        mean_unseen=means(frames, metrics, [name for name in outputs if name not in seen]),
        mean_training=means(frames, metrics, trained) if trained else None,
        reference=tuple(reference.report) if reference else None,
    )
