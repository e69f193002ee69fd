"""Comparisons of two models, on simulated differences with a known true mean."""

import math

import numpy as np
import pytest
from dailies.measure.ranking import MIN_FRAMES, Comparison, compare_models


def correlated(count: int, correlation: float, seed: int, mean: float = 0.0) -> np.ndarray:
    """Simulate a stationary sequence of variance 1 in which each value keeps a share of the one before."""
    values = np.random.default_rng(seed).normal(size=count)
    values[1:] *= math.sqrt(1 - correlation**2)
    for place in range(1, count):
        values[place] += correlation * values[place - 1]
    return values + mean


def drifting(count: int, seed: int) -> np.ndarray:
    """Simulate noise that hides a drift of the same variance."""
    noise = np.random.default_rng(seed + 10_000).normal(size=count)
    return (correlated(count, 0.95, seed) + noise) / math.sqrt(2)


def against_nothing(values: np.ndarray, **settings) -> Comparison:
    return compare_models(values, np.zeros(len(values)), higher_is_better=True, **settings)


def coverage(sequences, truth: float = 0.0) -> float:
    """Return the share of intervals that contain the truth."""
    return np.mean([each.low <= truth <= each.high for each in map(against_nothing, sequences)])


@pytest.mark.parametrize(
    ("count", "correlation"),
    [(12, 0), (12, 0.9), (24, 0.9), (24, 0.95), (50, 0.95), (100, 0.8), (500, 0.5)],
)
def test_the_interval_holds_the_truth_as_often_as_it_says(count, correlation):
    assert coverage((correlated(count, correlation, seed, mean=1.0) for seed in range(300)), truth=1.0) > 0.92


@pytest.mark.parametrize("count", [24, 100])
def test_intervals_hold_the_truth_under_a_drift_hidden_by_noise(count):
    assert coverage(drifting(count, seed) for seed in range(300)) > 0.93


def test_intervals_hold_the_truth_under_outliers():
    heavy = [np.random.default_rng(seed).standard_t(3, size=100) for seed in range(300)]

    assert coverage(heavy) > 0.93


@pytest.mark.parametrize(
    "kept", [np.arange(240) % 6 != 0, (np.arange(240) < 60) | (np.arange(240) >= 160), np.arange(240) % 40 < 8]
)
def test_intervals_hold_the_truth_if_frames_are_missing(kept):
    assert coverage(correlated(240, 0.9, seed)[kept] for seed in range(300)) > 0.93


@pytest.mark.parametrize(("count", "most"), [(24, 4.2), (100, 2.3), (200, 1.4), (500, 1.1)])
def test_intervals_approach_those_of_independent_frames_as_these_become_more(count, most):
    found = [against_nothing(correlated(count, 0, seed)) for seed in range(100)]

    known_variance = 2 * 1.96 / math.sqrt(count)
    assert 1 < np.mean([each.high - each.low for each in found]) / known_variance < most


def test_a_block_is_the_number_of_frames_that_carry_as_much_as_one():
    medians = [
        np.median([against_nothing(correlated(500, each, seed)).block for seed in range(30)])
        for each in (0, 0.5, 0.8, 0.95)
    ]

    # (1 + 0.5) / (1 - 0.5) is 3, and 39 for 0.95
    assert 1 <= medians[0] < 1.2
    assert 2.4 < medians[1] < 5
    assert medians[1] < medians[2] < 39 < medians[3] < 90
    assert against_nothing(correlated(24, 0.95, seed=0)).block == 24


def test_a_clear_difference_is_found_in_both_directions():
    one = correlated(100, 0.3, seed=1) + 40
    other = one - 0.5 + 0.1 * correlated(100, 0.3, seed=2)

    assert compare_models(one, other, higher_is_better=True).verdict == "better"
    assert compare_models(other, one, higher_is_better=True).verdict == "worse"
    assert compare_models(one, other, higher_is_better=False).verdict == "worse"
    assert compare_models(one, other, higher_is_better=True).difference == pytest.approx(0.5, abs=0.05)


