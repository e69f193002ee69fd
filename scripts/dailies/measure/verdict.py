"""Decide which models are the best, tie or are worse, and what would settle a tie; as a record, and in words."""

import math
from collections.abc import Mapping, Sequence

from dailies.core.text import counted, few
from dailies.frames.sequence import Sequence as FrameSequence
from dailies.measure.metrics import BY_NAME, MIN_FRAMES
from dailies.measure.ranking import Comparison, Ranking, compare_models, rank
from dailies.measure.scores import Scores, column
from dailies.state.records import (
    BEST,
    KNOCKED_OUT,
    TIE,
    WORSE,
    Knockout,
    RankedModel,
    RankingRecord,
)

MANY_TIMES = 20
"""The factor above which nobody would render that many more frames to settle a tie."""

VOTE = "Vote blind on the page: people may see a difference that the metric does not."


def record(
    ranking: Ranking,
    models: Sequence[Scores],
    source: Scores,
    *,
    sequence: FrameSequence,
    metrics: Sequence[str],
    names: Mapping[str, str],
    knockout: Knockout | None = None,
    measured_frames: int | None = None,
) -> RankingRecord | None:
    """Return the verdict on each model of a ranking, its comparison with the source, and what would settle a tie.

    ``metrics`` are those that were measured, and ``names`` are those of the models in sentences. Those that a
    ``knockout`` left out follow in its order. ``measured_frames`` is how many frames were measured, if not all were.
    The result is None if no model has a rank.
    """
    if ranking.metric is None or not ranking.order:
        return None
    scores = {each.model: each for each in models}
    unchanged = column(source.frames, ranking.metric, ranking.frames)
    has_source = len(unchanged) == len(ranking.frames)
    ties = [model for model, comparison in ranking.comparisons.items() if comparison.verdict == "tie"]
    tied = [scores[model] for model in (ranking.order[0], *ties)] if ties else []
    needed = _frames_needed(ranking) if tied else None

    def ranked(place: int, model: str) -> RankedModel:
        values = column(scores[model].frames, ranking.metric or "", ranking.frames)
        to_source = _to_source(values, unchanged, ranking) if has_source else None
        return RankedModel(
            model=model,
            rank=place,
            verdict=TIE if scores[model] in tied else BEST if place == 1 else WORSE,
            mean=_mean(values),
            to_first=ranking.comparisons[model].record if place > 1 else None,
            to_source=to_source.record if to_source else None,
            below_source=to_source is not None and _is_worse(to_source),
        )

    return RankingRecord(
        metric=ranking.metric,
        frames=len(ranking.frames),
        of=len(sequence.frames),
        measured=measured_frames,
        on_training_frames=any(scores[model].training_frames.intersection(ranking.frames) for model in ranking.order),
        source=_mean(unchanged) if has_source else None,
        models=tuple(ranked(place, model) for place, model in enumerate(ranking.order, start=1)),
        knocked_out=_knocked_out(knockout, after=len(ranking.order)) if knockout else (),
        knockout_frames=len(knockout.frames) if knockout else 0,
        frames_needed=needed,
        settle=(
            (
                *_all_frames(needed, measured_frames, sequence),
                _more_frames(needed, ranking, sequence),
                *_another_metric(ranking.metric, tied, sequence, metrics, names),
                VOTE,
            )
            if tied
            else ()
        ),
    )


def _knocked_out(knockout: Knockout, *, after: int) -> tuple[RankedModel, ...]:
    """Return the models that were knocked out, with the ranks ``after`` those of the finalists."""
    out = [each for each in knockout.models if not each.is_finalist and each.mean is not None]
    return tuple(
        RankedModel(model=each.model, rank=place, verdict=KNOCKED_OUT, mean=each.mean or 0.0, to_first=each.to_first)
        for place, each in enumerate(out, start=after + 1)
    )


def _frames(ranking: RankingRecord) -> str:
    """Return how many frames decide, and of how many if not all were measured."""
    if not ranking.measured:
        return counted(ranking.frames, "frame")
    if ranking.frames < ranking.measured:  # the others were seen in training
        return f"{ranking.frames} of {counted(ranking.measured, 'measured frame')}"
    return f"{ranking.frames} of {counted(ranking.of, 'frame')}"


def sentence(ranking: RankingRecord, names: Mapping[str, str]) -> str:
    """Return the result of a ranking as a sentence."""
    metric = BY_NAME[ranking.metric]
    trained = " (models were trained on some of them)" if ranking.on_training_frames else ""
    first, *others = ranking.models
    beginning = f"{names[first.model]} ranks first by {metric.label} on {_frames(ranking)}{trained}"
    if not others:
        return f"{beginning}: it is the only {'finalist' if ranking.knocked_out else 'model'}."
    next_best = next((each for each in others if each.verdict == TIE), others[0])  # the one that ties may not be second
    second = next_best.to_first
    assert second is not None, "only the first has none"
    if second.low is None or second.high is None:
        return f"{beginning}: a tie, because there are too few frames for a comparison."
    together = f" for {len(others)} comparisons at once" if len(others) > 1 else ""
    interval = f"95 % interval {-second.high:z.3g} to {-second.low:z.3g}{together}"
    ahead = f"{-second.difference:z.3g}{metric.suffix} ahead"
    lead = f"{ahead} of {names[next_best.model]}, {interval}"
    ties = [names[each.model] for each in others if each.verdict == TIE]
    if len(ties) == 1:  # no need to name it twice
        return f"{beginning}: a tie with {ties[0]} ({ahead}, {interval})."
    return f"{beginning}: a tie with {few(ties)} ({lead})." if ties else f"{beginning}: {lead}."


