"""DPX reader (SMPTE ST 268-1) for the kinds that OpenImageIO 3.2.2 reads wrongly; rejects those that nothing reads.

FFmpeg reads some of these kinds, but no 10-bit luma and chroma, no padding after rows and no ABGR. The tests compare
all three readers wherever at least two of them support a file.
"""

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from dailies.core.errors import SequenceError
from dailies.frames.raster import Raster, expand_bits

if TYPE_CHECKING:
    import av


HEADER_BYTES, USED_BYTES = 2048, 820
"""Bytes of the whole header, and of the part that is read."""

REVISION = "dpx-1"
"""Part of the key of frames that the first release read differently; increment it when their pixels change again."""

UNDEFINED = {0xFFFFFFFF, 0xFFFF}
"""Values of header fields that are not set."""

GREY = {1: "red", 2: "green", 3: "blue", 4: "alpha", 6: "luma", 8: "depth"}
"""Descriptors of single channels, each of which is read as a grey picture."""

RGB, RGBA, ABGR = 50, 51, 52

LUMA_CHROMA = {100: "CbY CrY", 101: "CbYA CrYA", 102: "CbYCr", 103: "CbYCrA"}
"""Descriptors of luma and chroma -> order of the samples."""

UNSUPPORTED = {
    0: "channels that the header does not name (descriptor 0, user-defined)",
    7: "chroma without luma",
    9: "composite video",
}
"""Descriptors that are not supported."""

CHANNELS = {**dict.fromkeys(GREY, 1), RGB: 3, RGBA: 4, ABGR: 4, 100: 2, 101: 3, 102: 3, 103: 4}
"""Samples per pixel, by descriptor."""

BITS = {8, 10, 12, 16, 32, 64}
"""Supported bits per sample; 32 and 64 are floating-point numbers."""

MATRICES = {5: 1, 6: 1, 7: 5, 8: 6, 9: 6, 10: 5}
"""DPX code of a transfer or colorimetric -> code of the matrix in ITU-T H.273."""

BT709 = 1
"""Matrix if the header states none, whatever the size: DPX files do not come from standard-definition video."""

LIMITED, FULL = 1, 2
"""FFmpeg's codes of the range of luma."""

SCANNERS = ((160, b"Lasergraphics Inc."), (1556, b"Scanity"))
"""Offset and name of scanners that do not pad rows of 10-bit samples to whole words."""


@dataclass(frozen=True)
class Layout:
    """The fields of the header, as far as they concern the first image element."""

    order: str
    """Byte order of words: ``>`` or ``<``."""
    start: int
    """Offset of the pixels."""
    elements: int
    width: int
    height: int
    signed: bool
    low: int
    high: int
    """``low`` and ``high`` are the codes of black and white."""
    descriptor: int
    transfer: int
    colorimetric: int
    bits: int
    packing: int
    """0: packed; 1 and 2: filled to whole words, with the unused bits at the lower or upper end."""
    encoding: int
    padding: int
    """Bytes after each row."""
    is_displaced: bool
    """Whether only the generic file header states the offset of the pixels, which OpenImageIO does not read."""

    @property
    def samples(self) -> int:
        """Samples per row."""
        return self.width * CHANNELS[self.descriptor]


def read_layout(data: bytes, name: str) -> Layout:
    """Read the header; raise SequenceError if it is truncated or describes an unsupported kind."""
    if len(data) < USED_BYTES:
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    order = ">" if data.startswith(b"SDPX") else "<"
    (generic,) = struct.unpack_from(f"{order}I", data, 4)
    _, elements, width, height, sign, low, _, high, _ = struct.unpack_from(f"{order}HHIIIIfIf", data, 768)
    descriptor, transfer, colorimetric, bits = data[800:804]
    packing, encoding, start, padding = struct.unpack_from(f"{order}HHII", data, 804)
    is_displaced = not HEADER_BYTES // 2 < start < len(data)
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
        packing=_or_zero(packing),
        encoding=_or_zero(encoding),
        padding=_or_zero(padding),
    )
    if what := _unsupported(found):
        raise SequenceError("frame.unsupported_content", f"frame {name} is a DPX that holds {what}; convert it to RGB")
    return found


