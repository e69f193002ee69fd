"""Measure how often intervals for the mean difference of two models hold the truth, and how wide they are.

python benchmarks/ranking.py [SEQUENCES]

Sequences of differences are simulated, whose true mean and whose variance of the mean are known. Each cell has the
share of intervals that hold the truth, nominally 0.95, and their mean width over that of an interval that is told the
variance. A method that gives fewer than every tenth sequence an interval has none there. The last table is about
sequences of which only some frames are measured, as ``measure_frames`` chooses them.
"""

import math
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.fft import dct
from scipy.special import stdtrit

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts")]

from dailies.frames import choice  # noqa: E402
from dailies.measure import ranking  # noqa: E402

COUNTS, SEQUENCES, RESAMPLES, SEED = (12, 24, 50, 100, 200, 500), 1000, 1000, 0
LONG = 500
"""The length of the sequences of which some frames are measured."""

DRIFT = 0.95
"""What a drift keeps from one value to the next."""

Interval = tuple[float, float] | None
Draw = Callable[[np.random.Generator, int], np.ndarray]


def autoregression(rng: np.random.Generator, count: int, kept: float, innovations: Draw) -> np.ndarray:
    """Simulate values of variance 1, each of which keeps a share of the one before; innovations have variance 1."""
    warm_up = 0 if kept == 0 else math.ceil(10 / (1 - kept))
    values, value = np.empty(warm_up + count), 0.0
    for place, new in enumerate(innovations(rng, warm_up + count) * math.sqrt(1 - kept**2)):
        value = kept * value + new
        values[place] = value
    return values[warm_up:]


def normal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw from the normal distribution."""
    return rng.normal(size=count)


def heavy(rng: np.random.Generator, count: int) -> np.ndarray:
    """Draw from Student's distribution with three degrees of freedom."""
    return rng.standard_t(3, size=count) / math.sqrt(3)


def spread(count: int, kept: float) -> float:
    """Give the variance of the mean of so many values of an autoregression of variance 1."""
    lags = np.arange(1, count)
    return (1 + 2 * ((1 - lags / count) * kept**lags).sum()) / count


PROCESSES: dict[str, tuple[Draw, Callable[[int], float]]] = {
    f"{name}, ρ = {kept:g}": (
        lambda rng, count, kept=kept, innovations=innovations: autoregression(rng, count, kept, innovations),
        lambda count, kept=kept: spread(count, kept),
    )
    for name, innovations, values in (("AR(1)", normal, (0, 0.5, 0.8, 0.9, 0.95, 0.99)), ("t3", heavy, (0, 0.8, 0.9)))
    for kept in values
} | {
    f"noise and {share:.0%} drift": (
        lambda rng, count, share=share: (
            math.sqrt(share) * autoregression(rng, count, DRIFT, normal) + math.sqrt(1 - share) * normal(rng, count)
        ),
        lambda count, share=share: share * spread(count, DRIFT) + (1 - share) / count,
    )
    for share in (0.2, 0.5)
}
"""By name: how to simulate it, and the variance of its mean. Its true mean is 0."""


def as_ranked(values: np.ndarray, spacing: int = 1) -> Interval:
    """Give the interval of ``dailies.measure.ranking``."""
    found = ranking.compare_models(values, np.zeros(len(values)), higher_is_better=True, spacing=spacing)
    return None if found.low is None else (found.low, found.high)


def student(values: np.ndarray) -> Interval:
    """Take frames for independent."""
    return around(values.mean(), values.std(ddof=1) / math.sqrt(len(values)), len(values) - 1)


def around(mean: float, error: float, freedom: int) -> Interval:
    """Give Student's interval."""
    half = -stdtrit(freedom, 0.025) * error
    return mean - half, mean + half


