"""Plain pictures: frames of the kinds that OpenImageIO reads wrong or not at all, and that are read without it."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Plain:
    """A decoded picture of integers: grey or RGB, with or without alpha."""

    values: np.ndarray
    """``(height, width, channels)``, 1 to 4 channels: uint8, or uint16 from 0 to 65535."""
    bits: int
    """Bits per channel, as in the file."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was read."""
    revision: str = ""
    """What was changed about reading such a file since frames were first rendered from it: part of a frame's key."""

    @property
    def has_alpha(self) -> bool:
        return self.values.shape[2] in {2, 4}

    @property
    def mode(self) -> str:
        """L, LA, RGB or RGBA."""
        return ("L", "LA", "RGB", "RGBA")[self.values.shape[2] - 1]


def expanded(codes: np.ndarray, bits: int, *, deep: bool | None = None) -> np.ndarray:
    """Repeat the bits of integers until all of 8 are filled, or of 16 where there are more or ``deep`` says so.

    0 stays 0 and the largest code becomes the largest: https://www.w3.org/TR/png-3/#13Sample-depth-scaling
    """
    width = 16 if (bits > 8 if deep is None else deep) else 8
    codes = codes.astype(np.uint32)
    if bits > width:
        return (codes >> (bits - width)).astype(f"uint{width}")
    result, place = np.zeros_like(codes), width - bits
    while place > -bits:
        result |= codes << place if place >= 0 else codes >> -place
        place -= bits
    return result.astype(f"uint{width}")
