"""PNG codec that is faster than libpng, verifies checksums and gives access to chunks.

Rows are filtered with numpy and deflated with ISA-L. Ordinary files are inflated with ISA-L, and FFmpeg reverses their
filters. All of these release the GIL.
https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
from isal.isal_zlib import IsalError, adler32, compressobj, crc32, decompressobj

SIGNATURE = b"\x89PNG\r\n\x1a\n"

BAND = 64
"""Rows that are filtered at once; few enough to stay in the processor's cache."""

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""Number of channels -> colour type: grey, grey and alpha, RGB, RGBA."""

TRANSPARENT_TYPES = {COLOUR_TYPES[2], COLOUR_TYPES[4]}
"""Colour types with alpha."""

DEPTHS, CHANNELS = {8, 16}, {0: 1, 2: 3, 6: 4}
"""Supported by ``decode``: bits per channel; colour type -> number of channels for grey, RGB and RGBA."""

HEADER_BYTES = len(SIGNATURE) + 25
"""Bytes of the signature and the IHDR chunk."""

FILTERS = 5
"""Number of filter types; they are numbered from 0."""

LARGEST_BLOCK = 0xFFFF
"""Largest stored block in the zlib format, in bytes."""

COLOUR_CHUNKS = ("cICP", "iCCP", "gAMA", "cHRM", "mDCV", "cLLI")
"""Chunks that make a reader show other values than those in the file; without them it assumes sRGB."""

CARRIED = (*COLOUR_CHUNKS, "sRGB", "pHYs", "tEXt", "zTXt", "iTXt")
"""Chunks that stay valid after a frame is rendered, and are copied."""


def chunk(kind: str, *parts: bytes | memoryview) -> bytes:
    """Return a complete chunk: length, kind, content and checksum."""
    return b"".join(_chunk_parts(kind, *parts))


def _chunk_parts(kind: str, *parts: bytes | memoryview) -> list[bytes | memoryview]:
    """Return the parts of a complete chunk without copying its content."""
    length, checksum = sum(map(len, parts)), crc32(kind.encode("ascii"))
    for part in parts:
        checksum = crc32(part, checksum)
    return [struct.pack(">I", length), kind.encode("ascii"), *parts, struct.pack(">I", checksum)]


def has_aspect(ratio: float | Fraction) -> bool:
    """Return whether a pHYs chunk can store a pixel aspect ratio (width / height)."""
    return 0.5e-4 < ratio < 2**31 / 10_000


def aspect(ratio: float | Fraction) -> bytes:
    """Return the content of a pHYs chunk for a pixel aspect ratio (width / height)."""
    return struct.pack(">IIB", 10_000, round(10_000 * ratio), 0)


def chunks(data: bytes) -> Iterator[tuple[str, memoryview]]:
    """Yield kind and content of each chunk of a file, in order.

    Raises ValueError if a checksum does not match or the file ends before its IEND chunk.
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
    """Return whether ``decode`` supports a file: grey, RGB or RGBA, 8 or 16 bits, neither interlaced nor with tRNS."""
    if data[:16] != SIGNATURE + b"\0\0\0\rIHDR" or len(data) < 29:
        return False
    depth, colour, interlaced = data[24], data[25], data[28]
    try:
        return depth in DEPTHS and colour in CHANNELS and not interlaced and b"tRNS" not in head(data)
    except ValueError:  # the reader reports the error
        return False


def head(data: bytes) -> bytes:
    """Return the start of a file, up to its pixels: enough for a reader to determine what the file holds."""
    place = len(SIGNATURE)
    for kind, content in chunks(data):
        if kind == "IDAT":
            break
        place += 12 + len(content)
    return data[: place + 8]


