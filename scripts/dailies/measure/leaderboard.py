"""The leaderboard: what was measured of all models, frame by frame and in the mean, and which of them is the best."""

import csv
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core import files
from dailies.core.text import clean, counted
from dailies.frames.reference import Reference
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.frames.sequence import load as load_sequence
from dailies.measure import metrics as metrics_module
from dailies.measure.metrics import BY_NAME
from dailies.measure.per_frame import NOT_RENDERED
from dailies.state.layout import SOURCE, model_of
from dailies.state.records import (
    SUCCESS,
    FrameMetric,
    Leaderboard,
    Measures,
    Metadata,
    MetricRecord,
)

if TYPE_CHECKING:
    from dailies.measure.ranking import Comparison
    from dailies.planning.config import Settings


from dailies.measure.scores import Frames, column, means, merged, seen_by

log = logging.getLogger(__name__)

SHOWN_SOURCE = "(source)"
"""How the tables call the source; no model's folder has parentheses."""

LEAST_UNSEEN = 2
"""Frames that no model was trained on, below which all frames decide."""


@dataclass(frozen=True)
class Question:
    """What is asked of the measures, as the configuration says."""

    metrics: tuple[str, ...]
    ranked_by: str | None
    input_dir: Path
    training_frames_from: tuple[str, ...]

    @classmethod
    def from_settings(cls, settings: "Settings") -> "Question":
        """Take what concerns the leaderboard from the settings."""
        return cls(
            metrics=metrics_module.measured(settings),
            ranked_by=metrics_module.ranked_by(settings),
            input_dir=settings.input_dir,
            training_frames_from=settings.training_frames_from,
        )


@dataclass(frozen=True)
class Entry:
    """One model, or the source."""

    model: str
    """Its folder; ``@source`` for the source."""
    about: Metadata | None
    """None for the source."""
    frames: Frames
    seen: frozenset[str]
    """The frames that it was trained on."""


def tabulate(
    question: Question,
    *,
    sequence: Path,
    metadata: Sequence[Path],
    measures: Sequence[Path],
    tables: tuple[Path, Path],
    output: Path,
    reference: Reference | None = None,
) -> None:
    """Merge the measures of all models, in the order of ``metadata``, into two tables and ``output``.

    ``measures`` are the records of the shards of each, in a folder of its name, and the source's in ``@source``.
    ``tables`` are the paths of ``metrics.csv``, a line per model and frame, and of ``leaderboard.csv``, a line per
    model. ``output`` holds what the page and the end of an invocation tell, and with it how the frames of the
    ``reference`` were paired.
    """
    shot = load_sequence(sequence)
    measured: dict[str, list[Path]] = {}
    for path in measures:
        measured.setdefault(model_of(path), []).append(path)
    entries = [_entry(path, shot, measured, question) for path in metadata]
    source = Entry(SOURCE, None, merged(map(Measures.load, measured[SOURCE])), frozenset())
    ranking = rank(entries, shot, question.ranked_by)
    per_frame, per_model = tables
    _write_csv(per_frame, _frame_lines([source, *entries], shot, question.metrics))
    _write_csv(per_model, _model_lines(entries, source, ranking, shot, question))
    board = Leaderboard(
        verdict=ranking.told,
        reference=reference.messages if reference else (),
        missing=reference.missing if reference else None,
        problems=tuple(_problems(measured)),
        metrics=tuple(MetricRecord(**asdict(BY_NAME[name])) for name in question.metrics),
        values={
            name: {
                entry.model: tuple(entry.frames.get(frame.output, {}).get(name) for frame in shot.frames)
                for entry in entries
                if entry.frames
            }
            for name in question.metrics
        },
    )
    board.save(output)
    for line in told(output):
        log.info("%s", line)


def _entry(path: Path, shot: FrameSequence, measured: Mapping[str, Sequence[Path]], question: Question) -> Entry:
    model, about = model_of(path), Metadata.load(path)
    # of a model whose render failed in part, nothing counts
    values = merged(map(Measures.load, measured[model])) if about.render.status == SUCCESS else {}
    return Entry(model, about, values, seen_by(about, shot, question.training_frames_from, question.input_dir))


@dataclass(frozen=True)
class Ranking:
    """The models that could be ranked, the best first, each against the first."""

    metric: str | None
    order: tuple[str, ...]
    comparisons: Mapping[str, "Comparison"]
    """Of each model with the first: how much worse it is is less than 0."""
    frames: tuple[str, ...]
    """The frames that decided."""
    seen: bool
    """Whether frames are among them that a model was trained on, because there are too few others."""
    told: str | None
    """The outcome in words; None where there is nothing to rank."""


def rank(entries: Sequence[Entry], shot: FrameSequence, metric: str | None) -> Ranking:
    """Rank models by a metric, on the frames that all of them have it of and that none was trained on.

    Where there are fewer than two of those, all frames decide, and it is said. The first of many may owe its place to
    luck. The model that really is the best is called worse only if one of the others is ahead of it beyond an interval;
    these hold for all the others at once, so the best is the first or one of its ties with the confidence of a single
    interval: comparisons with the best (Hsu, 1984).
    """
    from dailies.measure import ranking as ranking_module

    nothing = Ranking(metric, (), {}, (), seen=False, told=None)
    if metric is None:
        return nothing
    measured = [entry for entry in entries if column(entry.frames, metric, entry.frames)]
    common = [
        frame.output
        for frame in shot.frames
        if all(entry.frames.get(frame.output, {}).get(metric) is not None for entry in measured)
    ]
    unseen = [name for name in common if not any(name in entry.seen for entry in measured)]
    frames = unseen if len(unseen) >= LEAST_UNSEEN else common
    if not measured or not frames:
        return nothing
    higher = BY_NAME[metric].higher_is_better
    columns = {entry.model: column(entry.frames, metric, frames) for entry in measured}
    order = sorted(columns, key=lambda model: sum(columns[model]) * (-1 if higher else 1))
    first = columns[order[0]]
    comparisons = {
        model: ranking_module.compare(columns[model], first, higher_is_better=higher, comparisons=len(order) - 1)
        for model in order[1:]
    }
    seen = len(frames) > len(unseen)
    told = _verdict(metric, order, comparisons, frames, seen=seen)
    return Ranking(metric, tuple(order), comparisons, tuple(frames), seen, told)


