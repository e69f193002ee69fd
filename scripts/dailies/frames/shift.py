"""The shift: whether the frames of a reference belong to the frames before or after those they are paired with."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from dailies.core.errors import SequenceError
from dailies.frames.image import read_frame

PLACES = 3
"""Where in the sequence two neighbouring frames are compared; one alone shows nothing of what was animated on twos."""

LEAST_SAMPLES = 2
"""Frames below which nothing is concluded."""

LONGEST = 320
"""Pixels of the longer side to which frames are reduced."""

NEAR, FARTHEST = 2, 12
"""Shifts in frames that are tried, and that are tried if the last of those is the best."""

LEAST_CHANGE = 0.5 / 255
"""Change (RMS) from one frame of the reference to another, below which they cannot be told apart."""

FAR_BETTER, CLEAR = 0.3, 0.15
"""How near the sources must be to other frames of the reference, in the mean and each; 1 is equal to those, -1 to
their own, and grain of the reference makes it less."""

TINY = 1e-12

ERRORS = 5
"""Standard errors that the gain of all frames together must exceed."""

BLOCK = 12
"""Pixels of the side of a block, beyond which noise is taken for independent."""

LEAST_CONTRAST = 0.05
"""Contrast of a source, of that of its reference, below which they do not resemble each other."""

SAME_SHAPE = 0.02
"""How much the ratios of the sides of a source and its reference may differ."""


@dataclass(frozen=True)
class Sample:
    """A frame that is compared."""

    source: Path
    size: tuple[int, int]
    """Its width and height."""
    references: Mapping[int, Path] = field(repr=False)
    """Files of the reference by shift; 0 is the one that the frame is paired with."""


def samples(frames: Mapping[int, tuple[Path, tuple[int, int]]], references: Mapping[int, Path]) -> list[Sample]:
    """Choose frames whose neighbours have a reference, too.

    ``frames`` are the paths and sizes of the sources, ``references`` the files they are paired with, both by the
    number of the frame.
    """
    able = [number for number in sorted(references) if {number - 1, number + 1} & references.keys()]
    starts = {round(place) for place in np.linspace(0, max(0, len(able) - 2), PLACES)}
    chosen = sorted({number for start in starts for number in able[start : start + 2]})
    shifts = range(-FARTHEST, FARTHEST + 1)
    return [
        Sample(*frames[number], {by: references[number + by] for by in shifts if number + by in references})
        for number in chosen
    ]


def best_shift(
    chosen: Sequence[Sample],
    *,
    transfer: str | None,
    threads: int = 1,
    layers: Mapping[Path, str] | None = None,
) -> int:
    """Return by how many frames the pairs are off; 0 if they are not, or if that cannot be told.

    Models resemble their source, so the source is compared, at reduced size, with its own frame of the reference and
    with those before and after. What counts is its place along the line from one to the other: noise, a grade and a
    lower resolution move it away from both alike. If nothing moves, both are the same and nothing can be told.
    ``layers`` are those of EXRs of the source that are its picture, where that is not plain.
    """
    read = lru_cache(maxsize=None)(lambda path, size: _reduced(path, size, transfer, (layers or {}).get(path)))

    def steps(by: int) -> list[_Step]:
        found = []
        for sample in (each for each in chosen if by in each.references):
            paths = (sample.source, sample.references[0], sample.references[by])
            pictures = list(pool.map(read, paths, [sample.size] * len(paths)))
            if all(picture is not None for picture in pictures):
                found.append(_step(*pictures))
        return [step for step in found if step.change > LEAST_CHANGE**2]

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        tried = {by: steps(by) for by in (-1, 1)}
        if all(_nearness(found) < -FAR_BETTER for found in tried.values()):
            return 0  # every source is its own frame's
        tried |= {by: steps(by) for by in (-NEAR, NEAR)}
        while abs(best := max(tried, key=lambda by: _likeness(tried[by]))) < FARTHEST:
            farther = best + (1 if best > 0 else -1)
            if farther in tried:
                break
            tried[farther] = steps(farther)
    return best if _is_far_better(tried[best]) else 0


@dataclass(frozen=True)
class _Step:
    """A source between two frames of the reference, its own and another, in mean squares."""

    gain: float
    """How much smaller its difference from the other is."""
    error: float
    """The standard error of that."""
    change: float
    """The difference between both."""
    likeness: float
    """How much higher its correlation with the other is."""


def _step(source: np.ndarray, own: np.ndarray, other: np.ndarray) -> _Step:
    middle = (own + other) / 2
    # what a grade makes of the contrast; noise does not change it
    contrast = _product(source, middle) / np.maximum(_product(middle, middle), TINY)
    alike = source / np.where(contrast > LEAST_CONTRAST, contrast, np.inf)
    gain = np.square(alike - own) - np.square(alike - other)
    return _Step(
        gain=float(gain.mean()),
        error=_standard_error(2 * (alike - other) * (other - own)),
        change=float(np.square(other - own).mean()),
        likeness=_correlation(source, other) - _correlation(source, own),
    )


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one * other).mean(axis=(0, 1))


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / max(np.linalg.norm(one) * np.linalg.norm(other), TINY))


def _standard_error(noise: np.ndarray) -> float:
    """Return that of the mean of what is 0 but for noise, whose grain is smaller than a block."""
    rows, columns = (max(2, length // BLOCK) for length in noise.shape[:2])
    blocks = cv2.resize(noise.mean(axis=2), (columns, rows), interpolation=cv2.INTER_AREA)
    return float(np.square(blocks).mean() / blocks.size) ** 0.5


def _is_far_better(steps: Sequence[_Step]) -> bool:
    is_clear = len(steps) >= LEAST_SAMPLES and all(step.gain > CLEAR * step.change for step in steps)
    beyond_noise = sum(step.gain for step in steps) > ERRORS * sum(step.error**2 for step in steps) ** 0.5
    return is_clear and beyond_noise and _nearness(steps) > FAR_BETTER


def _nearness(steps: Sequence[_Step]) -> float:
    change = sum(step.change for step in steps)
    return sum(step.gain for step in steps) / change if change else 0.0


def _likeness(steps: Sequence[_Step]) -> float:
    return sum(step.likeness for step in steps) / len(steps) if steps else -np.inf


def _reduced(path: Path, size: tuple[int, int], transfer: str | None, layer: str | None) -> np.ndarray | None:
    """Read a frame and reduce it to what one of ``size`` is reduced to, each channel around 0.

    None where it cannot be read or is of another shape.
    """
    with suppress(SequenceError, OSError):
        picture = np.clip(np.nan_to_num(read_frame(path, layer, transfer=transfer).pixels), 0, 1)
        (width, height), (rows, columns) = size, picture.shape[:2]
        if abs(columns * height / (rows * width) - 1) > SAME_SHAPE:
            return None
        factor = min(1, LONGEST / max(size))
        to = max(1, round(width * factor)), max(1, round(height * factor))
        small = cv2.resize(picture, to, interpolation=cv2.INTER_AREA)
        return small - small.mean(axis=(0, 1))
    return None