def _or_zero(value: int) -> int:
    return 0 if value in UNDEFINED else value


def _unsupported(layout: Layout) -> str | None:
    """Return a description of the unsupported content of a DPX; None if it is supported."""
    descriptor, bits = layout.descriptor, layout.bits
    kind = f"luma and chroma ({LUMA_CHROMA[descriptor]})" if descriptor in LUMA_CHROMA else ""
    if descriptor not in CHANNELS:
        several = f"{descriptor - 148} channels without a name" if 150 <= descriptor <= 156 else "channels"
        return UNSUPPORTED.get(descriptor, f"{several} of kind {descriptor}")
    reasons = {
        f"its channels in {layout.elements} separate elements": layout.elements > 1 and CHANNELS[descriptor] == 1,
        "run lengths": layout.encoding != 0,
        "signed integers": layout.signed,
        f"{kind or 'values'} of {bits} bits": bits not in BITS or (bits > 16 and (kind or descriptor == ABGR)),
        f"{kind} of an odd width": descriptor in {100, 101} and layout.width % 2 == 1,
    }
    return next((what for what, is_so in reasons.items() if is_so), None)


def read(data: bytes, name: str) -> Raster | None:
    """Return the picture of a kind that OpenImageIO reads wrongly; None for kinds that it reads correctly.

    Raises SequenceError if the kind is unsupported or the file is truncated.
    """
    layout = read_layout(data, name)
    is_filled_10 = layout.bits == 10 and layout.packing
    if layout.descriptor in LUMA_CHROMA:
        return _from_luma(_samples(layout, data, name), layout)
    if layout.descriptor == ABGR:
        values = _samples(layout, data, name)[:, :, ::-1]
    elif is_filled_10 and layout.descriptor != RGB:
        values = _samples(layout, data, name)
    else:
        return None
    is_grey = layout.descriptor in GREY
    return Raster(
        expand_bits(values, layout.bits),
        layout.bits,
        # rows that end with a word were read correctly from the first release on
        revision="" if is_grey and not layout.samples % 3 else REVISION,
    )


def revision(data: bytes) -> str:
    """Return the revision of a frame that OpenImageIO reads; see ``Raster.revision``."""
    return REVISION if read_layout(data, "").is_displaced else ""


def _samples(layout: Layout, data: bytes, name: str) -> np.ndarray:
    """Return the codes of a file, ``(height, width, channels)``; raise SequenceError if it is truncated."""
    body = memoryview(data)[layout.start :]
    whole, is_filled_10 = _row_bytes(layout), layout.bits == 10 and layout.packing
    rows, stride = layout.height, whole + layout.padding
    if is_filled_10 and _is_unpadded(layout, data, len(body)):
        # treat all rows as one
        layout = replace(layout, width=layout.width * rows, height=1, padding=0)
        whole = stride = _row_bytes(layout)
    elif not is_filled_10 and not layout.padding and len(body) == (whole + -whole % 4) * rows:
        stride = whole + -whole % 4
    needed = stride * (layout.height - 1) + whole
    if len(body) < needed or not needed:
        raise SequenceError("frame.truncated", f"frame {name} cannot be read: it is truncated")
    last = bytes(body[:needed]) + bytes(stride - whole)
    packed = np.frombuffer(last, np.uint8).reshape(layout.height, stride)[:, :whole]
    codes = _unpacked(np.ascontiguousarray(packed), layout)[:, : layout.samples]
    return codes.reshape(rows, -1, CHANNELS[layout.descriptor])