def _verdict(
    metric: str, order: Sequence[str], comparisons: Mapping[str, "Comparison"], frames: Sequence[str], *, seen: bool
) -> str:
    about = BY_NAME[metric]
    trained = " (models were trained on some)" if seen else ""
    where = f"by {about.label} on {counted(len(frames), 'frame')}{trained}"
    first = f"{order[0]} is the first {where}"
    if len(order) == 1:
        return f"{first}: it is the only one."
    ties = [model for model, each in comparisons.items() if each.verdict == "tie"]
    nearest = comparisons[order[1]]
    unit = f" {about.unit}" if about.unit else ""
    if nearest.low is None:
        return f"{first}: a tie, too few to tell."
    together = f" for {len(comparisons)} comparisons at once" if len(comparisons) > 1 else ""
    interval = f"95 % interval {-nearest.high:z.3g} to {-nearest.low:z.3g}{together}"
    span = f"{-nearest.difference:z.3g}{unit} ahead of {order[1]}, {interval}"
    if not ties:
        return f"{first}: {span}."
    return f"{first}: a tie with {', '.join(ties)} ({span})."


def _problems(measured: Mapping[str, Sequence[Path]]) -> list[str]:
    """Say what could not be measured, once for each model."""
    found = []
    for model, paths in measured.items():
        records = [Measures.load(path) for path in paths]
        said = [each.error for each in records if each.error]
        said += [
            note for each in records for note in each.notes or () if not note.startswith(NOT_RENDERED)
        ]  # a render that failed is told by itself
        if said:
            found.append(f"{'the source' if model == SOURCE else model}: {clean(said[0])}")
    return found


def _frame_lines(entries: Sequence[Entry], shot: FrameSequence, metrics: Sequence[str]) -> list[list[Any]]:
    lines: list[list[Any]] = [["model", "frame", "training", *metrics]]
    for entry in entries:
        name = _shown(entry)
        for frame in shot.frames:
            if values := entry.frames.get(frame.output):
                training_frame = "yes" if frame.output in entry.seen else "no"
                lines.append([name, frame.name, training_frame, *(values.get(metric) for metric in metrics)])
    return lines


def _shown(entry: Entry) -> str:
    return SHOWN_SOURCE if entry.model == SOURCE else entry.model


def _model_lines(
    entries: Sequence[Entry], source: Entry, ranking: Ranking, shot: FrameSequence, question: Question
) -> list[list[Any]]:
    """Give a line for each model: the ranked ones in their order, the others after them, and the source."""
    place = {model: number for number, model in enumerate(ranking.order)}
    training_columns = [f"{name}_training" for name in question.metrics]
    lines: list[list[Any]] = [
        [
            *("rank", "model", "run_id", "run_name", "status", "verdict", "ranked_by", "frames"),
            *("difference", "low", "high", "block"),
            *question.metrics,
            "training_frames",
            *training_columns,
            "error",
        ]
    ]
    for entry in [*sorted(entries, key=lambda entry: place.get(entry.model, len(place))), source]:
        # of those that cannot be ranked, and of the source, the same frames are shown
        decided = ranking.frames or [frame.output for frame in shot.frames if frame.output not in entry.seen]
        trained = [frame.output for frame in shot.frames if frame.output in entry.seen]
        against = ranking.comparisons.get(entry.model)
        own = means(entry.frames, question.metrics, decided)
        seen = means(entry.frames, question.metrics, trained)
        about = entry.about
        render = about and about.render
        ranked = entry.model in place
        lines.append(
            [
                place[entry.model] + 1 if ranked else None,
                _shown(entry),
                about and about.run_id,
                about and about.run_name,
                render and render.status,
                against.verdict if against else "first" if ranked else None,
                ranking.metric if ranked else None,
                len(ranking.frames) if ranked else None,
                *((against.difference, against.low, against.high, against.block) if against else [None] * 4),
                *own.values(),
                len(trained),
                *seen.values(),
                render and render.error,
            ]
        )
    return lines


def _write_csv(path: Path, lines: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in line] for line in lines)
    files.write_bytes(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    """Write a value of a table: seven digits of a number; a text on one line that no spreadsheet runs as a formula."""
    if isinstance(value, float):
        return f"{value:z.7g}"
    if isinstance(value, str):
        line = clean(value)
        return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line
    return value


def told(path: Path) -> list[str]:
    """Give what the end of an invocation says of the measures: the best model, the reference, what failed."""
    found = Leaderboard.load(path)
    return [line for line in (found.verdict, *_of_reference(found), *found.problems) if line]


def _of_reference(found: Leaderboard) -> list[str]:
    """Say how the reference was paired, and what is missing; earlier versions wrote only that."""
    return [*found.reference, *([found.missing] if found.missing else [])]


def page_metrics(path: Path) -> list[FrameMetric]:
    """Give the measures as the page takes them."""
    found = Leaderboard.load(path)
    return [
        FrameMetric(
            each.label,
            found.values[each.name],
            higher_is_better=each.higher_is_better,
            unit=each.unit,
            note="; ".join(_of_reference(found)) if each.group == "reference" else each.note,
        )
        for each in found.metrics
    ]
