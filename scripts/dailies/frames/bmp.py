"""BMP reader, because none of the available libraries reads all variants correctly.

Of the variants in https://entropymine.com/jason/bmpsuite/, OpenImageIO 3.2.2 reads all 32-bit bit fields as BGRA, and
rejects run lengths and palettes in true-colour files; Pillow 13 rejects most bit fields; OpenCV 5 reads them with a few
headers only; FFmpeg rejects 52-byte headers and drops the alpha of 16-bit pixels. The tests compare this reader with
all of them.
"""

import struct
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from dailies.core.errors import SequenceError
from dailies.frames.raster import Raster, expand_bits

FILE_HEADER = 14
"""Bytes of the file header, which precedes the info header."""

CORE, OS2_SHORT, INFO, OS2 = 12, 16, 40, 64
HEADERS = {CORE, OS2_SHORT, INFO, 52, 56, OS2, 108, 124}
"""Sizes of the known info headers, in bytes; those from ``INFO`` on start with the same fields."""

UNCOMPRESSED, RLE8, RLE4, BIT_FIELDS, ALPHA_BIT_FIELDS = 0, 1, 2, 3, 6

UNSUPPORTED = {4: "a JPEG", 5: "a PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
UNSUPPORTED_OS2 = {3: "Huffman codes", 4: "run lengths of 24 bits"}
"""Contents that are not supported, by compression code."""

DEFAULT_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
"""Masks of red, green, blue and alpha if the header has none, by bits per pixel."""

REVISION = "bmp-1"
"""Part of the key of frames that the first release read differently; increment it when their pixels change again."""

MAX_BYTES = 4096 << 20
"""Largest accepted picture in bytes; OpenImageIO has the same limit."""


@dataclass(frozen=True)
class Layout:
    """The fields of the headers."""

    size: int
    """Bytes of the info header."""
    start: int
    """Offset of the pixels."""
    width: int
    height: int
    top_down: bool
    bits: int
    """Bits per pixel: 1, 2, 4, 8, 16, 24 or 32."""
    compression: int
    length: int
    """Bytes of the pixels; 0 if the header does not state it."""
    masks: tuple[int, int, int, int]
    """Masks of red, green, blue and alpha in a pixel of 16 or 32 bits."""
    palette: np.ndarray
    """``(colours, 3)`` uint8: RGB."""
    resolution: tuple[int, int]
    """Horizontal and vertical pixels per metre; 0 if the header does not state it."""


def read(data: bytes, name: str) -> Raster:
    """Return the picture; raise SequenceError if the file is damaged or of an unsupported kind."""
    layout = read_layout(data, name)
    if layout.compression in {RLE8, RLE4}:
        return _from_palette(_decode_runs(layout, data, name), layout)
    rows = _rows(layout, data, name)
    if layout.bits <= 8:
        bits = np.unpackbits(rows, axis=1).reshape(layout.height, -1, layout.bits)[:, : layout.width]
        return _from_palette(np.packbits(bits, axis=2)[:, :, 0] >> (8 - layout.bits), layout)
    if layout.bits == 24:
        return Raster(rows[:, : 3 * layout.width].reshape(layout.height, -1, 3)[:, :, ::-1], 8)
    return _from_fields(rows.view(f"<u{layout.bits // 8}")[:, : layout.width], layout)


def read_layout(data: bytes, name: str) -> Layout:
    """Read the headers; raise SequenceError if they are damaged or of an unsupported kind."""
    try:
        (start,), (size,) = struct.unpack_from("<I", data, 10), struct.unpack_from("<I", data, FILE_HEADER)
        if size not in HEADERS:
            raise SequenceError(
                "frame.unknown_header",
                f"frame {name} cannot be read: no version of BMP has a header of {size} bytes",
            )
        short = size in {CORE, OS2_SHORT}
        kind = {CORE: "<HHHH", OS2_SHORT: "<IIHH"}.get(size, "<iiHH")
        width, height, _, bits = struct.unpack_from(kind, data, FILE_HEADER + 4)
        compression, length, across, down, colours = (
            (UNCOMPRESSED, 0, 0, 0, 0) if short else struct.unpack_from("<IIiiI", data, FILE_HEADER + 16)
        )
        fields = compression in {BIT_FIELDS, ALPHA_BIT_FIELDS} and size != OS2
        masks = struct.unpack_from("<4I", data, FILE_HEADER + INFO) if fields else (0, 0, 0, 0)
    except struct.error as error:
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated") from error
    if what := _unsupported(size, bits, compression):
        raise SequenceError(
            "frame.unsupported_content", f"frame {name} is a BMP that holds {what}; convert it to PNG first"
        )
    if not fields:
        masks = DEFAULT_MASKS.get(bits, masks)
    elif compression == BIT_FIELDS and size < 56:
        masks = (*masks[:3], 0)
    if width <= 0 or not height or width * abs(height) * 4 > MAX_BYTES:
        raise SequenceError(
            "frame.impossible_size", f"frame {name} cannot be read: {width}×{abs(height)} is not a valid size"
        )
    if bits in DEFAULT_MASKS and not _are_valid_masks([*masks[:3], *[masks[3]] * bool(masks[3])]):
        raise SequenceError("frame.bad_masks", f"frame {name} cannot be read: its colour masks overlap or have gaps")
    return Layout(
        size=size,
        start=start,
        width=width,
        height=abs(height),
        top_down=height < 0,
        bits=bits,
        compression=compression,
        length=length,
        masks=masks,
        palette=_palette(data, size, start, bits, colours, name),
        resolution=(max(across, 0), max(down, 0)),
    )


def _unsupported(size: int, bits: int, compression: int) -> str | None:
    """Return a description of the unsupported content of a BMP; None if it is supported."""
    content = (UNSUPPORTED_OS2 if size == OS2 else UNSUPPORTED).get(compression)
    if content:
        return content
    fits = {
        UNCOMPRESSED: {1, 2, 4, 8, 16, 24, 32},
        RLE8: {8},
        RLE4: {4},
        BIT_FIELDS: {16, 32},
        ALPHA_BIT_FIELDS: {16, 32},
    }
    if compression not in fits:
        return f"a compression of unknown code {compression}"
    return None if bits in fits[compression] else f"pixels of {bits} bits (compression code {compression})"


def _are_valid_masks(masks: list[int]) -> bool:
    """Return whether every mask is one contiguous run of bits and no two overlap."""
    contiguous = all(mask and (mask // (mask & -mask)) & (mask // (mask & -mask) + 1) == 0 for mask in masks)
    return contiguous and sum(masks) == reduce(or_, masks)


def _palette(data: bytes, size: int, start: int, bits: int, colours: int, name: str) -> np.ndarray:
    """Return the colours stored between header and pixels, at most as many as the header declares."""
    if bits > 8:
        return np.zeros((0, 3), np.uint8)
    step = 3 if size == CORE else 4
    place = FILE_HEADER + size
    count = max(0, min(colours or 1 << bits, (min(start, len(data)) - place) // step))
    if not count:
        raise SequenceError("frame.no_palette", f"frame {name} cannot be read: it has no palette")
    entries = np.frombuffer(data, np.uint8, count * step, place).reshape(count, step)
    return entries[:, 2::-1]


def _rows(layout: Layout, data: bytes, name: str) -> np.ndarray:
    """Return the bytes of each row, ``(height, stride)``, from the top."""
    stride = -(-layout.width * layout.bits // 32) * 4
    if layout.start + stride * layout.height > len(data):
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    rows = np.frombuffer(data, np.uint8, stride * layout.height, layout.start).reshape(layout.height, stride)
    return rows if layout.top_down else np.ascontiguousarray(rows[::-1])


def _decode_runs(layout: Layout, data: bytes, name: str) -> np.ndarray:
    """Decode run lengths to palette indices, ``(height, width)``; skipped pixels get index 0."""
    import av

    end = layout.start + layout.length if layout.length else len(data)
    runs = data[layout.start : end]
    # they end with an end-of-bitmap marker, which padding may follow
    if end > len(data) or not runs.rstrip(b"\0").endswith(b"\x01"):
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    header = struct.pack(
        "<IiiHHIIiiII", INFO, layout.width, layout.height, 1, layout.bits, layout.compression, len(runs), 0, 0, 0, 0
    )
    start = FILE_HEADER + INFO + (4 << layout.bits)
    colours = bytes(4 << layout.bits)
    plain = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + colours + runs
    context = av.CodecContext.create("bmp", "r")
    context.thread_count = 1
    try:
        frames = [*context.decode(av.Packet(plain)), *context.decode(None)]
    except av.FFmpegError as error:
        raise SequenceError(
            "frame.bad_run_lengths", f"frame {name} cannot be read: its run lengths are damaged"
        ) from error
    if not frames:
        raise SequenceError("frame.bad_run_lengths", f"frame {name} cannot be read: its run lengths are damaged")
    indices, _ = frames[0].to_ndarray()
    return indices[::-1] if layout.top_down else indices


def _from_palette(indices: np.ndarray, layout: Layout) -> Raster:
    """Look up colours; an index beyond the palette is black, as in Pillow, OpenCV and FFmpeg."""
    palette = np.zeros((256, 3), np.uint8)
    known = min(len(layout.palette), 256)
    palette[:known] = layout.palette[:known]
    out_of_range = bool((indices >= known).any())
    grey = layout.bits == 8 and bool((palette == palette[:, :1]).all())
    is_new = out_of_range or layout.compression != UNCOMPRESSED or layout.size in {OS2, OS2_SHORT}
    return Raster(
        palette[:, :1][indices] if grey else palette[indices],
        8,
        notes=("pixels whose colour is not in the palette are black",) * out_of_range,
        revision=REVISION * is_new,
    )


def _from_fields(pixels: np.ndarray, layout: Layout) -> Raster:
    """Extract the channels of pixels of 16 or 32 bits."""
    masks = layout.masks
    notes: tuple[str, ...] = ()
    if layout.bits == 32 and layout.compression == UNCOMPRESSED and (pixels >> 24).any():
        masks = (*masks[:3], 0xFF000000)
        notes = ("the fourth byte of each pixel, which the format does not define, is read as alpha",)
    if masks[3] and not (pixels & masks[3]).any():
        masks = (*masks[:3], 0)  # a fully transparent picture is not intended
    used = masks if masks[3] else masks[:3]
    deep = max(mask.bit_count() for mask in used) > 8
    planes = []
    for mask in used:
        codes = (pixels & mask) >> ((mask & -mask).bit_length() - 1)
        planes.append(expand_bits(codes, mask.bit_count(), deep=deep))
    usual = layout.bits == 16 and not masks[3] and layout.compression != ALPHA_BIT_FIELDS
    usual |= layout.bits == 32 and masks == (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    bits = min(mask.bit_count() for mask in used[:3])
    return Raster(np.dstack(planes), bits, notes=notes, revision="" if usual else REVISION)
