"""How much the outputs of a faster precision differ from those of fp32 on the same frame."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Parity:
    """The difference between two renders of one frame, in code values of 255; infinite if one is not finite."""

    max: float
    mean: float

    @classmethod
    def between(cls, exact: np.ndarray, other: np.ndarray | None) -> "Parity":
        """Compare two renders of a frame, from black 0 to white 1; values outside are clipped.

        ``other`` is None if its values are not finite.
        """
        if other is None:
            return cls(math.inf, math.inf)
        difference = np.abs(np.clip(exact, 0, 1) - np.clip(other, 0, 1)) * 255
        return cls(round(float(difference.max()), 4), round(float(difference.mean(dtype=np.float64)), 4))

    def is_within(self, tolerance: tuple[float, float]) -> bool:
        """Return whether neither the largest nor the mean difference exceeds ``tolerance``, (max, mean)."""
        return self.max <= tolerance[0] and self.mean <= tolerance[1]
