"""DPX: which of its kinds OpenImageIO 3.2.2 reads right, which are read here, and which are refused by name.

SMPTE ST 268-1. FFmpeg reads some of what OpenImageIO reads wrong, but no 10-bit luma and chroma, no padding after the
rows, and nothing of RGBA in another order; the tests compare all three wherever two of them read a file.
"""

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dailies.core.errors import SequenceError
from dailies.frames.plain import Plain, expanded

if TYPE_CHECKING:
    import av


HEADER, NEEDED = 2048, 820
"""Bytes of it, and of what is looked at."""

REVISION = "dpx-1"
"""Part of the key of frames that are read otherwise than at first: raise it when they are once more."""

UNDEFINED = {0xFFFFFFFF, 0xFFFF}

GREY = {1: "red", 2: "green", 3: "blue", 4: "alpha", 6: "luma", 8: "depth"}
"""Descriptors of a single channel that is a picture by itself."""

RGB, RGBA, ABGR = 50, 51, 52

LUMA_CHROMA = {100: "CbY CrY", 101: "CbYA CrYA", 102: "CbYCr", 103: "CbYCrA"}
"""Descriptors of luma and chroma -> the order of the samples."""

NAMES = {
    0: "channels that the header does not name (descriptor 0, user-defined)",
    7: "chroma without luma",
    9: "composite video",
}
"""Descriptors that are refused."""

CHANNELS = {**dict.fromkeys(GREY, 1), RGB: 3, RGBA: 4, ABGR: 4, 100: 2, 101: 3, 102: 3, 103: 4}

BITS = {8, 10, 12, 16, 32, 64}
"""Of these, 32 and 64 are floating-point numbers."""

MATRICES = {5: 1, 6: 1, 7: 5, 8: 6, 9: 6, 10: 5}
"""A DPX's code for transfer and colorimetric -> ITU-T H.273's for a matrix."""

BT709 = 1
"""The matrix where the header says none: of any size, since no DPX comes from video of standard definition."""

LIMITED, FULL = 1, 2
"""FFmpeg's codes for the range of luma."""

SCANNERS = ((160, b"Lasergraphics Inc."), (1556, b"Scanity"))
"""Where the header names a scanner that does not pad rows of 10 bits to whole words."""


@dataclass(frozen=True)
class Layout:
    """What the header says of the first element."""

    order: str
    """Of the bytes of a word: > or <."""
    start: int
    """Where the pixels begin."""
    elements: int
    width: int
    height: int
    signed: bool
    low: int
    high: int
    """The codes for black and white."""
    descriptor: int
    transfer: int
    colorimetric: int
    bits: int
    packing: int
    """0: packed; 1 and 2: filled to whole words, at their lower or upper end."""
    encoding: int
    padding: int
    """Bytes after each row."""
    is_displaced: bool
    """Whether only the file's general header says where the pixels begin, of which OpenImageIO knows nothing."""

    @property
    def samples(self) -> int:
        """The samples of a row."""
        return self.width * CHANNELS[self.descriptor]


def layout_of(data: bytes, name: str) -> Layout:
    """Read the header; raise SequenceError, naming what it is, for a kind that nobody reads right."""
    if len(data) < NEEDED:
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    order = ">" if data.startswith(b"SDPX") else "<"
    (generic,) = struct.unpack_from(f"{order}I", data, 4)
    _, elements, width, height, sign, low, _, high, _ = struct.unpack_from(f"{order}HHIIIIfIf", data, 768)
    descriptor, transfer, colorimetric, bits = data[800:804]
    packing, encoding, start, padding = struct.unpack_from(f"{order}HHII", data, 804)
    is_displaced = not HEADER // 2 < start < len(data)
    found = Layout(
        order=order,
        start=generic if is_displaced else start,
        is_displaced=is_displaced,
        elements=1 if elements in UNDEFINED else elements,
        width=width,
        height=height,
        signed=sign == 1,
        low=low,
        high=high,
        descriptor=descriptor,
        transfer=transfer,
        colorimetric=colorimetric,
        bits=bits,
        packing=_told(packing),
        encoding=_told(encoding),
        padding=_told(padding),
    )
    if what := _refusal(found):
        raise SequenceError(
            "frame.unsupported_content", f"frame {name} is a DPX that holds {what}; convert it to RGB first"
        )
    return found


