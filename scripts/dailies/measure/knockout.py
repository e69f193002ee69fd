"""The knockout: which models render all frames after a first round on a few of them, and why."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dailies.core import files
from dailies.core.text import clean, counted, few
from dailies.frames.sequence import KNOCKOUT, split
from dailies.frames.sequence import load as load_sequence
from dailies.measure.job import NOT_RENDERED
from dailies.measure.metrics import BY_NAME, MIN_FRAMES, ranking_metric
from dailies.measure.scores import Scores, merged, training_frames
from dailies.state.labels import labels, shortest
from dailies.state.layout import Layout, model_of
from dailies.state.records import KNOCKED_OUT, Attempt, Contestant, Difference, Knockout, Measures, RunRecord

if TYPE_CHECKING:
    from dailies.measure.ranking import Ranking
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)


def decide(
    settings: "Settings",
    question: Any,
    *,
    sequence: Path,
    runs: Sequence[Path],
    measures: Sequence[Path],
    output: Path,
) -> None:
    """Rank the models by the frames of the first round, and write the ``Knockout`` record with the finalists.

    Finalists are the best ``finalists`` models, and all that tie with the first. A model whose render failed is never
    a finalist. If no model can be ranked, all that were rendered are finalists. ``runs`` are the records of the models'
    runs, and ``measures`` those of the shard ``knockout``, one per model. ``question`` is everything else that the
    decision depends on.
    """
    from dailies.measure.ranking import rank  # needs scipy, which a head node should not have to import

    metric = ranking_metric(settings)
    assert metric is not None, "validation refuses a knockout without one"
    whole = load_sequence(sequence)
    first_round = split(whole, 0, settings.knockout_frames)[KNOCKOUT]
    by_model = {path.stem: RunRecord.load(path) for path in runs}
    records = {model_of(path): Measures.load(path) for path in measures}
    failed = {model: reason for model, record in records.items() if (reason := _failure(record))}
    scores = [
        Scores(
            model,
            run,
            None,
            merged([records[model]]),
            training_frames(run, whole, settings.training_frames_from, settings.input_dir),
        )
        for model, run in by_model.items()
        if model not in failed
    ]
    ranking = rank(scores, first_round, metric)
    ranked = contestants(ranking, scores, settings.finalists, shortest(labels(by_model)))
    unranked = [
        Contestant(
            model=model,
            is_finalist=model not in failed and not ranked,
            reason=failed.get(model) or _unmeasured(records[model], metric, any_ranked=bool(ranked)),
            failed=model in failed,
        )
        for model in by_model
        if model not in ranking.order
    ]
    layout = Layout(settings.output_dir)
    record = Knockout(
        basis=basis(question, {model: rounds(layout, model) for model in by_model}),
        metric=metric,
        frames=ranking.frames,
        finalists=settings.finalists,
        models=(*ranked, *unranked),
    )
    record.save(output)
    for each in record.models:
        decision = "finalist" if each.is_finalist else "failed" if each.failed else KNOCKED_OUT
        log.info("%s: %s: %s", each.model, decision, each.reason)


def basis(question: Any, first_rounds: Mapping[str, Sequence[Any]]) -> str:
    """Return the digest of everything that a decision depends on.

    ``first_rounds`` holds, for each model, the attempt at rendering the first round, its basis, and the attempt at
    measuring it.
    """
    return files.digest([question, {model: list(facts) for model, facts in first_rounds.items()}])


def rounds(layout: Layout, model: str) -> list[Any]:
    """Return the last attempts at the first round of a model, as ``basis`` takes them."""
    rendered = Attempt.load_if_there(layout.attempt(model, KNOCKOUT))
    measured = Attempt.load_if_there(layout.measuring_attempt(model, KNOCKOUT))
    return [rendered and rendered.attempt, rendered and rendered.basis, measured and measured.attempt]


def summary(record: Knockout, named: Callable[[str], str]) -> list[str]:
    """Return the result of a knockout in sentences for the terminal; ``named`` returns the label of a model."""
    finalists = [named(each.model) for each in record.models if each.is_finalist]
    out = sum(not each.is_finalist and not each.failed for each in record.models)
    failed = sum(each.failed for each in record.models)
    basis = f"by {BY_NAME[record.metric].label} on {counted(len(record.frames), 'frame')}"
    others = [f"{counted(out, 'model')} knocked out"] + ([f"{failed} failed"] if failed else [])
    line = f"knockout {basis}: {counted(len(finalists), 'finalist')}, {', '.join(others)}; {few(finalists)}"
    if not record.frames:
        return [f"knockout: no model could be measured by {BY_NAME[record.metric].label}, so none is knocked out"]
    notes = []
    if len(record.frames) < MIN_FRAMES:
        notes.append(
            f"only {counted(len(record.frames), 'frame')} of the knockout can be compared: models were trained on the "
            f"others, or these have no reference. With fewer than {MIN_FRAMES} all models tie; raise knockout_frames"
        )
    ties = sum(each.is_finalist for each in record.models) - record.finalists
    if ties > 0:
        notes.append(f"{counted(ties, 'finalist')} more than requested: they tie with the first")
    return [line, *notes]


def _failure(record: Measures) -> str | None:
    """Return why a model was not rendered; None if it was."""
    return next((note for note in record.notes or () if note.startswith(NOT_RENDERED)), None)


def _unmeasured(record: Measures, metric: str, *, any_ranked: bool) -> str:
    why = clean(record.error or next(iter(record.notes or ()), "no frame has a value"))
    label = BY_NAME[metric].label
    return f"it has no {label} ({why})" if any_ranked else f"no model has a {label} to be ranked by ({why})"


def contestants(
    ranking: "Ranking", scores: Iterable[Scores], finalists: int, names: Mapping[str, str]
) -> list[Contestant]:
    """Return the models of a ranking, the best one first, with the decision on each.

    Finalists are the best ``finalists`` models, and all that tie with the first: with the confidence of the ranking,
    the best model is among these. ``scores`` are those of the ranked models, and ``names`` their labels in sentences.
    """
    values = {each.model: [each.value(ranking.metric or "", frame) for frame in ranking.frames] for each in scores}
    found = []
    for place, model in enumerate(ranking.order, start=1):
        comparison = ranking.comparisons.get(model)
        is_tied = comparison is not None and comparison.verdict == "tie"
        to_first = comparison.record if comparison else None
        numbers = [value for value in values[model] if value is not None]
        found.append(
            Contestant(
                model=model,
                is_finalist=place <= finalists or is_tied,
                reason=_reason(ranking, place, to_first, finalists, names[ranking.order[0]], is_tied=is_tied),
                rank=place,
                mean=sum(numbers) / len(numbers),
                to_first=to_first,
            )
        )
    return found


def _reason(
    ranking: "Ranking", place: int, to_first: Difference | None, finalists: int, first: str, *, is_tied: bool
) -> str:
    """Return the reason of a decision, such as "rank 7 of 20 by PSNR on 12 frames, 1.2 dB behind a (0.7 to 1.7)"."""
    metric = BY_NAME[ranking.metric or ""]
    text = f"rank {place} of {len(ranking.order)} by {metric.label} on {counted(len(ranking.frames), 'frame')}"
    if to_first is None:
        return text
    if to_first.low is None or to_first.high is None:
        return f"{text}: a tie with {first}, because there are too few frames for a comparison"
    interval = f"{-to_first.difference:z.3g}{metric.suffix} behind {first}, 95 % interval {-to_first.high:z.3g} to "
    interval += f"{-to_first.low:z.3g}"
    if place > finalists and is_tied:
        return f"{text}: it ties with the first ({interval})"
    return f"{text}: {interval}"
