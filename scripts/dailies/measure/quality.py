"""Metrics of a single frame: how close it is to its reference, and how it differs from its source.

Every frame is a ``(height, width, 3)`` float32 array of RGB from 0 to 1: code values divided by the largest one. So the
data range in every formula is 1. Metrics are computed on the colour channels and averaged over them, not on luma,
except where a definition says otherwise.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from dailies.measure.metrics import BY_NAME

cv2.setNumThreads(1)  # a job measures several frames in parallel, in as many threads as it was assigned

BEST_PSNR = 100.0
"""The value for identical frames, in dB; their PSNR is infinite. Rounding to 8 bits gives 59 dB, to 16 bits 107."""

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation, in pixels, of the Gaussian window of SSIM."""

K1, K2 = 0.01, 0.03
"""The constants that stabilise SSIM where means and variances are near 0."""

STRIP = 48
"""Rows of a frame that SSIM processes at a time. Strips that fit the CPU cache make it twice as fast."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of the scales of MS-SSIM, the finest first."""

MS_SSIM_SIDE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Pixels that both sides of a frame must exceed for MS-SSIM, so that the window fits the coarsest scale."""

FINE = 1.5
"""Standard deviation, in pixels, of the blur that removes fine detail."""

FLAT = 1e-6
"""The most fine detail that rounding leaves in a frame of one colour. A single pixel of an 8-bit UHD frame that differs
by one code value has more."""


def compute(image: np.ndarray, other: np.ndarray, metrics: Sequence[str]) -> dict[str, float | None]:
    """Return the named metrics of a frame and its reference, or its source; None for one that is undefined for them.

    SSIM is the first scale of MS-SSIM, so the two are computed together.
    """
    structural = similarities(image, other, multi_scale=True) if {"ssim", "ms_ssim"} <= {*metrics} else {}
    return {
        name: structural[name] if name in structural else BY_NAME[name].function()(image, other) for name in metrics
    }


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, at most ``BEST_PSNR``.

    The mean squared error is that over all pixels and channels, and the peak is 1.
    """
    error = np.square(np.subtract(image, reference, dtype=np.float64)).mean()
    return min(BEST_PSNR, float(-10 * np.log10(error))) if error > 0 else BEST_PSNR


def ssim(image: np.ndarray, reference: np.ndarray) -> float | None:
    """Return the structural similarity of Wang et al. (2004), averaged over the channels.

    It equals scikit-image's ``structural_similarity`` with ``gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1, channel_axis=2``. None if a side is shorter than 11 pixels.
    """
    return similarities(image, reference, multi_scale=False)["ssim"]


def ms_ssim(image: np.ndarray, reference: np.ndarray) -> float | None:
    """Return the multi-scale structural similarity of Wang et al. (2003), averaged over the channels.

    It equals pytorch_msssim's: five scales, each made by averaging 2×2 pixels of the one before. None if a side has at
    most 160 pixels.
    """
    return similarities(image, reference, multi_scale=True)["ms_ssim"]


def similarities(image: np.ndarray, reference: np.ndarray, *, multi_scale: bool) -> dict[str, float | None]:
    """Return ``ssim``, and ``ms_ssim`` if it is wanted and the frames are large enough; None for what is undefined."""
    shortest = min(image.shape[:2])
    if shortest < WINDOW:
        return {"ssim": None, "ms_ssim": None}
    scales = len(SCALE_WEIGHTS) if multi_scale and shortest > MS_SSIM_SIDE else 1
    channels = [_channel(image[:, :, channel], reference[:, :, channel], scales) for channel in range(3)]
    single, multi = (float(np.mean(values)) for values in zip(*channels, strict=True))
    return {"ssim": single, "ms_ssim": multi if scales > 1 else None}


def flip(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean of the FLIP error map of Andersson et al. (2020), as NVIDIA's flip-evaluator computes it.

    Frames are interpreted as sRGB, seen at 67 pixels per degree; values are clamped to 0 to 1. Identical frames have 0.
    """
    from flip_evaluator import evaluate

    first, second = (np.ascontiguousarray(np.clip(each, 0, 1), dtype=np.float32) for each in (image, reference))
    _, mean, _ = evaluate(second, first, "LDR", inputsRGB=True, applyMagma=False)
    return float(mean)


def detail(image: np.ndarray, source: np.ndarray) -> float | None:
    """Return the fine detail of a frame divided by that of its source; None if the source has none."""
    of_source = fine_detail(source)
    return fine_detail(image) / of_source if of_source > FLAT else None


def fine_detail(image: np.ndarray) -> float:
    """Return the root mean square of the luma that a Gaussian blur of 1.5 pixels removes."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(np.sqrt(np.square(luma - cv2.GaussianBlur(luma, (0, 0), FINE), dtype=np.float64).mean()))


def clipping(image: np.ndarray, source: np.ndarray) -> float:
    """Return the percentage of clipped pixels minus that of the source; negative if the frame has fewer."""
    return clipped(image) - clipped(source)


def clipped(image: np.ndarray) -> float:
    """Return the percentage of pixels with a channel at or below 0, or at or above 1."""
    return 100 * float(((image <= 0) | (image >= 1)).any(axis=2).mean())


def reduced(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a frame reduced to the height and width of ``shape`` by averaging blocks of pixels.

    None unless both sides are the same whole number of times larger.
    """
    factor = image.shape[0] // shape[0]
    if factor < 1 or (shape[0] * factor, shape[1] * factor) != image.shape[:2]:
        return None
    return image if factor == 1 else cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_AREA)


def _channel(image: np.ndarray, reference: np.ndarray, scales: int) -> tuple[float, float]:
    """Return SSIM and MS-SSIM of one channel."""
    x, y = (np.ascontiguousarray(plane, dtype=np.float64) for plane in (image, reference))
    finest, product = 0.0, 1.0
    for scale in range(scales):
        if scale:
            x, y = _halved(x), _halved(y)
        similarity, contrast = _similarity(x, y)
        if scale == 0:
            finest = similarity
        value = similarity if scale == scales - 1 else contrast
        product *= max(value, 0.0) ** SCALE_WEIGHTS[scale]
    return finest, product


def _similarity(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return the mean similarity of two planes, and its factor for contrast and structure, where the window fits."""
    edge = WINDOW // 2
    height, width = x.shape[0] - 2 * edge, x.shape[1] - 2 * edge
    sums = np.zeros(2)
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height) + 2 * edge)
        sums += _sums(x[rows], y[rows], edge)
    similarity, contrast = sums / (height * width)
    return float(similarity), float(contrast)


def _sums(x: np.ndarray, y: np.ndarray, edge: int) -> tuple[float, float]:
    """Return the sums, over the pixels of a strip, of both results of ``_similarity``."""
    window = cv2.getGaussianKernel(WINDOW, SIGMA)

    def mean(plane: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(plane, -1, window, window)[edge:-edge, edge:-edge]

    mean_x, mean_y = mean(x), mean(y)
    product = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    variance = mean(x * x + y * y) - squares  # the sum of both variances, which is all that the formula needs
    covariance = mean(x * y) - product
    contrast = (2 * covariance + K2**2) / (variance + K2**2)
    luminance = (2 * product + K1**2) / (squares + K1**2)
    return float((luminance * contrast).sum()), float(contrast.sum())


def _halved(plane: np.ndarray) -> np.ndarray:
    """Return the means of 2×2 pixels. An odd side is padded with zeros before its first line, as in pytorch_msssim."""
    height, width = plane.shape
    plane = np.pad(plane, ((height % 2, 0), (width % 2, 0)))
    return (plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4
