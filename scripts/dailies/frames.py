"""Frames between files and arrays: 8 bits per channel, RGB, shape (height, width, 3)."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from dailies.errors import SequenceError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
"""What a frame may hold, whatever its name ends in."""

COMPRESSION = 1
"""zlib level of written frames: measured on a noisy 1080p frame 170 ms and 3.25 MB; level 6: 769 ms, 2.85 MB."""

PNG_BIT_DEPTH = 24
"""Where a PNG keeps its bit depth: in the header chunk, which always comes first."""

TIFF_BITS_PER_SAMPLE = 258
"""The tag that holds a TIFF's bit depth, one number per channel."""


@dataclass(frozen=True)
class Header:
    """What a frame says of itself."""

    width: int
    height: int
    mode: str
    """Pillow's name for the kind of pixels, such as RGB or L."""
    bit_depth: int
    """Bits per channel."""


def inspect(data: bytes, name: str) -> Header:
    """Decode a whole frame to be sure that it can be rendered, and describe it.

    Raises SequenceError, naming the frame, when it cannot be decoded, is truncated or damaged, or holds more than
    8 bits per channel.
    """
    with _naming(name, data):
        Image.open(io.BytesIO(data), formats=FORMATS).verify()  # a PNG's checksums, which decoding passes over
        image = _opened(data, name)
        image.convert("RGB")
        return Header(image.width, image.height, image.mode, _bit_depth(image, data))


def decode(data: bytes, name: str) -> np.ndarray:
    """Give a frame as uint8 RGB of shape (height, width, 3), values 0 to 255.

    Grey and palette frames are expanded, CMYK is converted, alpha is dropped. Raises SequenceError as ``inspect``
    does.
    """
    with _naming(name, data):
        return np.asarray(_opened(data, name).convert("RGB"))


def encode(frame: np.ndarray) -> bytes:
    """Give the bytes of a lossless PNG for a uint8 RGB array of shape (height, width, 3)."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG", compress_level=COMPRESSION)
    return buffer.getvalue()


def _opened(data: bytes, name: str) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    bits = _bit_depth(image, data)
    if bits > 8:
        raise SequenceError(
            f"frame {name} has {bits} bits per channel; only frames of 8 can be rendered without loss, convert it first"
        )
    return image


def _bit_depth(image: Image.Image, data: bytes) -> int:
    # Pillow reads 16-bit RGB as 8-bit without a word: only the file tells
    if image.format == "PNG":
        return data[PNG_BIT_DEPTH]
    if image.format == "TIFF":
        return max(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,)))
    return 8


@contextmanager
def _naming(name: str, data: bytes) -> Iterator[None]:
    """Turn whatever Pillow makes of a bad frame into a SequenceError that names the frame."""
    try:
        yield
    except SequenceError:
        raise
    except UnidentifiedImageError as error:
        reason = "it is not a PNG, JPEG, BMP or TIFF image" if data else "it is empty"
        raise SequenceError(f"frame {name} cannot be read: {reason}") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything, TypeError included
        raise SequenceError(f"frame {name} cannot be read: {error}") from error
