"""Perceptual metrics beyond structure: GMSD and HaarPSI, which need no weights, and FLIP, whose package is an extra.

Frames are ``(height, width, 3)``, float32, RGB, 0 to 1, as in ``quality``. Planes are float64.
"""

import cv2
import numpy as np

GMSD_SIMILAR = 170 / 255**2
"""The constant of GMSD, which its authors give for 0 to 255."""

HAAR_SIMILAR, HAAR_SHARP = 30.0, 4.2
"""C and alpha of HaarPSI, for 0 to 255."""

HAAR_LEAST = 16
"""Pixels along the shorter side of a frame that HaarPSI needs."""

LUMA = (0.299, 0.587, 0.114)

CHROMA = ((0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""I and Q of the YIQ colour space."""


def gmsd(image: np.ndarray, reference: np.ndarray) -> float:
    """Give the gradient magnitude similarity deviation of Xue et al. (2014): 0 for equal frames, less is better.

    It is piq's: on luma, halved by means.
    """
    first, second = (_gradient(_halved(_plane(each, LUMA))) for each in (image, reference))
    return float(_similar(first, second, GMSD_SIMILAR).std())


def _gradient(plane: np.ndarray) -> np.ndarray:
    ones, slope = np.full(3, 1 / 3), np.array([-1.0, 0.0, 1.0])
    across = cv2.sepFilter2D(plane, -1, slope, ones, borderType=cv2.BORDER_CONSTANT)
    down = cv2.sepFilter2D(plane, -1, ones, slope, borderType=cv2.BORDER_CONSTANT)
    return np.hypot(across, down)


def haarpsi(image: np.ndarray, reference: np.ndarray) -> float | None:
    """Give the Haar wavelet perceptual similarity of Reisenhofer et al. (2018): 1 for equal frames.

    It is piq's: in YIQ, halved by means; but for two black frames, which are equal. None where a side is shorter than
    16 pixels.
    """
    if min(image.shape[:2]) < HAAR_LEAST:
        return None
    first, second = (_halved(_plane(each, LUMA) * 255) for each in (image, reference))
    total = weight = 0.0
    weights = []
    for upright in (False, True):
        pairs = [(_haar(first, size, upright=upright), _haar(second, size, upright=upright)) for size in (2, 4, 8)]
        weights.append(np.maximum(*pairs[2]))
        local = sum(_similar(*pair, HAAR_SIMILAR) for pair in pairs[:2]) / 2
        total, weight = total + (_sigmoid(local) * weights[-1]).sum(), weight + weights[-1].sum()
    if not weight:
        return 1.0
    both = sum(weights) / 2
    chroma = [[_smooth(_halved(_plane(each, axis) * 255)) for each in (image, reference)] for axis in CHROMA]
    local = sum(_similar(*pair, HAAR_SIMILAR) for pair in chroma) / 2
    total, weight = total + (_sigmoid(local) * both).sum(), weight + both.sum()
    tiny = np.finfo(np.float64).eps
    score = (total + tiny) / (weight + tiny)
    return float((np.log(score / (1 - score)) / HAAR_SHARP) ** 2)


def _haar(plane: np.ndarray, size: int, *, upright: bool) -> np.ndarray:
    """Give the magnitude of a Haar wavelet's answer: a difference of two halves of a square of ``size`` pixels."""
    ones, halves = np.ones(size), np.repeat([1.0, -1.0], size // 2) / size
    across, down = (halves, ones) if upright else (ones, halves)
    anchor = (size // 2 - 1,) * 2
    return np.abs(cv2.sepFilter2D(plane, -1, across, down, anchor=anchor, borderType=cv2.BORDER_CONSTANT))


def _smooth(plane: np.ndarray) -> np.ndarray:
    half = np.full(2, 0.5)
    return np.abs(cv2.sepFilter2D(plane, -1, half, half, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT))


def _sigmoid(similarity: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-HAAR_SHARP * similarity))


def _similar(first: np.ndarray, second: np.ndarray, constant: float) -> np.ndarray:
    return (2 * first * second + constant) / (first**2 + second**2 + constant)


def _plane(image: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    return image.astype(np.float64) @ np.array(weights)


def _halved(plane: np.ndarray) -> np.ndarray:
    """Give the means of 2×2 pixels; an odd side is followed by a line of zeros, as piq has it."""
    height, width = plane.shape
    plane = np.pad(plane, ((0, height % 2), (0, width % 2)))
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def flip(image: np.ndarray, reference: np.ndarray) -> float:
    """Give the mean of the FLIP error map of Andersson et al. (2020), as NVIDIA's flip-evaluator computes it.

    Frames are taken for sRGB at 67 pixels per degree of sight, values are clamped to 0 to 1; 0 for equal frames.
    """
    from flip_evaluator import evaluate

    first, second = (np.ascontiguousarray(np.clip(each, 0, 1), dtype=np.float32) for each in (image, reference))
    _, mean, _ = evaluate(second, first, "LDR", inputsRGB=True, applyMagma=False)
    return float(mean)
