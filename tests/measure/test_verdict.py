"""The verdict in words."""

from dataclasses import replace

import numpy as np
import pytest
from dailies.frames.sequence import Frame, Sequence
from dailies.measure import verdict
from dailies.measure.ranking import rank
from dailies.measure.scores import Scores
from dailies.state.layout import SOURCE
from dailies.state.records import BEST, TIE, WORSE, Difference, RankedModel, RankingRecord


def placed(model: str, rank: int, word: str, to_first: Difference | None = None) -> RankedModel:
    return RankedModel(model=model, rank=rank, verdict=word, mean=40.0 - rank, to_first=to_first)


def ranking(*models: RankedModel) -> RankingRecord:
    return RankingRecord(metric="psnr", frames=24, of=24, on_training_frames=False, source=None, models=models)


def named(record: RankingRecord) -> dict[str, str]:
    return {each.model: each.model for each in record.models}


def test_a_tie_names_the_lead_over_a_model_that_ties_even_if_it_is_not_the_second():
    record = ranking(
        placed("first", 1, TIE),
        placed("steady", 2, WORSE, Difference(difference=-0.1, low=-0.15, high=-0.05)),
        placed("erratic", 3, TIE, Difference(difference=-0.5, low=-1.2, high=0.2)),
    )

    text = verdict.sentence(record, named(record))

    assert "a tie with erratic (0.5 dB ahead," in text
    assert "steady" not in text


def test_a_tie_with_several_names_the_one_that_the_lead_is_about():
    close = [
        placed(name, place, TIE, Difference(difference=-0.5, low=-1.2, high=0.2))
        for place, name in ((2, "b"), (3, "c"))
    ]
    record = ranking(placed("a", 1, TIE), *close)

    assert "a tie with b, c (0.5 dB ahead of b," in verdict.sentence(record, named(record))


def compared_with_source(source: np.ndarray, **models: np.ndarray) -> RankingRecord:
    """Return the record of models with a PSNR per frame."""
    frames = [Frame(f"{n}.png", f"{n}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(len(source))]

    def scores(name: str, values: np.ndarray) -> Scores:
        measured = {frame.output: {"psnr": float(value)} for frame, value in zip(frames, values, strict=True)}
        return Scores(name, None, None, measured, frozenset())

    every, sequence = [scores(*item) for item in models.items()], Sequence(tuple(frames))
    found = verdict.record(
        rank(every, sequence, "psnr"),
        every,
        scores(SOURCE, source),
        sequence=sequence,
        metrics=("psnr",),
        names={name: name for name in models},
    )
    assert found
    return found


def test_with_too_few_frames_for_an_interval_the_mean_tells_which_models_are_below_the_source():
    source = np.full(3, 30.0)

    found = compared_with_source(source, up=source + 0.1, down=source - 0.1)

    assert {each.model: each.below_source for each in found.models} == {"up": False, "down": True}
    assert any("1 of 2 models" in line and "down" in line for line in verdict.remarks(found, named(found)))


def test_only_models_that_are_significantly_worse_than_the_source_are_below_it():
    noise = np.random.default_rng(0).normal(size=24)

    found = compared_with_source(25 + noise, unsure=24.9 + 3 * np.roll(noise, 9), worse=20 + noise)

    assert {each.model: each.below_source for each in found.models} == {"unsure": False, "worse": True}
    none_better, some_worse = verdict.remarks(found, named(found))[-2:]
    assert "No model is significantly better" in none_better
    assert "1 of 2" in some_worse
    assert "unsure" not in some_worse


def test_a_lead_that_is_no_tie_is_that_over_the_second():
    record = ranking(
        placed("first", 1, BEST), placed("second", 2, WORSE, Difference(difference=-0.4, low=-0.6, high=-0.2))
    )

    assert "0.4 dB ahead of second, 95 % interval 0.2 to 0.6" in verdict.sentence(record, named(record))


@pytest.mark.parametrize("measured", [64, None])
def test_a_tie_on_some_frames_is_first_settled_by_measuring_all(measured):
    frames = [Frame(f"{n}.png", f"{n}.png", 7, 5, "RGB", 8, 1, sha256=str(n)) for n in range(500)]
    rng = np.random.default_rng(0)

    def scores(name: str) -> Scores:
        values = rng.normal(30, 1, 500)
        known = frames if measured is None else frames[:measured]
        named = {frame.output: {"psnr": float(value)} for frame, value in zip(known, values, strict=False)}
        return Scores(name, None, None, named, frozenset())

    models, sequence = [scores("one"), scores("two")], Sequence(tuple(frames))
    found = verdict.record(
        rank(models, sequence, "psnr"),
        models,
        scores(SOURCE),
        sequence=sequence,
        metrics=("psnr",),
        names={"one": "one", "two": "two"},
        measured_frames=measured,
    )

    assert found is not None
    assert found.models[0].verdict == TIE
    assert ("measure_frames" in found.settle[0]) == (measured is not None)
    text = verdict.sentence(found, named(found))
    assert ("on 64 of 500 frames" if measured else "on 500 frames") in text


def test_frames_that_were_seen_in_training_are_no_verdict_if_others_could_be_measured():
    record = replace(ranking(placed("first", 1, BEST)), measured=24, of=100, on_training_frames=True)

    (line,) = verdict.remarks(record, named(record))

    assert "measure_frames" in line
    assert verdict.remarks(replace(record, measured=None), named(record)) == []


def test_a_verdict_says_how_many_of_the_measured_frames_decide():
    record = replace(ranking(placed("first", 1, BEST)), frames=53, measured=64, of=70)

    assert "on 53 of 64 measured frames" in verdict.sentence(record, named(record))