def test_a_clear_difference_needs_few_frames():
    values = correlated(MIN_FRAMES, 0.8, seed=1)
    values *= 0.3 / values.std()
    values -= values.mean()

    assert against_nothing(values + 5).verdict == "better"
    assert against_nothing(values + 0.5).verdict == "tie"


def test_pairing_frames_finds_a_difference_smaller_than_their_spread():
    hard = 5 * correlated(100, 0.5, seed=3)
    found = compare_models(hard + 0.2, hard + 0.01 * correlated(100, 0, seed=4), higher_is_better=True)

    assert found.verdict == "better"
    assert 0.19 < found.low < 0.2 < found.high < 0.21


def test_among_many_equal_models_few_are_called_worse():
    together, alone = [], []
    for seed in range(200):
        models = np.random.default_rng(seed).normal(size=(20, 500))
        first = models[models.mean(axis=1).argmax()]
        together.append(compare_models(models[0], first, higher_is_better=True, comparisons=19).verdict)
        alone.append(compare_models(models[0], first, higher_is_better=True).verdict)

    assert together.count("worse") <= 0.05 * 200
    assert alone.count("worse") > 0.15 * 200


def test_identical_models_tie():
    found = compare_models([30.0] * 50, [30.0] * 50, higher_is_better=True)

    assert (found.difference, found.low, found.high, found.block, found.verdict) == (0, 0, 0, 1, "tie")


def test_a_constant_difference_is_certain():
    found = compare_models([30.1] * 50, [29.0] * 50, higher_is_better=True)

    assert (found.low, found.high, found.verdict) == (pytest.approx(1.1), pytest.approx(1.1), "better")


@pytest.mark.parametrize("count", [0, 1, 2, 5, MIN_FRAMES - 1])
def test_too_few_frames_are_a_tie(count):
    found = compare_models([30.0] * count, [20.0] * count, higher_is_better=True)

    assert (found.low, found.high, found.block, found.verdict) == (None, None, None, "tie")
    assert (found.frames, found.difference) == (count, 10 if count else 0)


def test_frames_without_a_finite_value_of_both_are_skipped():
    one, other = correlated(30, 0.5, seed=6), correlated(30, 0.5, seed=7)
    gaps = [None, math.nan, *one[2:29], math.inf], [*other[:5], None, *other[6:]]
    kept = [n for n in range(2, 29) if n != 5]

    found = compare_models(*gaps, higher_is_better=True)

    assert found == compare_models(one[kept], other[kept], higher_is_better=True)
    assert found.frames == 26


def test_sequences_of_two_lengths_are_refused():
    with pytest.raises(ValueError, match="longer"):
        compare_models([30.0], [20.0] * 20, higher_is_better=True)


def test_the_interval_scales_with_the_unit_of_the_values():
    values = correlated(60, 0.4, seed=5)
    found, scaled = against_nothing(values), against_nothing(values * 1e-9)

    assert found == against_nothing(values)
    assert scaled.high == pytest.approx(found.high * 1e-9)
    assert scaled.block == pytest.approx(found.block)


def test_frames_that_are_far_apart_count_as_less_correlated():
    values = correlated(2400, 0.95, seed=1)[::200]

    near, far = (against_nothing(values, spacing=spacing) for spacing in (1, 200))

    assert far.high - far.low < (near.high - near.low) / 2


@pytest.mark.parametrize(("spacing", "correlation"), [(4, 0.9), (18, 0.95)])
def test_intervals_of_spread_frames_hold_the_truth(spacing, correlation):
    found = [
        against_nothing(correlated(12 * spacing, correlation, seed, mean=1.0)[::spacing], spacing=spacing)
        for seed in range(300)
    ]

    assert np.mean([each.low <= 1 <= each.high for each in found]) > 0.92
