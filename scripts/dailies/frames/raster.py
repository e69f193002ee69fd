"""The pixels that our own BMP and DPX readers return, for files that OpenImageIO reads wrongly or not at all."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Raster:
    """A decoded picture with integer values: grey or RGB, with or without alpha."""

    values: np.ndarray
    """``(height, width, channels)`` with 1 to 4 channels: uint8, or uint16 that fills 0 to 65535."""
    bits: int
    """Bits per channel, as in the file."""
    notes: tuple[str, ...] = ()
    """Remarks for the user on how it was read."""
    revision: str = ""
    """Part of a frame's key: names the change since the first release in how such a file is read; empty if none."""

    @property
    def has_alpha(self) -> bool:
        return self.values.shape[2] in {2, 4}

    @property
    def mode(self) -> str:
        """L, LA, RGB or RGBA."""
        return ("L", "LA", "RGB", "RGBA")[self.values.shape[2] - 1]


def expand_bits(codes: np.ndarray, bits: int, *, deep: bool | None = None) -> np.ndarray:
    """Expand codes of ``bits`` bits to uint8, or to uint16 if there are more than 8 or ``deep`` is true.

    The bits are repeated, so that 0 stays 0 and the largest code becomes the largest value:
    https://www.w3.org/TR/png-3/#13Sample-depth-scaling
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
