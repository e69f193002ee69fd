"""PNG files: written faster than libpng writes them, checked by their checksums, their chunks carried over.

Rows are filtered by numpy and deflated by zlib, of which run lengths are all that a noisy frame leaves to find.
https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"

BAND = 64
"""Rows that are filtered at a time, so that they stay in the processor's cache."""

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""How a PNG calls its channels, by their number: grey, grey and alpha, RGB, RGBA."""

COLOUR = ("cICP", "iCCP", "gAMA", "cHRM", "mDCV", "cLLI")
"""Chunks that make a reader show other values than the file holds; sRGB is what readers take for granted."""

CARRIED = (*COLOUR, "sRGB", "pHYs", "tEXt", "zTXt", "iTXt")
"""Chunks that hold true of a frame after it was rendered."""


def chunk(kind: str, *parts: bytes) -> bytes:
    """Give a chunk as it stands in a file."""
    return b"".join(_pieces(kind, *parts))


def _pieces(kind: str, *parts: bytes | bytearray) -> list[bytes | bytearray]:
    length, checksum = sum(map(len, parts)), zlib.crc32(kind.encode("ascii"))
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return [struct.pack(">I", length), kind.encode("ascii"), *parts, struct.pack(">I", checksum)]


def aspect(ratio: float) -> bytes:
    """Give the content of a pHYs chunk for pixels that are ``ratio`` times as wide as high."""
    return struct.pack(">IIB", 10_000, round(10_000 * ratio), 0)


def chunks(data: bytes) -> Iterator[tuple[str, memoryview]]:
    """Give kind and content of each chunk of a file, in order.

    Raises ValueError, saying what is wrong, when a checksum does not match or the file ends before its end mark.
    """
    whole, place, kind = memoryview(data), len(SIGNATURE), ""
    while kind != "IEND":
        header = whole[place : place + 8]
        length = struct.unpack(">I", header[:4])[0] if len(header) == 8 else 0
        tagged, checksum = whole[place + 4 : place + 8 + length], whole[place + 8 + length : place + 12 + length]
        if len(header) < 8 or len(checksum) < 4:
            raise ValueError("it is truncated")
        if zlib.crc32(tagged) != struct.unpack(">I", checksum)[0]:
            raise ValueError("it is damaged: a checksum does not match")
        kind = bytes(tagged[:4]).decode("latin-1")
        yield kind, tagged[4:]
        place += 12 + length


def encode(pixels: np.ndarray, *, compression: str, carried: Iterable[bytes] = ()) -> bytes:
    """Give the file of ``pixels``: uint8 or uint16 ``(height, width, channels)``, of 1 to 4 channels.

    ``compression`` is a key of WAYS. ``carried`` are whole chunks, to stand before the pixels.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
    image = min((_deflated(pixels, *way) for way in WAYS[compression]), key=len)
    return b"".join([SIGNATURE, chunk("IHDR", header), *carried, *_pieces("IDAT", image), chunk("IEND")])


def _deflated(pixels: np.ndarray, predict: "Predictor", level: int, strategy: int) -> bytearray:
    step = pixels.shape[2] * pixels.itemsize
    deflate = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, strategy)
    result = bytearray()
    before = np.zeros((1, pixels.shape[1] * step), np.uint8)
    for top in range(0, len(pixels), BAND):
        band = pixels[top : top + BAND]
        ordered = np.ascontiguousarray(band, band.dtype.newbyteorder(">"))
        rows = ordered.view(np.uint8).reshape(len(band), -1)
        above = np.concatenate([before, rows[:-1]])
        result += deflate.compress(predict(rows, above, step))
        before = rows[-1:]
    result += deflate.flush()
    return result


def _average(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Filter rows of bytes by the mean of the pixels to the left and above: PNG's filter 3, without its loop."""
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    result[:, 0] = 3
    result[:, 1 : 1 + step] = rows[:, :step] - (above[:, :step] >> 1)
    left, up = rows[:, :-step], above[:, step:]
    np.subtract(rows[:, step:], (left & up) + ((left ^ up) >> 1), out=result[:, 1 + step :])
    return result


def _paeth(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Filter rows of bytes by the nearest of the pixels to the left, above and between: PNG's filter 4."""
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    result[:, 0] = 4
    result[:, 1 : 1 + step] = rows[:, :step] - above[:, :step]
    left, up, corner = (part.astype(np.int16) for part in (rows[:, :-step], above[:, step:], above[:, :-step]))
    to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
    nearer = np.where(to_up <= to_corner, up, corner)
    nearest = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearer)
    np.subtract(rows[:, step:], nearest.astype(np.uint8), out=result[:, 1 + step :])
    return result


Predictor = type(_average)

WAYS = {
    "fast": ((_average, 1, zlib.Z_RLE),),
    "small": ((_average, 1, zlib.Z_RLE), (_paeth, 6, zlib.Z_DEFAULT_STRATEGY)),
}
"""Filter, zlib level and strategy to try, the smallest file wins; measured by ``benchmarks/encoding.py``."""
