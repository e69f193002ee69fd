"""Ranking: which of two models is better over a sequence, and whether the difference is more than chance.

The differences are taken frame by frame, between two models of the same frame. Frames that follow each other resemble
each other, so one frame says less than a measurement of its own would. How much less, a short sequence does not show:
what it has in common from end to end looks like a difference between the models. Intervals that learn it from the data
alone, as a block bootstrap does, are too narrow then; ``benchmarks/ranking.py`` measures by how much.

So several kinds of memory are supposed, each gives an interval, and the data weigh them: what they cannot tell apart
stays in the result, which is wide for few frames and Student's own for many. The frames are seen as cosine waves, of
which the slowest matter for a mean (Müller and Watson, 2008); these are nearly independent of each other and of the
mean (Ahmed, Natarajan and Rao, 1974), with variances that follow from the memory. Given the memory, the mean has
Student's distribution; over kinds of memory it is averaged by their likelihood, as Zellner and Tiao (1964) do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.fft import dct
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
LEAST_FRAMES = 12
"""With fewer there is no interval, and it is a tie, whatever the difference."""
MEMORIES = (6, 12, 24, 48, 96)
"""Frames in which a resemblance falls to 1/e: from a quarter of a second to four seconds, at 24 a second."""
SHARES = (0.4, 0.7, 1.0)
"""Parts of the variance that have such a memory; the rest is new in every frame."""
INDEPENDENT = 0.3
"""The weight, before the data are seen, of frames without memory; the kinds of memory share the rest evenly."""
MOST_WAVES = 128
"""More waves than these tell of what is fast, which a mean evens out."""


@dataclass(frozen=True)
class Comparison:
    """One model against another, over the same frames."""

    difference: float
    """The mean of the metric of one minus that of the other; more than 0 means that the one is better."""
    low: float | None
    """The bounds of its confidence interval; None where there are too few frames for one."""
    high: float | None
    frames: int
    block: float | None
    """How many frames count as one, by the width of the interval beside one of independent frames; at most all."""

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``tie``: whether the interval leaves out 0."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "tie"
        return "better" if self.low > 0 else "worse"


def compare(
    one: Sequence[float | None], other: Sequence[float | None], *, higher_is_better: bool, comparisons: int = 1
) -> Comparison:
    """Compare a metric of two models frame by frame.

    ``one`` and ``other`` hold a value for each of the same frames, in the order of the sequence; frames on which one of
    them is None or not finite are left out, and those on both sides of a gap are taken for neighbours. The interval is
    one of ``comparisons`` that have to be right together, so each may be wrong that many times less often (Bonferroni).
    A difference that is the same on every frame is certain. ValueError where the lengths differ.
    """
    pairs = np.array(list(zip(one, other, strict=True)), dtype=np.float64).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    differences = (pairs[:, 0] - pairs[:, 1]) * (1 if higher_is_better else -1)
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if count < LEAST_FRAMES:
        return Comparison(mean, None, None, count, None)
    error = (1 - CONFIDENCE) / comparisons
    half = _half_width(differences, error)
    independent = -stdtrit(count - 1, error / 2) * differences.std(ddof=1) / np.sqrt(count)
    block = min(float((half / independent) ** 2), count) if half else 1.0
    return Comparison(mean, mean - half, mean + half, count, block)


def _half_width(differences: np.ndarray, error: float) -> float:
    """Give how far the true mean is from that of the differences, or farther with the probability ``error``."""
    count = len(differences)
    waves = min(count - 1, MOST_WAVES)
    if not np.ptp(differences):
        return 0.0
    energies = dct(differences, norm="ortho")[1 : waves + 1] ** 2
    spectra, spreads, prior = _memories(count, waves)
    sums = (energies / spectra).sum(axis=1)
    likelihood = np.log(prior) - np.log(spectra).sum(axis=1) / 2 - np.log(sums) * waves / 2
    weights = np.exp(likelihood - likelihood.max())
    scales = np.sqrt(spreads * sums / waves / count)
    widest = scales.max()

    def excess(half: float) -> float:
        return 2 * np.average(stdtr(waves, -half * widest / scales), weights=weights) - error

    return float(widest * brentq(excess, 0, -1.01 * stdtrit(waves, error / 2)))


@lru_cache
def _memories(count: int, waves: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give for each kind of memory the variances of the waves, that of the mean times ``count``, and its prior weight.

    They are those of a first-order autoregression with noise, whose values have the variance 1 (Box and Jenkins).
    """
    kept = np.exp(-1 / np.repeat(MEMORIES, len(SHARES)))
    share = np.tile(SHARES, len(MEMORIES))
    angles = np.pi * np.arange(1, waves + 1) / count
    spectra = (1 - kept**2) / (1 + kept**2 - 2 * np.cos(angles)[:, None] * kept)
    spreads = (1 + kept) / (1 - kept) - 2 * kept * (1 - kept**count) / count / (1 - kept) ** 2
    kinds = len(kept)
    return (
        np.vstack([np.ones(waves), (share * spectra + 1 - share).T]),
        np.append(1.0, share * spreads + 1 - share),
        np.append(INDEPENDENT, np.full(kinds, (1 - INDEPENDENT) / kinds)),
    )
