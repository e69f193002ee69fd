"""The leaderboard: the tables of all measured values and means, the best model, and what the page shows of them."""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.text import clean, counted
from dailies.frames.reference import Reference
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.measure.job import NOT_RENDERED
from dailies.measure.metrics import (
    BY_NAME,
    NOT_NEIGHBOURS,
    REFERENCE,
    flicker_note,
    ranking_metric,
    requested,
)
from dailies.measure.scores import Scores, means, measured_part, merged, training_frames
from dailies.state import votes
from dailies.state.labels import Label, labels, shortest
from dailies.state.layout import SOURCE, model_of
from dailies.state.records import (
    KNOCKED_OUT,
    SUCCESS,
    FrameMetric,
    Knockout,
    Leaderboard,
    Measures,
    MetricRecord,
    Outcome,
    RankingRecord,
    RunRecord,
    Values,
)
from dailies.state.records import merged as merged_outcomes

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
    runs: Sequence[Path],
    outcomes: Sequence[Path],
    measures: Sequence[Path],
    tables: tuple[Path, Path],
    output: Path,
    reference: Reference | None = None,
    knockout: Knockout | None = None,
    cast_votes: votes.CastVotes | None = None,
) -> None:
    """Merge the measured values of all models into two tables and ``output``.

    ``runs`` are the records of the models' runs, each named after the model, in MLflow's order. ``outcomes`` and
    ``measures`` are the records of all shards: those of a model in a folder of its name, and the measures of the source
    in ``@source``. None of them is ``metadata.json``, which gets its rank from here. ``tables`` are the paths of
    ``metrics.csv``, with a line per model and frame, and of ``leaderboard.csv``, with a line per model. ``output`` is a
    ``Leaderboard`` record for the summary, the page and the end of an invocation; it also says how the frames of the
    ``reference`` were paired. Of a ``knockout``, the finalists are ranked by all frames; the models that were knocked
    out follow them in the order of the first round. ``cast_votes`` are the imported votes, if there are any; ``output``
    says which of them do not count.
    """
    from dailies.measure import verdict  # needs scipy, which a head node should not have to import
    from dailies.measure.ranking import rank

    frames = load_sequence(sequence)
    records = {model: [Measures.load(path) for path in paths] for model, paths in _by_model(measures).items()}
    ends = {model: merged_outcomes(list(map(Outcome.load, paths))) for model, paths in _by_model(outcomes).items()}
    by_model = {path.stem: RunRecord.load(path) for path in runs}
    models = [_scores(model, run, ends[model], records[model], frames, settings) for model, run in by_model.items()]
    source = Scores(SOURCE, None, None, merged(records[SOURCE]), frozenset())
    out = {each.model for each in knockout.models if not each.is_finalist} if knockout else set()
    finalists = [scores for scores in models if scores.model not in out]
    ranking, named = rank(finalists, frames, settings.ranked_by), labels(by_model)
    names = shortest(named)
    parts = [part for shards in records.values() if (part := measured_part(shards))]
    measured_frames = max(parts)[0] if parts else None  # a failed shard reports fewer
    record = verdict.record(
        ranking,
        finalists,
        source,
        sequence=frames,
        metrics=settings.metrics,
        names=names,
        knockout=knockout,
        measured_frames=measured_frames,
    )
    every = [*models, source]

    def deciding(scores: Scores) -> Sequence[str]:
        frames_of_ranking = knockout.frames if knockout and scores.model in out else ranking.frames
        return frames_of_ranking or _unseen(scores, frames)

    means_of = {each.model: means(each.frames, settings.metrics, deciding(each)) for each in every}
    frame_table, model_table = tables
    _write_csv(frame_table, _frame_rows([source, *models], frames, settings.metrics))
    artifacts = {model: outcome.artifact.sha256 for model, outcome in ends.items()}
    tally = cast_votes.count(frames, artifacts) if cast_votes else votes.Tally((), {})
    _write_csv(model_table, _model_rows(every, ranking, record, named, means_of, frames, settings, tally.counts))
    board = Leaderboard(
        verdict=verdict.sentence(record, names) if record else None,
        remarks=tuple(verdict.remarks(record, names)) if record else (),
        measured=_measured_part(measured_frames, frames) if measured_frames is not None else None,
        uncounted=tally.note(),
        uncounted_of=tally.notes,
        ranking=record,
        reference=reference.messages if reference else (),
        missing=reference.missing if reference else None,
        problems=(*_problems(records), *filter(None, [flicker_note(frames, settings.metrics)])),
        metrics=tuple(_metric_record(name, frames) for name in settings.metrics),
        means=means_of,
        values={
            name: {
                scores.model: tuple(scores.value(name, frame.output) for frame in frames.frames)
                for scores in every
                if scores.frames
            }
            for name in settings.metrics
        },
    )
    board.save(output)
    for line in report(output):
        log.info("%s", line)


