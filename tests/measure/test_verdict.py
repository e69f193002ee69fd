"""The verdict in words."""

from dailies.measure import verdict
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

    assert "a tie with erratic (0.5 dB ahead of erratic" in text
    assert "steady" not in text


def test_a_lead_that_is_no_tie_is_that_over_the_second():
    record = ranking(
        placed("first", 1, BEST), placed("second", 2, WORSE, Difference(difference=-0.4, low=-0.6, high=-0.2))
    )

    assert "0.4 dB ahead of second, 95 % interval 0.2 to 0.6" in verdict.sentence(record, named(record))
