"""Quality: how close a frame comes to another one, and what shows without one.

Frames are ``(height, width, 3)``, float32, RGB, 0 to 1 whatever the depth of their files: code values over the largest.
The range of data in every formula is therefore 1. Metrics are over the colour channels and their mean, not over luma,
except where a definition says so.
"""

from collections.abc import Callable, Collection, Mapping

import cv2
import numpy as np


def flip(image: np.ndarray, reference: np.ndarray) -> float:
    """Give the mean of the FLIP error map of Andersson et al. (2020), as NVIDIA's flip-evaluator computes it.

    Frames are taken for sRGB at 67 pixels per degree of sight, values are clamped to 0 to 1; 0 for equal frames.
    """
    from flip_evaluator import evaluate

    first, second = (np.ascontiguousarray(np.clip(each, 0, 1), dtype=np.float32) for each in (image, reference))
    _, mean, _ = evaluate(second, first, "LDR", inputsRGB=True, applyMagma=False)
    return float(mean)


cv2.setNumThreads(1)  # frames are measured side by side, and a job has its own count of threads

BEST_PSNR = 100.0
"""dB: what identical frames have, whose PSNR is infinite. Rounding to 8 bits alone leaves 59 dB, to 16 bits 107."""

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation, in pixels, of the Gaussian window of SSIM."""

K1, K2 = 0.01, 0.03

STRIP = 48
"""Rows of a frame that SSIM takes at once."""

SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales of MS-SSIM."""

LEAST_SCALES = (WINDOW - 1) * 2 ** (len(SCALES) - 1)
"""Both sides of a frame must be longer for MS-SSIM, so that the window fits the smallest scale."""

FINE = 1.5
"""Standard deviation, in pixels, of the blur that fine detail does not survive."""

FLAT = 1e-6
"""Fine detail that a frame of one colour has at most, for its blur is rounded; one pixel of an 8-bit UHD frame that is
off by one code value makes more."""


def compared(image: np.ndarray, reference: np.ndarray, metrics: Collection[str]) -> dict[str, float | None]:
    """Give the named metrics of a frame and its reference; None for one that such frames cannot have."""
    found: dict[str, float | None] = {}
    if {"ssim", "ms_ssim"} & {*metrics}:
        found |= structure(image, reference, scales=len(SCALES) if "ms_ssim" in metrics else 1)
    single = {name: WITH_REFERENCE[name](image, reference) for name in metrics if name in WITH_REFERENCE}
    return {name: (found | single)[name] for name in metrics}


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Give the peak signal-to-noise ratio in dB: of the mean squared error over all pixels and channels, peak 1.

    It is at most ``BEST_PSNR``.
    """
    error = np.square(np.subtract(image, reference, dtype=np.float64)).mean()
    return min(BEST_PSNR, float(-10 * np.log10(error))) if error > 0 else BEST_PSNR


def ssim(image: np.ndarray, reference: np.ndarray) -> float | None:
    """Give the structural similarity of Wang et al. (2004), the mean over the channels; None below 11 pixels a side.

    It is scikit-image's with ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1,
    channel_axis=2``.
    """
    return structure(image, reference, scales=1)["ssim"]


def ms_ssim(image: np.ndarray, reference: np.ndarray) -> float | None:
    """Give the multi-scale structural similarity of Wang et al. (2003), the mean over the channels.

    It is pytorch_msssim's: five scales, each half the size of the one before by 2×2 means. None where a side has at
    most 160 pixels.
    """
    return structure(image, reference, scales=len(SCALES))["ms_ssim"]


def structure(image: np.ndarray, reference: np.ndarray, *, scales: int) -> dict[str, float | None]:
    """Give ``ssim``, and with all ``scales`` ``ms_ssim``, whose first scale it is."""
    least = min(image.shape[:2])
    if least < WINDOW:
        return {"ssim": None, "ms_ssim": None}
    if least <= LEAST_SCALES:
        scales = 1
    found = [_channel(image[:, :, channel], reference[:, :, channel], scales) for channel in range(3)]
    single, several = (float(np.mean(values)) for values in zip(*found, strict=True))
    return {"ssim": single, "ms_ssim": several if scales > 1 else None}


def _channel(image: np.ndarray, reference: np.ndarray, scales: int) -> tuple[float, float]:
    """Give SSIM and MS-SSIM of one channel."""
    x, y = (np.ascontiguousarray(plane, dtype=np.float64) for plane in (image, reference))
    whole, product = 0.0, 1.0
    for scale in range(scales):
        if scale:
            x, y = _halved(x), _halved(y)
        similarity, contrast = _similarity(x, y)
        if scale == 0:
            whole = similarity
        value = similarity if scale == scales - 1 else contrast
        product *= max(value, 0.0) ** SCALES[scale]
    return whole, product


def _similarity(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Give the mean similarity of two planes, and that of contrast and structure alone, where the window is whole.

    It goes by strips that fit the processor's cache, which is twice as fast.
    """
    edge = WINDOW // 2
    height, width = x.shape[0] - 2 * edge, x.shape[1] - 2 * edge
    sums = np.zeros(2)
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height) + 2 * edge)
        sums += _sums(x[rows], y[rows], edge)
    similarity, contrast = sums / (height * width)
    return float(similarity), float(contrast)