def remarks(ranking: RankingRecord, names: Mapping[str, str]) -> list[str]:
    """Return what would settle a tie, which frames decide but should not, and how models compare with the source."""
    lines = [f"To settle the tie: {' '.join(ranking.settle)}"] if ranking.settle else []
    if ranking.measured and ranking.on_training_frames:
        lines.append(
            "Nearly all measured frames were seen in training. Set measure_frames to all to measure the others."
        )
    if ranking.knocked_out:
        models, frames = counted(len(ranking.knocked_out), "model"), counted(ranking.knockout_frames, "frame")
        lines.append(f"Knocked out on {frames}: {models}. A larger finalists renders more of them completely.")
    return [*lines, *_compared_with_source(ranking, names)]


def _compared_with_source(ranking: RankingRecord, names: Mapping[str, str]) -> list[str]:
    """Return which models are worse than the source, and whether any is better, as far as that is significant."""
    differences = [each.to_source for each in ranking.models if each.to_source]
    if not differences:
        return []
    has_intervals = any(each.low is not None for each in differences)
    metric, count = BY_NAME[ranking.metric], len(ranking.models)
    source = f"the source itself by {metric.label} ({ranking.source:z.4g}{metric.suffix})"
    below = [names[each.model] for each in ranking.models if each.below_source]
    if len(below) == count:
        return [f"Every model is worse than {source}."]
    is_any_better = any(each.low is not None and each.low > 0 for each in differences)
    sentences = [f"No model is significantly better than {source}."] if has_intervals and not is_any_better else []
    if below:
        worse = "significantly worse than" if has_intervals else "worse than"
        sentences.append(f"{len(below)} of {count} models are {worse} {source}: {few(below)}.")
    return sentences


def _is_worse(than_source: Comparison) -> bool:
    """Return whether a model is worse than the source: significantly, or by its mean if there are too few frames."""
    record = than_source.record
    return record.difference < 0 if record.low is None else than_source.verdict == "worse"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _to_source(values: Sequence[float], unchanged: Sequence[float], ranking: Ranking) -> Comparison:
    """Compare a model with the source; the intervals hold for all models at once."""
    higher = BY_NAME[ranking.metric or ""].higher_is_better
    return compare_models(
        values, unchanged, higher_is_better=higher, comparisons=len(ranking.order), spacing=ranking.spacing
    )


def _frames_needed(ranking: Ranking) -> int | None:
    """Return the number of frames, to two digits, that would separate the first from the next that ties, or None.

    The width of an interval falls with the square root of the number of frames.
    """
    comparisons = [ranking.comparisons[model] for model in ranking.order[1:]]
    second = next((each for each in comparisons if each.verdict == TIE), comparisons[0])
    if second.low is None or second.high is None or not second.difference:
        return None
    times = ((second.high - second.low) / 2 / second.difference) ** 2
    if times > MANY_TIMES:
        return None
    needed = len(ranking.frames) * times
    step = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / step) * step


def _all_frames(needed: int | None, measured_frames: int | None, sequence: FrameSequence) -> list[str]:
    """Return the advice to measure all frames, if only ``measured_frames`` of them were."""
    if measured_frames is None:
        return []
    whole = len(sequence.frames)
    doubt = ", though they may not be enough" if needed is None or needed > whole else ""
    others = counted(whole - measured_frames, "more frame")
    return [f"First set measure_frames to all: {others} can be measured without rendering any{doubt}."]


def _more_frames(needed: int | None, ranking: Ranking, sequence: FrameSequence) -> str:
    if len(ranking.frames) < MIN_FRAMES:
        return f"Compare more frames: fewer than {MIN_FRAMES} decide nothing."
    if needed is None:
        return f"More frames will hardly decide: {MANY_TIMES} times as many would not be enough."
    whole = len(sequence.frames)
    place = f"; the sequence has {whole}" if needed > whole else ""
    return f"About {needed} frames like these would separate the first from the next that ties{place}."


def _another_metric(
    metric: str, tied: Sequence[Scores], sequence: FrameSequence, metrics: Sequence[str], names: Mapping[str, str]
) -> list[str]:
    """Return which of the other measured metrics that need a reference separates the tied models."""
    others = [name for name in metrics if name != metric and not BY_NAME[name].is_advisory]
    for name in others:
        ranking = rank(tied, sequence, name)
        if len(ranking.order) == len(tied) and all(each.verdict == "worse" for each in ranking.comparisons.values()):
            return [f"By {BY_NAME[name].label}, {names[ranking.order[0]]} is the best of them (rank_by: {name})."]
    return [f"No other metric separates them ({few(BY_NAME[name].label for name in others)})."] if others else []
