"""Optical flow of the source, and how much a model's frames flicker along it."""

import cv2
import numpy as np

SHORTEST = 32
"""Pixels of the shorter side below which no flow is computed: OpenCV 5.0.0 crashes on small, wide frames."""

STEP = 4
"""A flow is stored at a quarter of the frame's size. OpenCV's fast preset does not search finer scales either."""

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
    height, width = (-(-side // STEP) for side in source.shape[:2])
    return cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA).astype(np.float16)


class Motion:
    """The motion of the source's pixels from one frame to the next, along which all models are measured."""

    def __init__(self, flow: np.ndarray, source: np.ndarray, before: np.ndarray) -> None:
        """Take the ``flow`` from the frame ``source`` to the one ``before`` it."""
        height, width = source.shape[:2]
        flow = cv2.resize(flow.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        self._x = flow[:, :, 0] + np.arange(width, dtype=np.float32)
        self._y = flow[:, :, 1] + np.arange(height, dtype=np.float32)[:, None]
        inside = (self._x >= 0) & (self._x <= width - 1) & (self._y >= 0) & (self._y <= height - 1)
        change = cv2.GaussianBlur(source - self._warped(before), (0, 0), BLUR)
        self._weight = inside * np.exp(-FALLOFF * np.square(change).sum(axis=2))
        self.source_error = self.error(source, before)
        """The warping error of the source itself, in code values of 255; None if no pixel can be followed."""

    def error(self, image: np.ndarray, before: np.ndarray) -> float | None:
        """Return the warping error: the mean change of a pixel along the motion, in code values of 255.

        A pixel counts less the less certain its motion is. None if no pixel can be followed.
        """
        total = self._weight.sum(dtype=np.float64)
        if total < 1:
            return None
        change = np.abs(image - self._warped(before)).mean(axis=2)
        return 255 * float((self._weight * change).sum(dtype=np.float64) / total)

    def _warped(self, before: np.ndarray) -> np.ndarray:
        return cv2.remap(before, self._x, self._y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flicker(image: np.ndarray, before: np.ndarray, motion: Motion) -> float | None:
    """Return the warping error of a frame and the one before it minus the source's own, in code values of 255.

    It is negative for frames that are steadier than the source. None if no pixel of the source can be followed.
    """
    error = motion.error(image, before)
    return None if error is None or motion.source_error is None else error - motion.source_error


def _luma(image: np.ndarray) -> np.ndarray:
    """Return the luma of a frame as 8-bit code values."""
    return np.rint(255 * np.clip(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 0, 1)).astype(np.uint8)