def _sums(x: np.ndarray, y: np.ndarray, edge: int) -> tuple[float, float]:
    window = cv2.getGaussianKernel(WINDOW, SIGMA)

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(plane, -1, window, window)[edge:-edge, edge:-edge]

    mean_x, mean_y = mean(x), mean(y)
    product = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    variance = mean(x * x + y * y) - squares  # of both together, which is all that the formula needs
    covariance = mean(x * y) - product
    contrast = (2 * covariance + K2**2) / (variance + K2**2)
    luminance = (2 * product + K1**2) / (squares + K1**2)
    return (luminance * contrast).sum(), contrast.sum()


def _halved(plane: np.ndarray) -> np.ndarray:
    """Give the means of 2×2 pixels; an odd side is preceded by a line of zeros, as pytorch_msssim has it."""
    height, width = plane.shape
    plane = np.pad(plane, ((height % 2, 0), (width % 2, 0)))
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4


def fine_detail(image: np.ndarray) -> float:
    """Give the root mean square of what a blur of 1.5 pixels takes from the luma."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(np.sqrt(np.square(luma - cv2.GaussianBlur(luma, (0, 0), FINE), dtype=np.float64).mean()))


def detail(image: np.ndarray, source: np.ndarray) -> float | None:
    """Give the fine detail of a frame over that of its source; None where the source has none."""
    own = fine_detail(source)
    return fine_detail(image) / own if own > FLAT else None


def clipped(image: np.ndarray) -> float:
    """Give the share of pixels, in percent, with a channel at 0 or less, or at 1 or more."""
    return 100 * float(((image <= 0) | (image >= 1)).any(axis=2).mean())


def clipping(image: np.ndarray, source: np.ndarray) -> float:
    """Give the share of clipped pixels beyond the source's, in percent; less than 0 where there are fewer."""
    return clipped(image) - clipped(source)


def fitted(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Bring a frame that is a whole number of times larger to a size, by means; None where it is of another shape."""
    factor = image.shape[0] // shape[0]
    if factor < 1 or (shape[0] * factor, shape[1] * factor) != image.shape[:2]:
        return None
    return image if factor == 1 else cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_AREA)


STILL: Mapping[str, Callable[[np.ndarray, np.ndarray], float | None]] = {"detail": detail, "clipping": clipping}
"""What is measured of a frame and its source."""

WITH_REFERENCE: Mapping[str, Callable[[np.ndarray, np.ndarray], float | None]] = {
    "psnr": psnr,
    "flip": flip,
}
"""What is measured of a frame and its reference, beside the similarities of structure, which are measured together."""