def _by_model(paths: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(model_of(path), []).append(path)
    return found


def report(path: Path) -> list[str]:
    """Return the sentences of a ``Leaderboard`` record: the verdict, what it is based on, and problems."""
    board = Leaderboard.load(path)
    lines = (board.verdict, *board.remarks, board.measured, board.uncounted, *_pairing(board), *board.problems)
    return [line for line in lines if line]


def page_metrics(path: Path) -> list[FrameMetric]:
    """Return the metrics of a ``Leaderboard`` record as the comparison page shows them.

    The note on a metric that needs the reference says how the reference was paired. If only some frames were measured,
    all notes say so.
    """
    board = Leaderboard.load(path)
    part = f"{board.measured} The worst frames are the worst of these." if board.measured else ""
    return [
        FrameMetric(
            metric.label,
            board.values[metric.name],
            higher_is_better=metric.higher_is_better,
            unit=metric.unit,
            note=f"{part} {'; '.join(_pairing(board)) if metric.group == REFERENCE else metric.note}".strip(),
            key=metric.name,
            help=metric.note,
            ideal=metric.ideal,
        )
        for metric in board.metrics
    ]


def _metric_record(name: str, sequence: FrameSequence) -> MetricRecord:
    metric, lacking = BY_NAME[name], flicker_note(sequence, [name])
    return MetricRecord(
        name=metric.name,
        label=metric.label,
        group=metric.needs,
        higher_is_better=metric.higher_is_better,
        unit=metric.unit,
        note=". ".join(filter(None, [metric.note.rstrip("."), lacking])) + "." if lacking else metric.note,
        ideal=metric.ideal,
    )


def _measured_part(count: int, sequence: FrameSequence) -> str:
    total = counted(len(sequence.frames), "frame")
    return f"{count} of {total} are measured, evenly spread; to measure all of them, set measure_frames to all."


def _pairing(board: Leaderboard) -> list[str]:
    """Return how the reference was paired, and which frames lack one."""
    return [*board.reference, *([board.missing] if board.missing else [])]


def _scores(
    model: str,
    run: RunRecord,
    outcome: Outcome,
    records: Sequence[Measures],
    sequence: FrameSequence,
    settings: LeaderboardSettings,
) -> Scores:
    values = merged(records) if outcome.status == SUCCESS else {}
    seen = training_frames(run, sequence, settings.training_frames_from, settings.input_dir)
    return Scores(model, run, outcome, values, seen)


def _unseen(scores: Scores, sequence: FrameSequence) -> list[str]:
    return [frame.output for frame in sequence.frames if frame.output not in scores.training_frames]


def _problems(records: Mapping[str, Sequence[Measures]]) -> list[str]:
    """Return the first reason why a model, or the source, could not be measured in full, for each that has one."""
    problems = []
    for model, shards in records.items():
        reasons = [shard.error for shard in shards if shard.error]
        # that a render failed, or that frames are no neighbours, is reported elsewhere
        known = (NOT_RENDERED, NOT_NEIGHBOURS)
        reasons += [note for shard in shards for note in shard.notes or () if not note.startswith(known)]
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
    every: Sequence[Scores],
    ranking: "Ranking",
    record: RankingRecord | None,
    named: Mapping[str, Label],
    means_of: Mapping[str, Values],
    sequence: FrameSequence,
    settings: LeaderboardSettings,
    vote_counts: Mapping[str, votes.VoteCounts],
) -> Iterable[Sequence[Cell]]:
    """Yield the header of ``leaderboard.csv``, a row per model, those without a rank last, and the source's.

    If there are votes, each row has the model's own.
    """
    from dailies.measure.ranking import Comparison

    yield [
        *("rank", "model", "label", "params", "run_id", "run_name", "status", "verdict", "below_source"),
        *("ranked_by", "frames", "difference", "low", "high", "block"),
        *settings.metrics,
        "training_frames",
        *(f"{name}_training" for name in settings.metrics),
        *(votes.COLUMNS if vote_counts else ()),
        "error",
    ]
    ranked = {each.model: each for each in record.everyone} if record else {}
    models = [scores for scores in every if scores.model != SOURCE]
    models.sort(key=lambda scores: ranked[scores.model].rank if scores.model in ranked else len(ranked) + 1)
    for scores in [*models, *(scores for scores in every if scores.model == SOURCE)]:
        place, run, outcome = ranked.get(scores.model), scores.run, scores.outcome
        label = named.get(scores.model)
        comparison = ranking.comparisons.get(scores.model) or (place.to_first if place else None)
        trained = [frame.output for frame in sequence.frames if frame.output in scores.training_frames]
        yield [
            place.rank if place else None,
            _label(scores),
            label.name if label else None,
            label.params if label else None,
            run.run_id if run else None,
            run.run_name if run else None,
            outcome.status if outcome else None,
            place.verdict if place else None,
            ("yes" if place.below_source else "no") if place else None,
            ranking.metric if place else None,
            (record.knockout_frames if place.verdict == KNOCKED_OUT else record.frames) if record and place else None,
            *((comparison.difference, comparison.low, comparison.high) if comparison else [None] * 3),
            comparison.block if isinstance(comparison, Comparison) else None,
            *means_of[scores.model].values(),
            len(trained),
            *means(scores.frames, settings.metrics, trained).values(),
            *votes.cells(vote_counts, scores.model),
            outcome.error if outcome else None,
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
