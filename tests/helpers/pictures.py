"""Pictures with shapes and texture, distorted ones, and what scikit-image measures of them."""

import cv2
import numpy as np
from skimage.metrics import structural_similarity

KINDS = ("noise", "blur", "dark", "tint")


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A frame with soft shapes and fine texture, float32 from 0 to 1."""
    rng = np.random.default_rng(seed)
    soft = cv2.GaussianBlur(rng.random((*size, 3), dtype=np.float32), (0, 0), 6)
    soft = (soft - soft.min()) / (soft.max() - soft.min())
    return np.clip(0.8 * soft + 0.2 * rng.random((*size, 3), dtype=np.float32), 0, 1)


def distorted(image: np.ndarray, kind: str, amount: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(1)
    if kind == "noise":
        return np.clip(image + amount * rng.standard_normal(image.shape, dtype=np.float32), 0, 1)
    if kind == "blur":
        return cv2.GaussianBlur(image, (0, 0), 2)
    if kind == "dark":
        return image * np.float32(0.7)
    return np.clip(image * np.array([1, 0.8, 1.1], np.float32), 0, 1)


def wang(image: np.ndarray, reference: np.ndarray, data_range: float) -> float:
    if image.dtype == np.float32:  # it would compute in float32 itself
        image, reference = image.astype(np.float64), reference.astype(np.float64)
    return structural_similarity(
        image,
        reference,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
        channel_axis=2,
    )
