"""The ranking of models by a metric, and whether a difference between two of them is more than chance.

Differences are taken frame by frame, between the values of two models on the same frame. Neighbouring frames are
correlated, so a frame carries less information than an independent measurement. A short sequence cannot show how much
less: what its frames have in common from end to end looks like a difference between the models. Intervals that estimate
the correlation from the data alone, as a block bootstrap does, are too narrow then; ``benchmarks/ranking.py`` measures
by how much.

So several correlation lengths are assumed. Each implies an interval, and the data weight them. What the data cannot
resolve stays in the result: it is wide for few frames, and approaches Student's interval for many. The differences are
decomposed into cosine waves, of which the slowest ones matter for a mean (Müller and Watson, 2008). The waves are
nearly independent of each other and of the mean (Ahmed, Natarajan and Rao, 1974), and their variances follow from the
correlation length. Given that length, the mean has Student's distribution; these distributions are averaged, weighted
by their likelihood, as in Zellner and Tiao (1964).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy.fft import dct
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit

from dailies.frames.sequence import Sequence as FrameSequence
from dailies.measure.metrics import BY_NAME, MIN_FRAMES
from dailies.measure.scores import Scores, column
from dailies.state.records import Difference

MIN_UNSEEN = 2
"""If fewer frames than these are unseen by all models, all frames decide."""

CONFIDENCE = 0.95

CORRELATION_LENGTHS = (6, 12, 24, 48, 96)
"""Frames after which a correlation falls to 1/e: from a quarter of a second to four seconds at 24 fps."""

CORRELATED_SHARES = (0.4, 0.7, 1.0)
"""Shares of the variance that are correlated; the rest is independent in every frame."""

INDEPENDENT_WEIGHT = 0.3
"""The prior weight of independent frames; all combinations of length and share divide the rest evenly."""

MAX_WAVES = 128
"""Faster waves than these average out in a mean."""


@dataclass(frozen=True)
class Comparison:
    """A metric of one model compared with that of another, over the same frames."""

    difference: float
    """The mean difference; positive if the first model is better."""
    low: float | None
    """The lower bound of its confidence interval; None if there are too few frames for one."""
    high: float | None
    """The upper bound; None as ``low`` is."""
    frames: int
    """The number of frames compared."""
    block: float | None
    """How many frames carry as much information as one independent frame, from the widths of the intervals; at most
    ``frames``. None as ``low`` is."""

    @property
    def record(self) -> Difference:
        """The difference as records hold it."""
        return Difference(difference=self.difference, low=self.low, high=self.high)

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` if the interval excludes 0, else ``tie``."""
        if self.low is None or self.high is None or self.low <= 0 <= self.high:
            return "tie"
        return "better" if self.low > 0 else "worse"


@dataclass(frozen=True)
class Ranking:
    """The models that can be ranked, the best one first."""

    metric: str | None
    """None if no metric ranks."""
    order: tuple[str, ...] = ()
    """Folder names of the models."""
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """Each of the other models compared with the first: differences are negative, as none is better than the first."""
    frames: tuple[str, ...] = ()
    """Output names of the frames that decide."""
    spacing: int = 1
    """The least distance between two of them in the sequence, in frames."""


def rank(models: Sequence[Scores], sequence: FrameSequence, metric: str | None) -> Ranking:
    """Rank the models by their mean of a metric.

    The frames that decide are those on which all models have a value and that no model was trained on. If there are
    fewer than ``MIN_UNSEEN`` of these, training frames decide as well.

    The first of many models may owe its place to luck. Each other model is compared with the first, and the intervals
    hold for all these comparisons at once. So, with the confidence of a single interval, the best model is the first
    one or one of those that tie with it: multiple comparisons with the best (Hsu, 1984).
    """
    if metric is None:
        return Ranking(None)
    ranked = [scores for scores in models if column(scores.frames, metric, scores.frames)]
    outputs = [frame.output for frame in sequence.frames]
    common = [name for name in outputs if all(scores.value(metric, name) is not None for scores in ranked)]
    unseen = [name for name in common if not any(name in scores.training_frames for scores in ranked)]
    frames = unseen if len(unseen) >= MIN_UNSEEN else common
    if not ranked or not frames:
        return Ranking(metric)
    higher = BY_NAME[metric].higher_is_better
    columns = {scores.model: column(scores.frames, metric, frames) for scores in ranked}
    order = sorted(columns, key=lambda model: sum(columns[model]) * (-1 if higher else 1))
    first, spacing = columns[order[0]], _spacing(sequence, frames)
    comparisons = {
        model: compare_models(
            columns[model], first, higher_is_better=higher, comparisons=len(order) - 1, spacing=spacing
        )
        for model in order[1:]
    }
    return Ranking(metric, tuple(order), comparisons, tuple(frames), spacing)


