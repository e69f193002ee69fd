"""The leaderboard: the tables of all measured values and means, the best model, and what the page shows of them."""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.text import clean
from dailies.frames.reference import Reference
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.measure.job import NOT_RENDERED
from dailies.measure.metrics import BY_NAME, REFERENCE, ranking_metric, requested
from dailies.measure.scores import Scores, means, merged, training_frames
from dailies.state import votes
from dailies.state.layout import SOURCE, model_of
from dailies.state.records import SUCCESS, FrameMetric, Leaderboard, Measures, Metadata, MetricRecord

if TYPE_CHECKING:
    from dailies.measure.ranking import Ranking
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

SOURCE_LABEL = "(source)"
"""The name of the source in the tables; no folder name of a model has parentheses."""

Cell = str | int | float | None


@dataclass(frozen=True)
class LeaderboardSettings:
    """Which metrics are tabulated, and which one ranks."""

    metrics: tuple[str, ...]
    ranked_by: str | None
    """None if no metric ranks the models."""
    input_dir: Path
    training_frames_from: tuple[str, ...]
    """Names of the params, tags or datasets that may list a model's training frames."""

    @classmethod
    def from_settings(cls, settings: "Settings") -> "LeaderboardSettings":
        """Return what the settings say about the leaderboard."""
        return cls(
            metrics=requested(settings),
            ranked_by=ranking_metric(settings),
            input_dir=settings.input_dir,
            training_frames_from=settings.training_frames_from,
        )


def tabulate(
    settings: LeaderboardSettings,
    *,
    sequence: Path,
    metadata: Sequence[Path],
    measures: Sequence[Path],
    tables: tuple[Path, Path],
    output: Path,
    reference: Reference | None = None,
    ballots: Path | None = None,
) -> None:
    """Merge the measured values of all models, in the order of ``metadata``, into two tables and ``output``.

    ``measures`` are the records of all shards: those of a model in a folder of its name, those of the source in
    ``@source``. ``tables`` are the paths of ``metrics.csv``, with a line per model and frame, and of
    ``leaderboard.csv``, with a line per model. ``output`` is a ``Leaderboard`` record for the page and for the end of
    an invocation; it also says how the frames of the ``reference`` were paired. ``ballots`` is the record of imported
    votes, if there is one.
    """
    from dailies.measure.ranking import rank  # needs scipy, which a head node should not have to import

    frames = load_sequence(sequence)
    shards: dict[str, list[Path]] = {}
    for path in measures:
        shards.setdefault(model_of(path), []).append(path)
    records = {model: [Measures.load(path) for path in paths] for model, paths in shards.items()}
    models = [_scores(path, frames, records, settings) for path in metadata]
    source = Scores(SOURCE, None, merged(records[SOURCE]), frozenset())
    ranking = rank(models, frames, settings.ranked_by)
    frame_table, model_table = tables
    _write_csv(frame_table, _frame_rows([source, *models], frames, settings.metrics))
    standings = votes.load_standings(ballots, frames.digest) if ballots else {}
    _write_csv(model_table, _model_rows(models, source, ranking, frames, settings, standings))
    board = Leaderboard(
        verdict=ranking.verdict,
        reference=reference.messages if reference else (),
        missing=reference.missing if reference else None,
        problems=tuple(_problems(records)),
        metrics=tuple(_metric_record(name) for name in settings.metrics),
        values={
            name: {
                scores.model: tuple(scores.value(name, frame.output) for frame in frames.frames)
                for scores in models
                if scores.frames
            }
            for name in settings.metrics
        },
    )
    board.save(output)
    for line in report(output):
        log.info("%s", line)


def report(path: Path) -> list[str]:
    """Return the sentences of a ``Leaderboard`` record: the verdict, how the reference was paired, and problems."""
    board = Leaderboard.load(path)
    return [line for line in (board.verdict, *_pairing(board), *board.problems) if line]


def page_metrics(path: Path) -> list[FrameMetric]:
    """Return the metrics of a ``Leaderboard`` record as the comparison page shows them.

    The note on a metric that needs the reference says how the reference was paired.
    """
    board = Leaderboard.load(path)
    return [
        FrameMetric(
            metric.label,
            board.values[metric.name],
            higher_is_better=metric.higher_is_better,
            unit=metric.unit,
            note="; ".join(_pairing(board)) if metric.group == REFERENCE else metric.note,
        )
        for metric in board.metrics
    ]