def _told(value: int) -> int:
    return 0 if value in UNDEFINED else value


def _refusal(layout: Layout) -> str | None:
    """Return what a DPX holds that nobody reads right, in words; None if somebody does."""
    descriptor, bits = layout.descriptor, layout.bits
    kind = f"luma and chroma ({LUMA_CHROMA[descriptor]})" if descriptor in LUMA_CHROMA else ""
    if descriptor not in CHANNELS:
        several = f"{descriptor - 148} channels without a name" if 150 <= descriptor <= 156 else "channels"
        return NAMES.get(descriptor, f"{several} of kind {descriptor}")
    reasons = {
        f"its channels in {layout.elements} separate elements": layout.elements > 1 and CHANNELS[descriptor] == 1,
        "run lengths": layout.encoding != 0,
        "signed integers": layout.signed,
        f"{kind or 'values'} of {bits} bits": bits not in BITS or (bits > 16 and (kind or descriptor == ABGR)),
        f"{kind} of an odd width": descriptor in {100, 101} and layout.width % 2 == 1,
    }
    return next((what for what, is_so in reasons.items() if is_so), None)


def read(data: bytes, name: str) -> Plain | None:
    """Return the picture of a kind that OpenImageIO reads wrong; None where it reads it right.

    Raises SequenceError where nobody reads it right, or where the file is truncated.
    """
    layout = layout_of(data, name)
    ten = layout.bits == 10 and layout.packing
    if layout.descriptor in LUMA_CHROMA:
        return _from_luma(_samples(layout, data, name), layout)
    if layout.descriptor == ABGR:
        values = _samples(layout, data, name)[:, :, ::-1]
    elif ten and layout.descriptor != RGB:
        values = _samples(layout, data, name)
    else:
        return None
    is_grey = layout.descriptor in GREY
    return Plain(
        expanded(values, layout.bits),
        layout.bits,
        # rows that end with a word were always read right
        revision="" if is_grey and not layout.samples % 3 else REVISION,
    )


def revision(data: bytes) -> str:
    """Return the revision of how OpenImageIO is made to read a file."""
    return REVISION if layout_of(data, "").is_displaced else ""


def _samples(layout: Layout, data: bytes, name: str) -> np.ndarray:
    """Return the codes of a file as ``(height, width, channels)``."""
    body = memoryview(data)[layout.start :]
    whole, ten = _row_bytes(layout), layout.bits == 10 and layout.packing
    rows, stride = layout.height, whole + layout.padding
    if ten and _is_unpadded(layout, data, len(body)):
        # all rows are one
        layout = replace(layout, width=layout.width * rows, height=1, padding=0)
        whole = stride = _row_bytes(layout)
    elif not ten and not layout.padding and len(body) == (whole + -whole % 4) * rows:
        stride = whole + -whole % 4
    needed = stride * (layout.height - 1) + whole
    if len(body) < needed or not needed:
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    last = bytes(body[:needed]) + bytes(stride - whole)
    packed = np.frombuffer(last, np.uint8).reshape(layout.height, stride)[:, :whole]
    codes = _unpacked(np.ascontiguousarray(packed), layout)[:, : layout.samples]
    return codes.reshape(rows, -1, CHANNELS[layout.descriptor])


