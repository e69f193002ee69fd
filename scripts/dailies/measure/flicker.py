"""Motion: where each pixel of a frame was in the frame before, and how much a sequence flickers along it."""

import cv2
import numpy as np

LEAST = 32
"""Pixels along the shorter side of a frame, below which no flow is looked for: OpenCV 5.0.0 crashes on wide ones."""

STEP = 4
"""A flow is kept at a quarter of the frame's size: finer scales are not searched by OpenCV's fast preset either."""

SMOOTH, TRUST = 2.0, 50.0
"""Blur, in pixels, under which the source's two frames are compared, so that grain does not count as occlusion; and how
fast a pixel that differs loses its weight, as in Lai et al., Learning Blind Video Temporal Consistency (2018)."""


def flow(source: np.ndarray, before: np.ndarray) -> np.ndarray | None:
    """Find the motion from a frame of the source to the one before it, by dense inverse search (DIS).

    Frames are ``(height, width, 3)`` float32 from 0 to 1. Returns ``(height / 4, width / 4, 2)`` float16, rounded up:
    dx and dy in pixels of the frame; None where the frames differ in size or are smaller than 32 pixels.
    """
    if source.shape != before.shape or min(source.shape[:2]) < LEAST:
        return None
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    found = finder.calc(_luma(source), _luma(before), None)
    height, width = (-(-side // STEP) for side in source.shape[:2])
    return cv2.resize(found, (width, height), interpolation=cv2.INTER_AREA).astype(np.float16)


def _luma(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 0, 1)).astype(np.uint8)


class Path:
    """The way that the source's pixels went from the frame before; all models are judged along it."""

    def __init__(self, moved: np.ndarray, source: np.ndarray, before: np.ndarray) -> None:
        """Take the ``flow`` from ``source`` to the frame ``before``."""
        height, width = source.shape[:2]
        moved = cv2.resize(moved.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        self._x = moved[:, :, 0] + np.arange(width, dtype=np.float32)
        self._y = moved[:, :, 1] + np.arange(height, dtype=np.float32)[:, None]
        inside = (self._x >= 0) & (self._x <= width - 1) & (self._y >= 0) & (self._y <= height - 1)
        change = cv2.GaussianBlur(source - self._followed(before), (0, 0), SMOOTH)
        self._weight = inside * np.exp(-TRUST * np.square(change).sum(axis=2))
        self.own = self.error(source, before)
        """The warping error of the source itself, in code values of 255; None where nothing can be followed."""

    def error(self, image: np.ndarray, before: np.ndarray) -> float | None:
        """Give the mean change of a pixel along the way, in code values of 255, weighted by how sure the way is."""
        total = self._weight.sum(dtype=np.float64)
        if total < 1:
            return None
        change = np.abs(image - self._followed(before)).mean(axis=2)
        return 255 * float((self._weight * change).sum(dtype=np.float64) / total)

    def flicker(self, image: np.ndarray, before: np.ndarray) -> float | None:
        """Give the warping error beyond the source's own, in code values of 255; less than 0 for what is steadier."""
        error = self.error(image, before)
        return None if error is None else error - self.own

    def _followed(self, before: np.ndarray) -> np.ndarray:
        return cv2.remap(before, self._x, self._y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
