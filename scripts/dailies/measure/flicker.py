"""Optical flow of the source, and how much a model's frames flicker along it."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

SHORTEST = 32
"""Pixels of the shorter side below which no flow is computed: OpenCV 5.0.0 crashes on small, wide frames."""

STEP = 4
"""A flow is stored at a quarter of the frame's size. OpenCV's fast preset does not search finer scales either."""

GRID = 2
"""Changes are taken at every second pixel of every second row. That is within 2 % of the value for all pixels."""

BLUR, FALLOFF = 2.0, 50.0
"""Blur, in pixels, under which two frames of the source are compared, so that grain does not count as occlusion; and
how fast the weight of a pixel falls with its squared difference, as in Lai et al., Learning Blind Video Temporal
Consistency (2018)."""


def flow(source: np.ndarray, before: np.ndarray) -> np.ndarray | None:
    """Return the motion from a frame of the source to the one before it, by dense inverse search (DIS).

    Frames are ``(height, width, 3)`` float32 from 0 to 1. The flow is ``(height / 4, width / 4, 2)`` float16, rounded
    up: dx and dy in pixels of the frame. None if the frames differ in size or a side is shorter than 32 pixels.
    """
    if source.shape != before.shape or min(source.shape[:2]) < SHORTEST:
        return None
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    full = search.calc(_luma(source), _luma(before), None)  # type: ignore[call-overload]
    return cv2.resize(full, _reduced(source.shape, STEP), interpolation=cv2.INTER_AREA).astype(np.float16)


@dataclass(frozen=True)
class Motion:
    """The motion of the source's pixels from one frame to the next, along which all models are measured."""

    flow: np.ndarray
    """As ``flow`` returns it."""
    weight: np.ndarray
    """``(height / 2, width / 2)`` uint8, rounded up: how certain the motion of each pixel of the grid is, up to 255."""
    source_error: float | None
    """The warping error of the source itself, in code values of 255; None if no pixel can be followed."""

    @classmethod
    def along(cls, flow: np.ndarray, source: np.ndarray, before: np.ndarray) -> "Motion":
        """Return the motion of the ``flow`` from the frame ``source`` to the one ``before`` it."""
        height, width = source.shape[:2]
        size = _reduced(source.shape, GRID)
        x, y = _origins(flow, size)
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        frame, earlier = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (source, before))
        shift = 0.5 - 0.5 / GRID  # from the coordinates of a pixel to those of its block in the reduced frame
        change = cv2.GaussianBlur(frame - _sampled(earlier, x / GRID - shift, y / GRID - shift), (0, 0), BLUR / GRID)
        weight = np.rint(255 * (inside * np.exp(-FALLOFF * np.square(change).sum(axis=2)))).astype(np.uint8)
        unmeasured = cls(flow, weight, None)
        return cls(flow, weight, unmeasured.error(source, before))

    def error(self, image: np.ndarray, before: np.ndarray) -> float | None:
        """Return the warping error: the mean change of a pixel along the motion, in code values of 255.

        A pixel counts less the less certain its motion is. None if no pixel can be followed.
        """
        total = self._weight.sum()
        if total < 255:
            return None
        change = cv2.absdiff(np.ascontiguousarray(image[::GRID, ::GRID]), _sampled(before, *self._origins))
        mean = cv2.transform(change, np.full((1, 3), 1 / 3, np.float32))
        # a product of vectors would start BLAS's threads, which compete with those of the job
        return 255 * float(np.einsum("ij,ij->", self._weight, mean) / total)

    @cached_property
    def _weight(self) -> np.ndarray:
        return self.weight.astype(np.float64)

    @cached_property
    def _origins(self) -> tuple[np.ndarray, np.ndarray]:
        return _origins(self.flow, self.weight.shape[::-1])


def flicker(image: np.ndarray, before: np.ndarray, motion: Motion) -> float | None:
    """Return the warping error of a frame and the one before it minus the source's own, in code values of 255.

    It is negative for frames that are steadier than the source. None if no pixel of the source can be followed.
    """
    error = motion.error(image, before)
    return None if error is None or motion.source_error is None else error - motion.source_error


def _reduced(shape: tuple[int, ...], step: int) -> tuple[int, int]:
    """Return the width and height of a frame of which every ``step``-th pixel is taken."""
    height, width = (-(-side // step) for side in shape[:2])
    return width, height


def _origins(flow: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of the grid, ``size`` wide and high, was in the frame before: x and y in its pixels."""
    width, height = size
    flow = cv2.resize(flow.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    columns, rows = (GRID * np.arange(count, dtype=np.float32) for count in (width, height))
    return flow[:, :, 0] + columns, flow[:, :, 1] + rows[:, None]


def _sampled(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _luma(image: np.ndarray) -> np.ndarray:
    """Return the luma of a frame as 8-bit code values."""
    return np.rint(255 * np.clip(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 0, 1)).astype(np.uint8)
