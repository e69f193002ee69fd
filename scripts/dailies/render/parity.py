"""Parity: how far a faster precision departs from fp32."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parity:
    """How far a precision is from fp32 on one frame, in code values of 255; infinite where its output is not finite."""

    max: float
    mean: float


def _parity(exact: np.ndarray, other: np.ndarray | None) -> Parity:
    if other is None:
        return Parity(math.inf, math.inf)
    difference = np.abs(np.clip(exact, 0, 1) - np.clip(other, 0, 1)) * 255
    return Parity(round(float(difference.max()), 4), round(float(difference.mean(dtype=np.float64)), 4))
