"""Detection of a reference that is shifted in time against the frames that it is paired with."""

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

POSITIONS = 3
"""Positions in the sequence at which two neighbouring frames are compared.

A single frame would reveal nothing about a shot that is animated on twos.
"""

MIN_SAMPLES = 2
"""Smallest number of comparisons for a result."""

MAX_SIDE = 320
"""Longer side of the reduced frames, in pixels."""

NEAR, FARTHEST = 2, 12
"""Shifts in frames: up to ``NEAR`` is always tried, up to ``FARTHEST`` while the farthest so far is the best."""

MIN_CHANGE = 0.5 / 255
"""Smallest difference (RMS, values from 0 to 1) by which two frames of the reference can be distinguished."""

MIN_MEAN_NEARNESS, MIN_NEARNESS = 0.3, 0.15
"""How near the sources must be to other frames of the reference than their own, on average and each.

1 means equal to the other frame, -1 equal to their own; grain of the reference reduces the magnitude.
"""

TINY = 1e-12
"""Smallest divisor."""

STANDARD_ERRORS = 5
"""How many standard errors the total gain must exceed."""

BLOCK = 12
"""Side of a block in pixels; noise in different blocks is assumed to be independent."""

MIN_CONTRAST = 0.05
"""Smallest ratio of the contrast of a source to that of its reference for which they resemble each other."""

ASPECT_TOLERANCE = 0.02
"""Largest relative difference between the aspect ratios of a source and its reference."""


@dataclass(frozen=True)
class Sample:
    """A frame that is compared."""

    source: Path
    size: tuple[int, int]
    """Width and height."""
    references: Mapping[int, Path] = field(repr=False)
    """Shift -> file of the reference; 0 is the one that the frame is paired with."""


def choose_samples(frames: Mapping[int, tuple[Path, tuple[int, int]]], references: Mapping[int, Path]) -> list[Sample]:
    """Choose frames of which a neighbour has a reference, too.

    ``frames`` maps the number of a frame to the path and ``(width, height)`` of the source, ``references`` to the file
    that it is paired with.
    """
    able = [number for number in sorted(references) if {number - 1, number + 1} & references.keys()]
    starts = {round(place) for place in np.linspace(0, max(0, len(able) - 2), POSITIONS)}
    chosen = sorted({number for start in starts for number in able[start : start + 2]})
    shifts = range(-FARTHEST, FARTHEST + 1)
    return [
        Sample(*frames[number], {by: references[number + by] for by in shifts if number + by in references})
        for number in chosen
    ]


def estimate_shift(
    chosen: Sequence[Sample],
    *,
    transfer: str | None,
    threads: int = 1,
    layers: Mapping[Path, str] | None = None,
) -> int:
    """Return by how many frames the reference is shifted; 0 if it is not, or if that cannot be determined.

    Each source is compared, at reduced size, with its own frame of the reference and with those before and after. Its
    position on the line between the two determines the result, because noise, a grade and a lower resolution move it
    away from both equally. If nothing moves in the shot, no shift can be determined. ``layers`` maps paths of EXR
    sources to the layer that is their picture, if that is not the default one.
    """
    read = lru_cache(maxsize=None)(lambda path, size: _read_reduced(path, size, transfer, (layers or {}).get(path)))

    def compare_all(by: int) -> list[_Comparison]:
        found = []
        for sample in (each for each in chosen if by in each.references):
            paths = (sample.source, sample.references[0], sample.references[by])
            source, own, other = pool.map(read, paths, [sample.size] * len(paths))
            if source is not None and own is not None and other is not None:
                found.append(_compare(source, own, other))
        return [comparison for comparison in found if comparison.change > MIN_CHANGE**2]

    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        tried = {by: compare_all(by) for by in (-1, 1)}
        if all(_nearness(found) < -MIN_MEAN_NEARNESS for found in tried.values()):
            return 0  # every source matches its own frame
        tried |= {by: compare_all(by) for by in (-NEAR, NEAR)}
        while abs(best := max(tried, key=lambda by: _mean_likeness(tried[by]))) < FARTHEST:
            farther = best + (1 if best > 0 else -1)
            if farther in tried:
                break
            tried[farther] = compare_all(farther)
    return best if _is_significant(tried[best]) else 0


@dataclass(frozen=True)
class _Comparison:
    """A source compared with two frames of the reference, its own and another; differences are mean squares."""

    gain: float
    """By how much the difference from the other frame is smaller."""
    error: float
    """Standard error of ``gain``."""
    change: float
    """Difference between the two frames of the reference."""
    likeness: float
    """By how much the correlation with the other frame is higher."""


def _compare(source: np.ndarray, own: np.ndarray, other: np.ndarray) -> _Comparison:
    middle = (own + other) / 2
    # ratio of contrasts, which a grade changes but noise does not
    contrast = _product(source, middle) / np.maximum(_product(middle, middle), TINY)
    alike = source / np.where(contrast > MIN_CONTRAST, contrast, np.inf)
    gain = np.square(alike - own) - np.square(alike - other)
    return _Comparison(
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
    """Return the standard error of the mean of zero-mean noise whose grain is smaller than a block."""
    rows, columns = (max(2, length // BLOCK) for length in noise.shape[:2])
    blocks = cv2.resize(noise.mean(axis=2), (columns, rows), interpolation=cv2.INTER_AREA)
    return float(np.square(blocks).mean() / blocks.size) ** 0.5


def _is_significant(found: Sequence[_Comparison]) -> bool:
    is_clear = len(found) >= MIN_SAMPLES and all(each.gain > MIN_NEARNESS * each.change for each in found)
    beyond_noise = sum(each.gain for each in found) > STANDARD_ERRORS * sum(each.error**2 for each in found) ** 0.5
    return is_clear and beyond_noise and _nearness(found) > MIN_MEAN_NEARNESS


def _nearness(found: Sequence[_Comparison]) -> float:
    change = sum(each.change for each in found)
    return sum(each.gain for each in found) / change if change else 0.0


def _mean_likeness(found: Sequence[_Comparison]) -> float:
    return sum(each.likeness for each in found) / len(found) if found else -np.inf


def _read_reduced(path: Path, size: tuple[int, int], transfer: str | None, layer: str | None) -> np.ndarray | None:
    """Read a frame, reduce it to the size that a frame of ``size`` is reduced to, and center each channel at 0.

    Return None if it cannot be read or has another aspect ratio.
    """
    with suppress(SequenceError, OSError):
        picture = np.clip(np.nan_to_num(read_frame(path, layer, transfer=transfer).pixels), 0, 1)
        (width, height), (rows, columns) = size, picture.shape[:2]
        if abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
            return None
        factor = min(1, MAX_SIDE / max(size))
        to = max(1, round(width * factor)), max(1, round(height * factor))
        small = cv2.resize(picture, to, interpolation=cv2.INTER_AREA)
        return small - small.mean(axis=(0, 1))
    return None
