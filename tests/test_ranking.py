"""Ranking, on simulated differences whose truth is known."""

import math

import numpy as np
import pytest
from dailies.ranking import Comparison, block_length, compare


def correlated(count: int, correlation: float, seed: int, mean: float = 0.0) -> np.ndarray:
    """Simulate a stationary sequence in which each value keeps a share of the one before."""
    rng = np.random.default_rng(seed)
    values = np.empty(count)
    values[0] = rng.normal() / math.sqrt(1 - correlation**2)
    for place in range(1, count):
        values[place] = correlation * values[place - 1] + rng.normal()
    return values + mean


def against_nothing(values: np.ndarray, **settings) -> Comparison:
    return compare(values, np.zeros(len(values)), higher_is_better=True, **settings)


@pytest.mark.parametrize(
    ("count", "correlation", "least"), [(24, 0, 0.92), (201, 0, 0.92), (201, 0.5, 0.89), (201, 0.8, 0.86)]
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(count, correlation, least):
    found = [against_nothing(correlated(count, correlation, seed, mean=1.0)) for seed in range(200)]
    decided = [each for each in found if each.low is not None]

    assert len(decided) > 180
    assert least <= np.mean([each.low <= 1 <= each.high for each in decided]) <= 0.99


def test_frames_taken_for_independent_would_promise_too_much():
    blocks = [against_nothing(correlated(201, 0.8, seed)) for seed in range(100)]
    single = [against_nothing(correlated(201, 0.8, seed), block=1) for seed in range(100)]

    false_alarms = [np.mean([each.verdict != "tie" for each in found]) for found in (blocks, single)]
    assert false_alarms[0] < 0.16
    assert false_alarms[1] > 0.3


def test_blocks_grow_with_how_long_frames_resemble_each_other():
    medians = [
        np.median([block_length(correlated(201, each, seed)) for seed in range(20)]) for each in (0, 0.5, 0.8, 0.95)
    ]

    assert medians[0] == 6  # the cube root of 201
    assert medians[0] <= medians[1] < medians[2] < medians[3] <= 43


def test_a_clear_difference_is_one_in_both_directions():
    one = correlated(100, 0.3, seed=1) + 40
    other = one - 0.5 + 0.1 * correlated(100, 0.3, seed=2)

    assert compare(one, other, higher_is_better=True).verdict == "better"
    assert compare(other, one, higher_is_better=True).verdict == "worse"
    assert compare(one, other, higher_is_better=False).verdict == "worse"
    assert compare(one, other, higher_is_better=True).difference == pytest.approx(0.5, abs=0.05)


def test_pairing_finds_what_the_spread_of_the_frames_hides():
    hard = 5 * correlated(100, 0.5, seed=3)
    found = compare(hard + 0.2, hard + 0.01 * correlated(100, 0, seed=4), higher_is_better=True)

    assert found.verdict == "better"
    assert 0.19 < found.low < 0.2 < found.high < 0.21


def test_equal_models_tie_with_no_spread_at_all():
    found = compare([30.0] * 50, [30.0] * 50, higher_is_better=True)

    assert (found.difference, found.low, found.high, found.verdict) == (0, 0, 0, "tie")


def test_a_constant_difference_is_certain():
    found = compare([30.0] * 50, [29.0] * 50, higher_is_better=True)

    assert (found.low, found.high, found.verdict) == (pytest.approx(1), pytest.approx(1), "better")


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_too_few_frames_tell_nothing(count):
    found = compare([30.0] * count, [20.0] * count, higher_is_better=True)

    assert (found.low, found.high, found.verdict, found.frames) == (None, None, "tie", count)


def test_the_same_values_give_the_same_interval():
    values = correlated(60, 0.4, seed=5)

    assert against_nothing(values) == against_nothing(values)
    assert against_nothing(values).block == block_length(values)
    assert against_nothing(values, block=9).block == 9