def _row_bytes(layout: Layout) -> int:
    """Return the bytes of a row without padding; of 10 bits, and of packed 12, they are whole words."""
    if layout.bits == 10 and layout.packing:
        return -(-layout.samples // 3) * 4
    if layout.bits in {10, 12} and not layout.packing:
        return -(-layout.samples * layout.bits // 32) * 4
    return layout.samples * (1 if layout.bits == 8 else 2)


def _is_unpadded(layout: Layout, data: bytes, size: int) -> bool:
    """Tell whether a row begins in the word in which the one before it ends."""
    padded = (_row_bytes(layout) + layout.padding) * layout.height
    unpadded = -(-layout.samples * layout.height // 3) * 4
    told = any(data[place:].startswith(scanner) for place, scanner in SCANNERS)
    return size != padded and (size == unpadded or (told and size > unpadded))


def _unpacked(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Return the codes in rows of bytes; of 10 bits up to two more than there are samples."""
    if layout.bits == 8:
        return rows
    if layout.bits in {10, 12} and not layout.packing:
        words = rows.view(f"{layout.order}u4").astype("<u4").view(np.uint8)  # the first sample is in the lowest bits
        bits = np.unpackbits(words, axis=1, bitorder="little")
        bits = bits[:, : layout.samples * layout.bits].reshape(len(rows), -1, layout.bits)
        return bits @ (1 << np.arange(layout.bits, dtype=np.uint16))
    if layout.bits == 10:
        words = rows.view(f"{layout.order}u4")
        lowest = 2 if layout.packing == 1 else 0
        shifts = [lowest + 20, lowest + 10, lowest]
        # several channels begin at the upper end of a word, a single one at the lower
        shifts = shifts[:: -1 if layout.descriptor in GREY else 1]
        return np.stack([(words >> shift) & 0x3FF for shift in shifts], axis=2).reshape(len(rows), -1).astype(np.uint16)
    values = rows.view(f"{layout.order}u2").astype(np.uint16)
    return values >> 4 if layout.bits == 12 and layout.packing == 1 else values & (2**layout.bits - 1)


def _from_luma(samples: np.ndarray, layout: Layout) -> Plain:
    """Convert luma and chroma to RGB, as the frames of a video are."""
    from dailies.frames import video

    alpha = layout.descriptor in {101, 103}
    if layout.descriptor in {100, 101}:
        # each pixel has its own luma, two share the chroma that comes before it
        planes = [samples[:, :, 1], samples[:, ::2, 0], samples[:, 1::2, 0]]
    else:
        planes = [samples[:, :, 1], samples[:, :, 0], samples[:, :, 2]]
    frame = _frame([*planes, samples[:, :, -1]] if alpha else planes, layout)
    how = video.coding(frame)
    coded = f"{video.MATRICES[how.matrix][0]}, {'full' if how.full else 'limited'} range"
    untagged = _matrix(layout) is None
    assumed = [f"matrix not tagged, {video.MATRICES[BT709][0]} assumed"] * untagged
    note = ", ".join([f"holds luma and chroma, which are converted to RGB by {coded}", *assumed, *how.assumed])
    return Plain(video.rgb(frame), layout.bits, notes=(note,), revision=REVISION)


def _matrix(layout: Layout) -> int | None:
    """Return the matrix that the header names by its code in H.273."""
    return MATRICES.get(layout.colorimetric, MATRICES.get(layout.transfer))


def _frame(planes: list[np.ndarray], layout: Layout) -> "av.VideoFrame":
    """Return luma, chroma and perhaps alpha as a frame of FFmpeg's, tagged with what the header says of its colours."""
    import av

    kind = f"yuv{'a' if len(planes) == 4 else ''}{'422' if layout.descriptor in {100, 101} else '444'}p"
    frame = av.VideoFrame(layout.width, layout.height, kind if layout.bits == 8 else f"{kind}{layout.bits}le")
    dtype = np.dtype("u1" if layout.bits == 8 else "<u2")
    for target, plane in zip(frame.planes, planes, strict=True):
        stored = np.zeros((layout.height, target.line_size // dtype.itemsize), dtype)
        stored[:, : plane.shape[1]] = plane
        target.update(stored)
    frame.colorspace = _matrix(layout) or BT709
    limits = (layout.low, layout.high)
    scale = 1 << (layout.bits - 8)
    if limits == (0, (1 << layout.bits) - 1):
        frame.color_range = FULL
    elif limits == (16 * scale, 235 * scale):
        frame.color_range = LIMITED
    return frame


def corrected(data: bytes, name: str) -> bytes:
    """Return a file whose header says what OpenImageIO relies on, and what FFmpeg leaves out when it writes one.

    That is where the pixels begin, and that rows are padded to 4 bytes where they are.
    """
    layout = layout_of(data, name)
    data = data[:808] + struct.pack(f"{layout.order}I", layout.start) + data[812:]
    row = layout.samples * (1 if layout.bits == 8 else 2)
    if layout.bits == 10 or not row % 4 or len(data) - layout.start != (row + -row % 4) * layout.height:
        return data
    return data[:812] + struct.pack(f"{layout.order}I", -row % 4) + data[816:]
