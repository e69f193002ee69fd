"""The perceptual metric FLIP, whose package is an extra. Frames are as in ``quality``."""

import numpy as np


def flip(image: np.ndarray, reference: np.ndarray) -> float:
    """Give the mean of the FLIP error map of Andersson et al. (2020), as NVIDIA's flip-evaluator computes it.

    Frames are taken for sRGB at 67 pixels per degree of sight, values are clamped to 0 to 1; 0 for equal frames.
    """
    from flip_evaluator import evaluate

    first, second = (np.ascontiguousarray(np.clip(each, 0, 1), dtype=np.float32) for each in (image, reference))
    _, mean, _ = evaluate(second, first, "LDR", inputsRGB=True, applyMagma=False)
    return float(mean)