def _spacing(sequence: FrameSequence, names: Sequence[str]) -> int:
    """Return the least distance between two of the named frames, in frames of the input."""
    wanted = {*names}
    places = [place for frame, place in zip(sequence.frames, sequence.positions, strict=True) if frame.output in wanted]
    return min((later - earlier for earlier, later in pairwise(places)), default=1)


def compare_models(
    one: Sequence[float | None],
    other: Sequence[float | None],
    *,
    higher_is_better: bool,
    comparisons: int = 1,
    spacing: int = 1,
) -> Comparison:
    """Compare a metric of two models frame by frame.

    ``one`` and ``other`` hold a value for each of the same frames, in the order of the sequence. A frame on which a
    value is None or not finite is skipped, and the frames on both sides of a gap count as neighbours. The interval is
    one of ``comparisons`` that hold together with the probability ``CONFIDENCE`` (Bonferroni). Frames that are
    ``spacing`` frames apart are correlated less than neighbours. If the difference is the same on every frame, the
    interval has no width. Raises ValueError if the lengths differ.
    """
    pairs = np.array(list(zip(one, other, strict=True)), dtype=np.float64).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    differences = (pairs[:, 0] - pairs[:, 1]) * (1 if higher_is_better else -1)
    count = len(differences)
    mean = float(differences.mean()) if count else 0.0
    if count < MIN_FRAMES:
        return Comparison(mean, None, None, count, None)
    error = (1 - CONFIDENCE) / comparisons
    half = _half_width(differences, error, spacing)
    independent = -stdtrit(count - 1, error / 2) * differences.std(ddof=1) / np.sqrt(count)
    block = min(float((half / independent) ** 2), count) if half else 1.0
    return Comparison(mean, mean - half, mean + half, count, block)


def _half_width(differences: np.ndarray, error: float, spacing: int) -> float:
    """Return the distance from the mean that the true mean exceeds, in either direction, with probability ``error``."""
    count = len(differences)
    waves = min(count - 1, MAX_WAVES)
    if not np.ptp(differences):
        return 0.0
    energies = dct(differences, norm="ortho")[1 : waves + 1] ** 2
    spectra, spreads, prior = _correlations(count, waves, spacing)
    sums = (energies / spectra).sum(axis=1)
    likelihood = np.log(prior) - np.log(spectra).sum(axis=1) / 2 - np.log(sums) * waves / 2
    weights = np.exp(likelihood - likelihood.max())
    scales = np.sqrt(spreads * sums / waves / count)
    widest = scales.max()

    def excess(half: float) -> float:
        return 2 * np.average(stdtr(waves, -half * widest / scales), weights=weights) - error

    return float(widest * brentq(excess, 0, -1.01 * stdtrit(waves, error / 2)))


@lru_cache
def _correlations(count: int, waves: int, spacing: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what each assumed correlation implies: the variances of the waves, and ``count`` times that of the mean.

    The third array holds the prior weights. The first row is that of independent frames; the others are first-order
    autoregressions with noise, whose values have variance 1 (Box and Jenkins).
    """
    decay = np.exp(-spacing / np.repeat(CORRELATION_LENGTHS, len(CORRELATED_SHARES)))
    share = np.tile(CORRELATED_SHARES, len(CORRELATION_LENGTHS))
    angles = np.pi * np.arange(1, waves + 1) / count
    spectra = (1 - decay**2) / (1 + decay**2 - 2 * np.cos(angles)[:, None] * decay)
    spreads = (1 + decay) / (1 - decay) - 2 * decay * (1 - decay**count) / count / (1 - decay) ** 2
    kinds = len(decay)
    return (
        np.vstack([np.ones(waves), (share * spectra + 1 - share).T]),
        np.append(1.0, share * spreads + 1 - share),
        np.append(INDEPENDENT_WEIGHT, np.full(kinds, (1 - INDEPENDENT_WEIGHT) / kinds)),
    )
