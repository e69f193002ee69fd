"""Metrics of a single frame: how close it is to its reference, and how it differs from its source.

Every frame is a ``(height, width, 3)`` float32 array of RGB from 0 to 1: code values divided by the largest one. So the
data range in every formula is 1. Metrics are computed on the colour channels and averaged over them, not on luma,
except where a definition says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product

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

TILE = (128, 320)
"""Rows and columns of a frame that SSIM processes at a time, so that all arrays of a tile fit the CPU's cache."""

HIGHLIGHT = 8.0
"""The largest value of a tile that SSIM computes in float32, which is too imprecise for larger ones."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""The exponents of the scales of MS-SSIM, the finest first."""

MS_SSIM_SIDE = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1)
"""Pixels that both sides of a frame must exceed for MS-SSIM, so that the window fits the coarsest scale."""

FINE = 1.5
"""Standard deviation, in pixels, of the blur that removes fine detail."""

FLAT = 1e-6
"""The most fine detail that rounding leaves in a frame of one colour. A single pixel of an 8-bit UHD frame that differs
by one code value has more."""


def compute(image: np.ndarray, other: "np.ndarray | Still", metrics: Sequence[str]) -> dict[str, float | None]:
    """Return the named metrics of a frame and ``other``: its reference, or what is known of its source.

    A metric that is undefined for them is None. SSIM is the first scale of MS-SSIM, so the two are computed together.
    """
    structural: dict[str, float | None] = {}
    if {"ssim", "ms_ssim"} <= {*metrics} and not isinstance(other, Still):
        structural = similarities(image, other, multi_scale=True)
    return {
        name: structural[name] if name in structural else BY_NAME[name].function()(image, other) for name in metrics
    }


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio in dB, at most ``BEST_PSNR``.

    The mean squared error is that over all pixels and channels, and the peak is 1.
    """
    error = cv2.norm(image, reference, cv2.NORM_L2SQR) / image.size
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
    finest, products = 0.0, np.ones(3)
    has_highlights = _largest(image, reference) > HIGHLIGHT
    for scale in range(scales):
        if scale:
            image, reference = _halved(image), _halved(reference)
        is_first, is_last = scale == 0, scale == scales - 1
        with_luminance = is_first or is_last
        similarity, contrast = _similarity(
            image, reference, with_luminance=with_luminance, has_highlights=has_highlights
        )
        if is_first:
            finest = float(similarity.mean())
        products *= np.maximum(similarity if is_last else contrast, 0) ** SCALE_WEIGHTS[scale]
    return {"ssim": finest, "ms_ssim": float(products.mean()) if scales > 1 else None}


def flip(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean of the FLIP error map of Andersson et al. (2020), as NVIDIA's flip-evaluator computes it.

    Frames are interpreted as sRGB, seen at 67 pixels per degree; values are clamped to 0 to 1. Identical frames have 0.
    """
    from flip_evaluator import evaluate

    first, second = (np.ascontiguousarray(np.clip(each, 0, 1), dtype=np.float32) for each in (image, reference))
    _, mean, _ = evaluate(second, first, "LDR", inputsRGB=True, applyMagma=False)
    return float(mean)


@dataclass(frozen=True)
class Still:
    """What ``detail`` and ``clipping`` need of a frame of the source."""

    detail: float
    """Its ``fine_detail``."""
    clipped: float
    """Its percentage of clipped pixels."""

    @classmethod
    def of(cls, image: np.ndarray) -> "Still":
        """Measure a frame."""
        return cls(fine_detail(image), clipped(image))


def detail(image: np.ndarray, source: Still) -> float | None:
    """Return the fine detail of a frame divided by that of its source; None if the source has none."""
    return fine_detail(image) / source.detail if source.detail > FLAT else None


def fine_detail(image: np.ndarray) -> float:
    """Return the root mean square of the luma that a Gaussian blur of 1.5 pixels removes."""
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.norm(luma, cv2.GaussianBlur(luma, (0, 0), FINE), cv2.NORM_L2) / luma.size**0.5


def clipping(image: np.ndarray, source: Still) -> float:
    """Return the percentage of clipped pixels minus that of the source; negative if the frame has fewer."""
    return clipped(image) - source.clipped


def clipped(image: np.ndarray) -> float:
    """Return the percentage of pixels with a channel at or below 0, or at or above 1."""
    lowest, highest = (float(np.nextafter(np.float32(end), np.float32(0.5))) for end in (0, 1))
    pixels = image.shape[0] * image.shape[1]
    return 100 * (1 - cv2.countNonZero(cv2.inRange(image, (lowest,) * 3, (highest,) * 3)) / pixels)


