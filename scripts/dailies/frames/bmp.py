"""BMP: read here, since no library at hand reads all of its variants right.

Of the variants of https://entropymine.com/jason/bmpsuite/ OpenImageIO 3.2.2 takes the bit fields of 32 bits for BGRA
whatever they are, and refuses run lengths and palettes beside colours; Pillow 13 refuses most bit fields; OpenCV 5
reads them in a few headers only; FFmpeg refuses headers of 52 bytes and drops alpha of 16 bits. The tests compare what
is read here with all of them.
"""

import struct
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from dailies.core.errors import SequenceError
from dailies.frames.plain import Plain, expanded

FILE_HEADER = 14
"""Bytes of what stands before the header proper."""

CORE, OS2_SHORT, INFO, OS2 = 12, 16, 40, 64
HEADERS = {CORE, OS2_SHORT, INFO, 52, 56, OS2, 108, 124}
"""Known headers, by their bytes; those from ``INFO`` on begin alike."""

PLAIN, RLE8, RLE4, FIELDS, ALPHA_FIELDS = 0, 1, 2, 3, 6

OTHERS = {4: "a JPEG", 5: "a PNG", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
OTHERS_OF_OS2 = {3: "Huffman codes", 4: "run lengths of 24 bits"}
"""What a BMP may hold that is refused, by its code for the compression."""

USUAL_MASKS = {16: (0x7C00, 0x3E0, 0x1F, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
"""Bits of red, green, blue and alpha where the header does not say."""

REVISION = "bmp-1"
"""Part of the key of frames that are read otherwise than at first: raise it when they are once more."""

LARGEST = 4096 << 20
"""Bytes of a picture that are taken for real, as for OpenImageIO."""


@dataclass(frozen=True)
class Layout:
    """What the header says."""

    size: int
    """Bytes of the header."""
    start: int
    """Where the pixels begin."""
    width: int
    height: int
    top_down: bool
    bits: int
    """Of a pixel: 1, 2, 4, 8, 16, 24 or 32."""
    compression: int
    length: int
    """Bytes of the pixels; 0 where that is not said."""
    masks: tuple[int, int, int, int]
    """The bits of red, green, blue and alpha in a pixel of 16 or 32."""
    palette: np.ndarray
    """``(colours, 3)``: RGB."""
    resolution: tuple[int, int]
    """Pixels per metre; 0 where that is not said."""


def read(data: bytes, name: str) -> Plain:
    """Return the picture; raise SequenceError where the file is damaged or of a kind that is not read."""
    layout = layout_of(data, name)
    if layout.compression in {RLE8, RLE4}:
        return _from_palette(_unrolled(layout, data, name), layout)
    rows = _rows(layout, data, name)
    if layout.bits <= 8:
        bits = np.unpackbits(rows, axis=1).reshape(layout.height, -1, layout.bits)[:, : layout.width]
        return _from_palette(np.packbits(bits, axis=2)[:, :, 0] >> (8 - layout.bits), layout)
    if layout.bits == 24:
        return Plain(rows[:, : 3 * layout.width].reshape(layout.height, -1, 3)[:, :, ::-1], 8)
    return _from_fields(rows.view(f"<u{layout.bits // 8}")[:, : layout.width], layout)


def layout_of(data: bytes, name: str) -> Layout:
    """Read the header; raise SequenceError where it is damaged or of a kind that is not read."""
    try:
        (start,), (size,) = struct.unpack_from("<I", data, 10), struct.unpack_from("<I", data, FILE_HEADER)
        if size not in HEADERS:
            raise SequenceError(
                "frame.unknown_header",
                f"frame {name} cannot be read: its header of {size} bytes is not of a known version",
            )
        short = size in {CORE, OS2_SHORT}
        kind = {CORE: "<HHHH", OS2_SHORT: "<IIHH"}.get(size, "<iiHH")
        width, height, _, bits = struct.unpack_from(kind, data, FILE_HEADER + 4)
        compression, length, across, down, colours = (
            (PLAIN, 0, 0, 0, 0) if short else struct.unpack_from("<IIiiI", data, FILE_HEADER + 16)
        )
        fields = compression in {FIELDS, ALPHA_FIELDS} and size != OS2
        masks = struct.unpack_from("<4I", data, FILE_HEADER + INFO) if fields else (0, 0, 0, 0)
    except struct.error as error:
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated") from error
    if what := _refusal(size, bits, compression):
        raise SequenceError(
            "frame.unsupported_content", f"frame {name} is a BMP that holds {what}; convert it to PNG first"
        )
    if not fields:
        masks = USUAL_MASKS.get(bits, masks)
    elif compression == FIELDS and size < 56:
        masks = (*masks[:3], 0)
    if width <= 0 or not height or width * abs(height) * 4 > LARGEST:
        raise SequenceError("frame.impossible_size", f"frame {name} cannot be read: its size is {width}×{abs(height)}")
    if bits in USUAL_MASKS and not _are_fields([*masks[:3], *[masks[3]] * bool(masks[3])]):
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


def _refusal(size: int, bits: int, compression: int) -> str | None:
    """Return what a BMP holds that is not read, in words; None if it is read."""
    other = (OTHERS_OF_OS2 if size == OS2 else OTHERS).get(compression)
    if other:
        return other
    fits = {PLAIN: {1, 2, 4, 8, 16, 24, 32}, RLE8: {8}, RLE4: {4}, FIELDS: {16, 32}, ALPHA_FIELDS: {16, 32}}
    if compression not in fits:
        return f"a compression of unknown code {compression}"
    return None if bits in fits[compression] else f"pixels of {bits} bits (compression code {compression})"


def _are_fields(masks: list[int]) -> bool:
    """Tell whether each mask has bits, all of them neighbours, and shares none with another."""
    whole = all(mask and (mask // (mask & -mask)) & (mask // (mask & -mask) + 1) == 0 for mask in masks)
    return whole and sum(masks) == reduce(or_, masks)


def _palette(data: bytes, size: int, start: int, bits: int, colours: int, name: str) -> np.ndarray:
    """Return the colours that lie between the header and the pixels, no more than the header says."""
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
    """Return the bytes of each row, from the top."""
    stride = -(-layout.width * layout.bits // 32) * 4
    if layout.start + stride * layout.height > len(data):
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    rows = np.frombuffer(data, np.uint8, stride * layout.height, layout.start).reshape(layout.height, stride)
    return rows if layout.top_down else np.ascontiguousarray(rows[::-1])


def _unrolled(layout: Layout, data: bytes, name: str) -> np.ndarray:
    """Return the palette's indices that run lengths stand for; what they pass over has index 0."""
    import av

    end = layout.start + layout.length if layout.length else len(data)
    runs = data[layout.start : end]
    # they end with a mark, after which there may be padding
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


def _from_palette(indices: np.ndarray, layout: Layout) -> Plain:
    """Look colours up; an index without one is black, as Pillow, OpenCV and FFmpeg have it."""
    palette = np.zeros((256, 3), np.uint8)
    known = min(len(layout.palette), 256)
    palette[:known] = layout.palette[:known]
    strays = bool((indices >= known).any())
    grey = layout.bits == 8 and bool((palette == palette[:, :1]).all())
    new = strays or layout.compression != PLAIN or layout.size in {OS2, OS2_SHORT}
    return Plain(
        palette[:, :1][indices] if grey else palette[indices],
        8,
        notes=("pixels whose colour is not in the palette are black",) * strays,
        revision=REVISION * new,
    )


def _from_fields(pixels: np.ndarray, layout: Layout) -> Plain:
    """Take the bits of each channel out of pixels of 16 or 32."""
    notes, masks = (), layout.masks
    if layout.bits == 32 and layout.compression == PLAIN and (pixels >> 24).any():
        masks = (*masks[:3], 0xFF000000)
        notes = ("its fourth byte, which the format leaves open, is taken for alpha",)
    if masks[3] and not (pixels & masks[3]).any():
        masks = (*masks[:3], 0)  # nobody means a picture that cannot be seen
    used = masks if masks[3] else masks[:3]
    deep = max(mask.bit_count() for mask in used) > 8
    planes = []
    for mask in used:
        codes = (pixels & mask) >> ((mask & -mask).bit_length() - 1)
        planes.append(expanded(codes, mask.bit_count(), deep=deep))
    usual = layout.bits == 16 and not masks[3] and layout.compression != ALPHA_FIELDS
    usual |= layout.bits == 32 and masks == (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    bits = min(mask.bit_count() for mask in used[:3])
    return Plain(np.dstack(planes), bits, notes=notes, revision="" if usual else REVISION)