def _metric_record(name: str) -> MetricRecord:
    metric = BY_NAME[name]
    return MetricRecord(
        name=metric.name,
        label=metric.label,
        group=metric.needs,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        note=metric.note,
    )


def _pairing(board: Leaderboard) -> list[str]:
    """Return how the reference was paired, and which frames lack one."""
    return [*board.reference, *([board.missing] if board.missing else [])]


def _scores(
    path: Path, sequence: FrameSequence, records: Mapping[str, Sequence[Measures]], settings: LeaderboardSettings
) -> Scores:
    model, metadata = model_of(path), Metadata.load(path)
    values = merged(records[model]) if metadata.render.status == SUCCESS else {}
    seen = training_frames(metadata, sequence, settings.training_frames_from, settings.input_dir)
    return Scores(model, metadata, values, seen)


def _problems(records: Mapping[str, Sequence[Measures]]) -> list[str]:
    """Return the first reason why a model, or the source, could not be measured in full, for each that has one."""
    problems = []
    for model, shards in records.items():
        reasons = [shard.error for shard in shards if shard.error]
        # that a render failed is reported elsewhere
        reasons += [note for shard in shards for note in shard.notes or () if not note.startswith(NOT_RENDERED)]
        if reasons:
            problems.append(f"{'the source' if model == SOURCE else model}: {clean(reasons[0])}")
    return problems


def _frame_rows(
    all_scores: Sequence[Scores], sequence: FrameSequence, metrics: Sequence[str]
) -> Iterable[Sequence[Cell]]:
    """Yield the header of ``metrics.csv``, and a row for each frame that a model, or the source, has values of."""
    yield ["model", "frame", "training", *metrics]
    for scores in all_scores:
        for frame in sequence.frames:
            if values := scores.frames.get(frame.output):
                is_training_frame = "yes" if frame.output in scores.training_frames else "no"
                yield [_label(scores), frame.name, is_training_frame, *(values.get(metric) for metric in metrics)]


def _model_rows(
    models: Sequence[Scores],
    source: Scores,
    ranking: "Ranking",
    sequence: FrameSequence,
    settings: LeaderboardSettings,
    standings: Mapping[str, votes.Standing],
) -> Iterable[Sequence[Cell]]:
    """Yield the header of ``leaderboard.csv``, a row per model, those without a rank last, and the source's.

    If there are votes, each row has the model's own.
    """
    yield [
        *("rank", "model", "run_id", "run_name", "status", "verdict", "ranked_by", "frames"),
        *("difference", "low", "high", "block"),
        *settings.metrics,
        "training_frames",
        *(f"{name}_training" for name in settings.metrics),
        *(votes.COLUMNS if standings else ()),
        "error",
    ]
    place = {model: number for number, model in enumerate(ranking.order)}
    for scores in [*sorted(models, key=lambda scores: place.get(scores.model, len(place))), source]:
        model, metadata, seen = scores.model, scores.metadata, scores.training_frames
        is_ranked = model in place
        comparison = ranking.comparisons.get(model)
        # the means of a model without a rank, and of the source, are over the same frames
        frames = ranking.frames or [frame.output for frame in sequence.frames if frame.output not in seen]
        trained = [frame.output for frame in sequence.frames if frame.output in seen]
        yield [
            place[model] + 1 if is_ranked else None,
            _label(scores),
            metadata.run_id if metadata else None,
            metadata.run_name if metadata else None,
            metadata.render.status if metadata else None,
            comparison.verdict if comparison else "first" if is_ranked else None,
            ranking.metric if is_ranked else None,
            len(ranking.frames) if is_ranked else None,
            *((comparison.difference, comparison.low, comparison.high, comparison.block) if comparison else [None] * 4),
            *means(scores.frames, settings.metrics, frames).values(),
            len(trained),
            *means(scores.frames, settings.metrics, trained).values(),
            *votes.cells(standings, model),
            metadata.render.error if metadata else None,
        ]


def _label(scores: Scores) -> str:
    return SOURCE_LABEL if scores.model == SOURCE else scores.model


def _write_csv(path: Path, rows: Iterable[Sequence[Cell]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_formatted(cell) for cell in row] for row in rows)
    files.write_bytes(path, text.getvalue().encode())


def _formatted(cell: Cell) -> Cell:
    """Return a number with seven digits, or a text on one line that no spreadsheet evaluates as a formula."""
    if isinstance(cell, float):
        return f"{cell:z.7g}"
    if isinstance(cell, str):
        line = clean(cell)
        return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
    return cell