def _row_bytes(layout: Layout) -> int:
    """Return the bytes of a row without padding; rows of 10-bit and of packed 12-bit samples fill whole words."""
    if layout.bits == 10 and layout.packing:
        return -(-layout.samples // 3) * 4
    if layout.bits in {10, 12} and not layout.packing:
        return -(-layout.samples * layout.bits // 32) * 4
    return layout.samples * (1 if layout.bits == 8 else 2)


def _is_unpadded(layout: Layout, data: bytes, size: int) -> bool:
    """Return whether each row starts in the word in which the previous one ends."""
    padded = (_row_bytes(layout) + layout.padding) * layout.height
    unpadded = -(-layout.samples * layout.height // 3) * 4
    is_known_scanner = any(data[place:].startswith(scanner) for place, scanner in SCANNERS)
    return size != padded and (size == unpadded or (is_known_scanner and size > unpadded))


def _unpacked(rows: np.ndarray, layout: Layout) -> np.ndarray:
    """Unpack rows of bytes to codes; rows of 10-bit codes may have up to two more than there are samples."""
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
        # several channels start at the upper end of a word, a single channel at the lower end
        shifts = shifts[:: -1 if layout.descriptor in GREY else 1]
        return np.stack([(words >> shift) & 0x3FF for shift in shifts], axis=2).reshape(len(rows), -1).astype(np.uint16)
    values = rows.view(f"{layout.order}u2").astype(np.uint16)
    return values >> 4 if layout.bits == 12 and layout.packing == 1 else values & (2**layout.bits - 1)


def _from_luma(samples: np.ndarray, layout: Layout) -> Raster:
    """Convert luma and chroma to RGB in the same way as frames of a video."""
    from dailies.frames import video

    alpha = layout.descriptor in {101, 103}
    if layout.descriptor in {100, 101}:
        # each pixel has its own luma; two neighbours share the chroma samples that precede it
        planes = [samples[:, :, 1], samples[:, ::2, 0], samples[:, 1::2, 0]]
    else:
        planes = [samples[:, :, 1], samples[:, :, 0], samples[:, :, 2]]
    frame = _frame([*planes, samples[:, :, -1]] if alpha else planes, layout)
    coding = video.colour_coding(frame)
    coded = f"{video.MATRICES[coding.matrix][0]}, {'full' if coding.full else 'limited'} range"
    untagged = _matrix(layout) is None
    assumed = [f"matrix not tagged, {video.MATRICES[BT709][0]} assumed"] * untagged
    note = ", ".join([f"luma and chroma are converted to RGB with {coded}", *assumed, *coding.assumed])
    return Raster(video.to_rgb(frame), layout.bits, notes=(note,), revision=REVISION)


def _matrix(layout: Layout) -> int | None:
    """Return the H.273 code of the matrix in the header; None if it states none."""
    return MATRICES.get(layout.colorimetric, MATRICES.get(layout.transfer))


def _frame(planes: list[np.ndarray], layout: Layout) -> "av.VideoFrame":
    """Return luma, chroma and optional alpha as an FFmpeg frame, tagged with the matrix and range in the header."""
    import av

    kind = f"yuv{'a' if len(planes) == 4 else ''}{'422' if layout.descriptor in {100, 101} else '444'}p"
    frame = av.VideoFrame(layout.width, layout.height, kind if layout.bits == 8 else f"{kind}{layout.bits}le")
    dtype = np.dtype("u1" if layout.bits == 8 else "<u2")
    for target, plane in zip(frame.planes, planes, strict=True):
        stored = np.zeros((layout.height, target.line_size // dtype.itemsize), dtype)
        stored[:, : plane.shape[1]] = plane
        target.update(stored.tobytes())
    frame.colorspace = _matrix(layout) or BT709
    limits = (layout.low, layout.high)
    scale = 1 << (layout.bits - 8)
    if limits == (0, (1 << layout.bits) - 1):
        frame.color_range = FULL
    elif limits == (16 * scale, 235 * scale):
        frame.color_range = LIMITED
    return frame


def with_corrected_header(data: bytes, name: str) -> bytes:
    """Return a file whose header states the offset of the pixels and whether rows are padded to 4 bytes.

    OpenImageIO relies on both, and FFmpeg omits them when it writes a DPX.
    """
    layout = read_layout(data, name)
    data = data[:808] + struct.pack(f"{layout.order}I", layout.start) + data[812:]
    row = layout.samples * (1 if layout.bits == 8 else 2)
    if layout.bits == 10 or not row % 4 or len(data) - layout.start != (row + -row % 4) * layout.height:
        return data
    return data[:812] + struct.pack(f"{layout.order}I", -row % 4) + data[816:]