def batch_means(values: np.ndarray, batches: int) -> Interval:
    """Take the means of equal pieces for independent (Ibragimov and Müller, 2010)."""
    means = values[: len(values) // batches * batches].reshape(batches, -1).mean(axis=1)
    return around(means.mean(), means.std(ddof=1) / math.sqrt(batches), batches - 1)


def cosines(values: np.ndarray) -> Interval:
    """Take the slowest waves, 0.4 n^(2/3) of them, for equally strong (Lazarus, Lewis, Stock and Watson, 2018)."""
    waves = max(2, round(0.4 * len(values) ** (2 / 3)))
    energies = dct(values, norm="ortho")[1 : waves + 1] ** 2
    return around(values.mean(), math.sqrt(energies.mean() / len(values)), waves)


def self_normalised(values: np.ndarray) -> Interval:
    """Divide by the partial sums (Lobato, 2001, whose table has 45.4)."""
    count, mean = len(values), values.mean()
    half = math.sqrt(45.4 * (np.cumsum(values - mean) ** 2).sum()) / count**1.5
    return mean - half, mean + half


def blocks(values: np.ndarray) -> Interval:
    """Resample blocks, of at least four: the method before. Percentiles, widened as Student's t for so many blocks."""
    count, length = len(values), block_length(values)
    if count // length < 4:
        return None
    starts = np.random.default_rng(1).integers(0, count - length + 1, (RESAMPLES, math.ceil(count / length)))
    means = values[(starts[:, :, None] + np.arange(length)).reshape(RESAMPLES, -1)[:, :count]].mean(axis=1)
    held = count // length
    widening = -stdtrit(held - 1, 0.025) / 1.959964 * math.sqrt(held / (held - 1))
    low, high = np.percentile(means, (2.5, 97.5)) - means.mean()
    return values.mean() + widening * low, values.mean() + widening * high


def block_length(values: np.ndarray) -> int:
    """Find how long blocks are: Politis and White (2004), with the correction of Patton, Politis and White (2009)."""
    count, centred = len(values), values - values.mean()
    least, consecutive = math.ceil(count ** (1 / 3)), max(5, math.ceil(math.sqrt(math.log10(count))))
    most = min(math.ceil(math.sqrt(count)) + consecutive, count - 1)
    covariances = np.array([centred[: count - lag] @ centred[lag:] for lag in range(most + 1)]) / count
    small = np.abs(covariances[1:] / covariances[0]) < 2 * math.sqrt(math.log10(count) / count)
    last = next((lag for lag in range(len(small)) if small[lag : lag + consecutive].all()), most)
    lags = np.arange(1, min(2 * last, most) + 1)
    weighted = np.clip(2 * (1 - lags / (2 * last)), 0, 1) * covariances[lags] if last else np.zeros(len(lags))
    power = covariances[0] + 2 * weighted.sum()
    if power <= 0:
        return least
    length = (1.5 * (2 * (weighted * lags).sum()) ** 2 / power**2 * count) ** (1 / 3)
    return min(max(least, math.ceil(length)), math.ceil(3 * math.sqrt(count)))


METHODS: dict[str, Callable[[np.ndarray], Interval]] = {
    "as ranked": as_ranked,
    "block bootstrap": blocks,
    "Student": student,
    "4 batch means": lambda values: batch_means(values, 4),
    "8 batch means": lambda values: batch_means(values, 8),
    "cosines": cosines,
    "self-normalised": self_normalised,
}


def measured_in_part(sequences: int) -> None:
    """Print how often the interval over the frames of ``measure_frames: auto`` holds the truth, and how wide it is.

    The truth is the true mean, or the mean over all frames. The width is that over the interval from all frames.
    """
    places = list(choice.measured_positions(choice.AUTO, LONG))
    spacing = min(later - earlier for earlier, later in pairwise(places))
    head = f"{len(places)} of {LONG} frames | true mean | mean of all | width | all {LONG}: true mean"
    print(f"\n| {head} |\n|---|---|---|---|---|")
    for process, (simulated, _) in PROCESSES.items():
        rng = np.random.default_rng(SEED)
        drawn = np.array([simulated(rng, LONG) for _ in range(sequences)])
        part = np.array([as_ranked(values[places], spacing) for values in drawn])
        whole = np.array([as_ranked(values) for values in drawn])
        shares = [holds(part, 0).mean(), holds(part, drawn.mean(axis=1)).mean()]
        width = np.ptp(part, axis=1).mean() / np.ptp(whole, axis=1).mean()
        cells = [*(f"{share:.2f}" for share in shares), f"{width:.2f} ×", f"{holds(whole, 0).mean():.2f}"]
        print(f"| {process} | {' | '.join(cells)} |", flush=True)


def holds(intervals: np.ndarray, truth: float | np.ndarray) -> np.ndarray:
    """Return which of the intervals, ``(n, 2)``, contain the truth."""
    return (intervals[:, 0] <= truth) & (intervals[:, 1] >= truth)


def main() -> None:
    """Print a table for each method, lines of processes, columns of lengths."""
    sequences = int(sys.argv[1]) if len(sys.argv) > 1 else SEQUENCES
    told: dict[tuple[str, str], list[str]] = {}
    for process, (simulated, variance) in PROCESSES.items():
        for count in COUNTS:
            rng = np.random.default_rng(SEED)
            drawn = [simulated(rng, count) for _ in range(sequences)]
            truth = 2 * 1.959964 * math.sqrt(variance(count))
            for method, interval in METHODS.items():
                found = np.array([each for values in drawn if (each := interval(values))]).reshape(-1, 2)
                enough = len(found) >= sequences / 10
                cell = (
                    f"{holds(found, 0).mean():.2f}, {np.ptp(found, axis=1).mean() / truth:.2f} ×" if enough else "none"
                )
                told.setdefault((method, process), []).append(cell)
    measured_in_part(sequences)
    for method in METHODS:
        print(f"\n| {method} | {' | '.join(map(str, COUNTS))} |\n|{'---|' * (len(COUNTS) + 1)}")
        for process in PROCESSES:
            print(f"| {process} | {' | '.join(told[method, process])} |")


if __name__ == "__main__":
    main()
