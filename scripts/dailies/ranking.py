"""Ranking: which of two models is better over a sequence, and whether the difference is more than chance.

Frames that follow each other resemble each other, so one frame says less than a measurement of its own would. The
differences are taken frame by frame, between two models of the same frame, and resampled in blocks of consecutive
frames: a moving block bootstrap (Künsch 1989), with blocks as long as Politis and White (2004) find them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 4000
SEED = 20250101
LEAST_BLOCKS = 4
"""Blocks that a sequence must hold; a shorter one is called a tie, whatever the difference."""


@dataclass(frozen=True)
class Comparison:
    """One model against another, over the same frames."""

    difference: float
    """The mean of the metric of one minus that of the other; more than 0 means that the one is better."""
    low: float | None
    """The bounds of its confidence interval; None where there are too few frames for one."""
    high: float | None
    frames: int
    block: int
    """Consecutive frames that were resampled together."""

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``tie``: whether the interval leaves out 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "tie"
        return "better" if self.low > 0 else "worse"


def compare(
    one: Sequence[float], other: Sequence[float], *, higher_is_better: bool, block: int | None = None
) -> Comparison:
    """Compare a metric of two models frame by frame.

    ``one`` and ``other`` hold a value for each of the same frames, in the order of the sequence. The interval is the
    percentile interval of ``RESAMPLES`` resamples, widened for the number of blocks as Student's t widens one for the
    number of measurements; the same values give the same interval.
    """
    differences = np.subtract(one, other, dtype=np.float64) * (1 if higher_is_better else -1)
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    length = block or block_length(differences)
    blocks = count // length if length else 0
    if blocks < LEAST_BLOCKS:
        return Comparison(mean, None, None, count, length)
    means = _resampled(differences, length)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = (
        mean + _widening(blocks) * (bound - means.mean()) for bound in np.percentile(means, (tail, 100 - tail))
    )
    return Comparison(mean, float(low), float(high), count, length)


def _resampled(differences: np.ndarray, length: int) -> np.ndarray:
    """Give the means of resampled sequences: blocks from anywhere, one after the other, cut to the same length."""
    count = len(differences)
    starts = np.random.default_rng(SEED).integers(0, count - length + 1, (RESAMPLES, math.ceil(count / length)))
    sums = np.concatenate([[0.0], np.cumsum(differences)])
    last = count - length * (starts.shape[1] - 1)
    whole, part = starts[:, :-1], starts[:, -1]
    return ((sums[whole + length] - sums[whole]).sum(axis=1) + sums[part + last] - sums[part]) / count


def _widening(blocks: int) -> float:
    """Give Student's quantile for so many independent blocks over that of the normal distribution.

    The quantile is Hill's expansion (Cornish and Fisher), within 1 % from four degrees of freedom on.
    """
    z, n = 1.959964, blocks - 1
    t = z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return t / z * math.sqrt(blocks / (blocks - 1))


def block_length(values: Sequence[float] | np.ndarray) -> int:
    """Find how long blocks have to be, from how far frames resemble each other.

    It is the automatic choice of Politis and White (2004), with the correction of Patton, Politis and White (2009), for
    blocks whose starts are resampled; at least the cube root of the number of frames, since a short sequence shows
    little of how it hangs together, and at most three times the square root.
    """
    centred = np.asarray(values, dtype=np.float64) - np.mean(values) if len(values) else np.zeros(0)
    count = len(centred)
    least = math.ceil(count ** (1 / 3))
    if count < 3 or not centred.any():
        return least
    consecutive = max(5, math.ceil(math.sqrt(math.log10(count))))
    most = min(math.ceil(math.sqrt(count)) + consecutive, count - 1)
    covariances = np.array([centred[: count - lag] @ centred[lag:] for lag in range(most + 1)]) / count
    small = np.abs(covariances[1:] / covariances[0]) < 2 * math.sqrt(math.log10(count) / count)
    last = next((lag for lag in range(len(small)) if small[lag : lag + consecutive].all()), most)
    lags = np.arange(1, min(2 * last, most) + 1)
    window = np.clip(2 * (1 - lags / (2 * last)), 0, 1) if last else np.zeros(len(lags))
    weighted = window * covariances[lags]
    spread = covariances[0] + 2 * weighted.sum()
    if spread <= 0:
        return least
    slope = 2 * (weighted * lags).sum()
    length = (1.5 * slope**2 / spread**2) ** (1 / 3) * count ** (1 / 3)
    return int(min(max(least, math.ceil(length)), math.ceil(3 * math.sqrt(count))))
