"""Checks of TGA, Radiance HDR, JPEG 2000 and Cineon files, to reject the kinds that OpenImageIO 3.2.2 reads wrongly.

The tests compare the accepted kinds with Pillow, OpenCV and FFmpeg.
"""

import struct
from collections.abc import Iterator

from dailies.core.errors import SequenceError

SIGNATURES = {
    b"#?": ".hdr",
    b"\0\0\0\x0cjP  \r\n\x87\n": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",
    b"\x80\x2a\x5f\xd7": ".cin",
    b"\xd7\x5f\x2a\x80": ".cin",
}
"""First bytes of a file -> suffix by which OpenImageIO recognises the format. A TGA has no signature."""

TARGA = struct.Struct("<BBBHHBHHHHBB")
"""TGA header.

Fields: id length, has palette, kind, first colour, colours, bits per colour, x, y, width, height, bits, flags.
"""

PALETTE, TRUE_COLOUR, GREY = {1, 9}, {2, 10}, {3, 11}
UNCOMPRESSED, RUN_LENGTHS = {1, 2, 3}, {9, 10, 11}
"""Kinds of TGA, by content and by compression."""

TRUNCATED = "it is truncated"

TARGA_END, ASSOCIATED_ALPHA = b"TRUEVISION-XFILE.\0", 4

CINEON_PIXEL = {8: 3, 10: 4, 16: 6}
"""Bytes per pixel of a Cineon file, by bits per value."""

COLOUR_SPACES = {16: "sRGB", 17: "grey", 18: "sYCC"}
"""Enumerated colour spaces of JPEG 2000 that are read correctly, by code in ISO/IEC 15444-1."""


def identify(data: bytes) -> str | None:
    """Return the suffix by which OpenImageIO recognises a file's format; None for other formats."""
    found = next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), None)
    return found or (".tga" if _is_targa(data) else None)


def refuse_unsupported(data: bytes, suffix: str, name: str) -> None:
    """Raise SequenceError for a kind of file that OpenImageIO reads wrongly without an error."""
    checks = {".tga": _targa_problems, ".cin": _cineon_problems, ".jp2": _jpeg2000_problems}
    for problem in checks[suffix](data) if suffix in checks else ():
        advice = "" if problem == TRUNCATED else "; convert it to PNG first"
        raise SequenceError("frame.unreadable", f"frame {name} cannot be read: {problem}{advice}")


def _is_targa(data: bytes) -> bool:
    if len(data) < TARGA.size:
        return False
    length, has_palette, kind, _, colours, bits, _, _, width, height, depth, _ = TARGA.unpack_from(data)
    if has_palette not in {0, 1} or kind not in {*UNCOMPRESSED, *RUN_LENGTHS} or not (width and height):
        return False
    if (kind in PALETTE) > has_palette or (has_palette and (not colours or bits not in {15, 16, 24, 32})):
        return False
    pixels = width * height * -(-depth // 8) if kind in UNCOMPRESSED else 1
    is_whole = len(data) >= TARGA.size + length + pixels
    return depth in {8, 15, 16, 24, 32} and (is_whole or data.endswith(TARGA_END))


def _targa_problems(data: bytes) -> Iterator[str]:
    _, has_palette, kind, _, _, bits, _, _, _, _, depth, descriptor = TARGA.unpack_from(data)
    if descriptor & 0xC0:
        yield "it is a TGA whose rows are interleaved"
    if kind in GREY and depth == 16 and not descriptor & 0xF:
        yield "it is a TGA of 16-bit grey"
    if kind in PALETTE and has_palette and bits == 32:
        yield "it is a TGA with alpha in its palette"
    if depth == 16 and kind in TRUE_COLOUR and descriptor & 0xF:
        yield "it is a TGA of 16 bits with alpha"
    if data.endswith(TARGA_END):
        (place,) = struct.unpack_from("<I", data, len(data) - 26)
        if place and data[place + 494 : place + 495] == bytes([ASSOCIATED_ALPHA]):
            yield "it is a TGA whose colours are multiplied by alpha"


def _cineon_problems(data: bytes) -> Iterator[str]:
    if len(data) < 712:
        return  # OpenImageIO rejects it with an error
    order = ">" if data.startswith(b"\x80") else "<"
    channels, (interleave, packing, signed, sense) = data[193], data[680:684]
    start, width, height = (struct.unpack_from(f"{order}I", data, place)[0] for place in (4, 200, 204))
    bits = {data[198 + 28 * channel] for channel in range(min(channels, 8))}
    if channels != 3:
        yield f"it is a Cineon file of {channels} channels"
    elif bits not in ({8}, {10}, {16}):
        yield f"it is a Cineon file of {', '.join(map(str, sorted(bits)))} bits"
    elif bits == {10} and packing not in {5, 6}:
        yield "it is a Cineon file whose values are not packed three to a word"
    elif interleave or any(struct.unpack_from(f"{order}2I", data, 684)):
        yield "it is a Cineon file with planar or line-interleaved channels, or with padded rows"
    elif signed or sense:
        yield "it is a Cineon file with signed values, or a negative"
    elif len(data) < start + width * height * CINEON_PIXEL[max(bits)]:
        yield TRUNCATED


def _jpeg2000_problems(data: bytes) -> Iterator[str]:
    for kind, content in _boxes(data):
        if kind != b"jp2h":
            continue
        for inner, about in _boxes(content):
            if inner != b"colr" or len(about) < 7:
                continue
            if about[0] == 1 and (code := int.from_bytes(about[3:7], "big")) not in COLOUR_SPACES:
                yield f"it is a JPEG 2000 in colour space {code}; supported are {', '.join(COLOUR_SPACES.values())}"
            if about[0] in {2, 3} and about[19:23] not in {b"RGB ", b"GRAY"}:
                yield f"it is a JPEG 2000 in {about[19:23].decode('latin-1').strip()}; supported are RGB and grey"


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of the boxes of a JPEG 2000 file; nothing for a bare codestream."""
    place = 0
    while place + 8 <= len(data) and not data.startswith(b"\xff\x4f"):
        length, kind = struct.unpack_from(">I4s", data, place)
        start = 8
        if length == 1 and place + 16 <= len(data):
            (length,), start = struct.unpack_from(">Q", data, place + 8), 16
        length = length or len(data) - place
        if length < start:
            return
        yield kind, data[place + start : place + length]
        place += length