def decode(data: bytes) -> np.ndarray:
    """Return the pixels of an ordinary file: uint8 or uint16 ``(height, width, channels)`` with 1, 3 or 4 channels.

    Raises ValueError if they cannot be decoded. The caller must have checked that width and height are plausible.
    """
    import av  # deferred, because a render starts before it reads

    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    packet = av.Packet(_with_stored_pixels(data, 1 + width * CHANNELS[colour] * depth // 8, height))
    context = av.CodecContext.create("png", "r")
    context.thread_count = 1
    try:
        frames = [*context.decode(packet), *context.decode(None)]
    except av.FFmpegError as error:
        raise ValueError(str(error)) from error
    if not frames:
        raise ValueError("its pixels cannot be decoded")
    return np.ascontiguousarray(frames[0].to_ndarray()).reshape(height, width, -1)  # its rows may be padded


def _with_stored_pixels(data: bytes, row: int, height: int) -> bytes:
    """Return a copy of a file without compression, because FFmpeg inflates with zlib, which takes twice as long."""
    filtered = _inflate(b"".join(content for kind, content in chunks(data) if kind == "IDAT"), row * height)
    if max(filtered[::row]) >= FILTERS:
        raise ValueError("its rows have an unknown filter type")
    return b"".join([data[:HEADER_BYTES], *_chunk_parts("IDAT", *_zlib_stored(filtered)), chunk("IEND")])


def _zlib_stored(content: bytes) -> Iterator[bytes | memoryview]:
    """Yield a zlib stream of stored blocks without copying the content: RFC 1950, and RFC 1951, section 3.2.4."""
    whole = memoryview(content)
    yield b"\x78\x01"
    for start in range(0, len(whole), LARGEST_BLOCK):
        block = whole[start : start + LARGEST_BLOCK]
        is_last = start + LARGEST_BLOCK >= len(whole)
        yield struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF)
        yield block
    yield struct.pack(">I", adler32(content))


def _inflate(deflated: bytes, size: int) -> bytes:
    """Inflate pixels; raise ValueError if they are damaged or do not have this size."""
    inflate = decompressobj()
    try:
        pixels = inflate.decompress(deflated, size + 1)
    except IsalError as error:  # type: ignore[misc]
        raise ValueError(f"its pixels cannot be inflated: {error}") from error
    if len(pixels) != size or not inflate.eof:
        raise ValueError("its pixels do not fill the size in its header")
    return pixels


def encode(pixels: np.ndarray, *, carried: Iterable[bytes] = ()) -> bytes:
    """Return the file of ``pixels``: uint8 or uint16 ``(height, width, channels)`` with 1 to 4 channels.

    ``carried`` are complete chunks to be written before the pixels.
    """
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, COLOUR_TYPES[channels], 0, 0, 0)
    return b"".join(
        [SIGNATURE, chunk("IHDR", header), *carried, *_chunk_parts("IDAT", *_deflate(pixels)), chunk("IEND")]
    )


def _deflate(pixels: np.ndarray) -> list[bytes]:
    """Filter and deflate pixels to the parts of an IDAT chunk."""
    step = pixels.shape[2] * pixels.itemsize
    deflate = compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, 8)
    parts = []
    before = np.zeros((1, pixels.shape[1] * step), np.uint8)
    for top in range(0, len(pixels), BAND):
        band = pixels[top : top + BAND]
        ordered = np.ascontiguousarray(band, band.dtype.newbyteorder(">"))
        rows = ordered.view(np.uint8).reshape(len(band), -1)
        above = np.concatenate([before, rows[:-1]])
        parts.append(deflate.compress(_filter_average(rows, above, step)))
        before = rows[-1:]
    return [*parts, deflate.flush()]


def _filter_average(rows: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """Apply PNG's filter 3, the mean of the pixels to the left and above, to rows of bytes without a Python loop."""
    result = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
    result[:, 0] = 3
    result[:, 1 : 1 + step] = rows[:, :step] - (above[:, :step] >> 1)
    left, up = rows[:, :-step], above[:, step:]
    np.subtract(rows[:, step:], (left & up) + ((left ^ up) >> 1), out=result[:, 1 + step :])
    return result
