"""PNG files: read and written faster than libpng does, checked by their checksums, their chunks carried over.

Rows are filtered by numpy and deflated by ISA-L; the ordinary kinds are inflated by ISA-L, too, and FFmpeg undoes their
filters. All of it lets other threads of Python run.
https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from isal.isal_zlib import adler32, compressobj, crc32, decompressobj
from isal.isal_zlib import error as isal_error

SIGNATURE = b"\x89PNG\r\n\x1a\n"

BAND = 64
"""Rows that are filtered at a time, so that they stay in the processor's cache."""

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""How a PNG calls its channels, by their number: grey, grey and alpha, RGB, RGBA."""

SEE_THROUGH = {COLOUR_TYPES[2], COLOUR_TYPES[4]}
"""Colour types with alpha."""

DEPTHS, CHANNELS = {8, 16}, {0: 1, 2: 3, 6: 4}
"""What ``decode`` reads: bits, and the channels of grey, RGB and RGBA by their colour type."""

BEGINNING = len(SIGNATURE) + 25
"""Bytes of a file's signature and its first chunk, which says its size."""

FILTERS = 5
"""Ways to filter a row, by number from 0."""

LARGEST_BLOCK = 0xFFFF
"""Bytes of a block that zlib's format holds as they are."""

COLOUR = ("cICP", "iCCP", "gAMA", "cHRM", "mDCV", "cLLI")
"""Chunks that make a reader show other values than the file holds; sRGB is what readers take for granted."""

CARRIED = (*COLOUR, "sRGB", "pHYs", "tEXt", "zTXt", "iTXt")
"""Chunks that hold true of a frame after it was rendered."""


def chunk(kind: str, *parts: bytes) -> bytes:
    """Give a chunk as it stands in a file."""
    return b"".join(_pieces(kind, *parts))


def _pieces(kind: str, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    length, checksum = sum(map(len, parts)), crc32(kind.encode("ascii"))
    for part in parts:
        checksum = crc32(part, checksum)
    return [struct.pack(">I", length), kind.encode("ascii"), *parts, struct.pack(">I", checksum)]


def has_aspect(ratio: float) -> bool:
    """Tell whether a pHYs chunk can hold that pixels are ``ratio`` times as wide as high."""
    return 0.5e-4 < ratio < 2**31 / 10_000


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
        if crc32(tagged) != struct.unpack(">I", checksum)[0]:
            raise ValueError("it is damaged: a checksum does not match")
        kind = bytes(tagged[:4]).decode("latin-1")
        yield kind, tagged[4:]
        place += 12 + length


def is_ordinary(data: bytes) -> bool:
    """Tell whether ``decode`` reads a file: grey, RGB or RGBA, 8 or 16 bits, not interlaced, no colour transparent."""
    if data[:16] != SIGNATURE + b"\0\0\0\rIHDR" or len(data) < 29:
        return False
    depth, colour, interlaced = data[24], data[25], data[28]
    try:
        return depth in DEPTHS and colour in CHANNELS and not interlaced and b"tRNS" not in head(data)
    except ValueError:  # whoever reads it says what is wrong
        return False


def head(data: bytes) -> bytes:
    """Give a file up to where its pixels begin: all that a reader looks at to tell what is in it."""
    place = len(SIGNATURE)
    for kind, content in chunks(data):
        if kind == "IDAT":
            break
        place += 12 + len(content)
    return data[: place + 8]


def decode(data: bytes) -> np.ndarray:
    """Give the pixels of an ordinary file: uint8 or uint16 ``(height, width, channels)``, of 1, 3 or 4 channels.

    Raises ValueError when they cannot be decoded. The caller has seen that width and height are within reason.
    """
    import av  # where it is needed: a render starts before it reads

    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    packet = av.Packet(_as_stored(data, 1 + width * CHANNELS[colour] * depth // 8, height))
    context = av.CodecContext.create("png", "r")
    context.thread_count = 1
    try:
        frames = [*context.decode(packet), *context.decode(None)]
    except av.FFmpegError as error:
        raise ValueError(str(error)) from error
    if not frames:
        raise ValueError("its pixels cannot be decoded")
    return np.ascontiguousarray(frames[0].to_ndarray()).reshape(height, width, -1)  # its rows may be padded


def _as_stored(data: bytes, row: int, height: int) -> bytes:
    """Give a file whose pixels are only stored: FFmpeg would inflate them with zlib, which takes twice as long."""
    filtered = _inflated(b"".join(content for kind, content in chunks(data) if kind == "IDAT"), row * height)
    if max(filtered[::row]) >= FILTERS:
        raise ValueError("its rows are filtered in an unknown way")
    return b"".join([data[:BEGINNING], *_pieces("IDAT", *_stored(filtered)), chunk("IEND")])


def _stored(content: bytes) -> Iterator[bytes | memoryview]:
    """Put bytes into zlib's format as they are, without a copy: RFC 1950, and RFC 1951, section 3.2.4."""
    whole = memoryview(content)
    yield b"\x78\x01"
    for start in range(0, len(whole), LARGEST_BLOCK):
        block = whole[start : start + LARGEST_BLOCK]
        is_last = start + LARGEST_BLOCK >= len(whole)
        yield struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF)
        yield block
    yield struct.pack(">I", adler32(content))


def _inflated(deflated: bytes, size: int) -> bytes:
    """Inflate pixels; raise ValueError where they are damaged, or not of this size."""
    inflate = decompressobj()
    try:
        pixels = inflate.decompress(deflated, size + 1)
    except isal_error as error:
        raise ValueError(f"its pixels cannot be inflated: {error}") from error
    if len(pixels) != size or not inflate.eof:
        raise ValueError("its pixels are not as many as it says")
    return pixels


def encode(pixels: np.ndarray, *, carried: Iterable[bytes] = ()) -> bytes:
    """Give the file of ``pixels``: uint8 or uint16 ``(height, width, channels)``, of 1 to 4 channels.

    ``carried`` are whole chunks, to stand before the pixels.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join([SIGNATURE, chunk("IHDR", header), *carried, *_pieces("IDAT", *_deflated(pixels)), chunk("IEND")])


def _deflated(pixels: np.ndarray) -> list[bytes]:
    step = pixels.shape[2] * pixels.itemsize
    deflate = compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 8)
    parts = []
    before = np.zeros((1, pixels.shape[1] * step), np.uint8)
    for top in range(0, len(pixels), BAND):
        band = pixels[top : top + BAND]
        ordered = np.ascontiguousarray(band, band.dtype.newbyteorder(">"))
        rows = ordered.view(np.uint8).reshape(len(band), -1)
        above = np.concatenate([before, rows[:-1]])
        parts.append(deflate.compress(_average(rows, above, step)))
        before = rows[-1:]
    return [*parts, deflate.flush()]


def _average(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Filter rows of bytes by the mean of the pixels to the left and above: PNG's filter 3, without its loop."""
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    result[:, 0] = 3
    result[:, 1 : 1 + step] = rows[:, :step] - (above[:, :step] >> 1)
    left, up = rows[:, :-step], above[:, step:]
    np.subtract(rows[:, step:], (left & up) + ((left ^ up) >> 1), out=result[:, 1 + step :])
    return result