def reduced(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return a frame reduced to the height and width of ``shape`` by averaging blocks of pixels.

    None unless both sides are the same whole number of times larger.
    """
    factor = image.shape[0] // shape[0]
    if factor < 1 or (shape[0] * factor, shape[1] * factor) != image.shape[:2]:
        return None
    return image if factor == 1 else cv2.resize(image, shape[1::-1], interpolation=cv2.INTER_AREA)


def _largest(*images: np.ndarray) -> float:
    """Return the largest absolute value of several frames."""
    return max(cv2.norm(image, cv2.NORM_INF) for image in images)


def _similarity(
    image: np.ndarray, reference: np.ndarray, *, with_luminance: bool, has_highlights: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean similarity of each channel, and its factor for contrast and structure, where the window fits.

    Without luminance, the similarity is not computed, and equals that factor.

    With the sum s and the difference d of both frames, the factor for luminance is 1 - 2 l, where
    l = E(d)² / (E(s)² + E(d)² + 2 c1), and that for contrast and structure 1 - 2 q, where
    q = Var(d) / (Var(s) + Var(d) + 2 c2). Unlike the usual form, this is precise in float32: both are near 1.
    """
    edge = WINDOW // 2
    height, width = image.shape[0] - 2 * edge, image.shape[1] - 2 * edge
    tile = cache(partial(_Tile, min(TILE[0], height) + 2 * edge, min(TILE[1], width) + 2 * edge))
    sums = np.zeros((3, 3))
    for top, left in product(range(0, height, TILE[0]), range(0, width, TILE[1])):
        part = (
            slice(top, min(top + TILE[0], height) + 2 * edge),
            slice(left, min(left + TILE[1], width) + 2 * edge),
        )
        pair = image[part], reference[part]
        dtype = np.float64 if has_highlights and _largest(*pair) > HIGHLIGHT else np.float32
        sums += tile(dtype).sums(*pair, with_luminance=with_luminance)
    luminance, contrast, both = sums / (height * width)
    return 1 - 2 * (luminance + contrast) + 4 * both, 1 - 2 * contrast


class _Tile:
    """The memory in which the tiles of a frame are processed: new memory for each step takes longer than the step."""

    def __init__(self, rows: int, columns: int, dtype: type[np.floating]) -> None:
        self._dtype = dtype
        self._arrays = [np.empty((rows, columns, 3), dtype) for _ in range(7)]
        self._window = cv2.getGaussianKernel(WINDOW, SIGMA)

    def sums(self, image: np.ndarray, reference: np.ndarray, *, with_luminance: bool) -> np.ndarray:
        """Return the sums of l, of q and of their product over the pixels of a tile; see ``_similarity``.

        They are ``(3, channels)``. About the mean of the sum s of both frames is subtracted from it, so that its
        variance is precise; their difference d is near 0 anyway.
        """
        # of some rows only, and of all channels: variances are precise enough if values are anywhere near 0
        middle = float(sum(np.mean(cv2.mean(each[::4])[:3]) for each in (image, reference)))
        image, reference = (each.astype(self._dtype, copy=False) for each in (image, reference))
        height, width = image.shape[:2]
        arrays = [each[:height, :width] for each in self._arrays]
        difference, scratch, mean_s, square_s, variance_s, square_d, variance_d = arrays
        s = cv2.addWeighted(image, 1, reference, 1, -middle, dst=variance_s)
        d = cv2.subtract(image, reference, dst=difference)
        self._moments(s, mean_s, square_s, variance_s, scratch=scratch)
        self._moments(d, square_d, square_d, variance_d, scratch=scratch)
        cv2.addWeighted(variance_s, 1, variance_d, 1, 2 * K2**2, dst=variance_s)
        q = cv2.divide(variance_d, variance_s, dst=variance_d)
        contrast = _inner_sum(q)
        if not with_luminance:
            return np.array([(0, 0, 0), contrast, (0, 0, 0)])
        # the square of the mean of s itself, which is larger than mean_s by the middle
        cv2.addWeighted(square_s, 1, mean_s, 2 * middle, middle**2 + 2 * K1**2, dst=square_s)
        cv2.add(square_s, square_d, dst=square_s)
        luminance = cv2.divide(square_d, square_s, dst=square_d)
        return np.array([_inner_sum(luminance), contrast, _inner_sum(cv2.multiply(luminance, q, dst=scratch))])

    def _moments(
        self, values: np.ndarray, mean: np.ndarray, square: np.ndarray, variance: np.ndarray, *, scratch: np.ndarray
    ) -> None:
        """Compute the windowed mean of ``values``, its square, and the variance, which may take their place."""
        cv2.sepFilter2D(values, -1, self._window, self._window, dst=mean)
        cv2.multiply(values, values, dst=scratch)
        cv2.sepFilter2D(scratch, -1, self._window, self._window, dst=variance)
        cv2.multiply(mean, mean, dst=square)
        cv2.subtract(variance, square, dst=variance)


def _inner_sum(values: np.ndarray) -> Sequence[float]:
    """Return the sum of each channel where the window fits."""
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    return cv2.sumElems(values[inner, inner])[:3]


def _halved(image: np.ndarray) -> np.ndarray:
    """Return the means of 2×2 pixels. An odd side is padded with zeros before its first line, as in pytorch_msssim."""
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = cv2.copyMakeBorder(image, height % 2, 0, width % 2, 0, cv2.BORDER_CONSTANT, value=0)
    return cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
