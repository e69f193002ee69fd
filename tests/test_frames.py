import io
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from dailies.errors import SequenceError
from dailies.frames import decode, encode, inspect
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def pixels(height=5, width=7, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(array, colour):
    """Write what Pillow cannot: a PNG of 16 bits per channel."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def tiff16(array):
    """Write an uncompressed 16-bit RGB TIFF."""
    height, width = array.shape[:2]
    data = array.astype("<u2").tobytes()
    bits = 8 + len(data)
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 4, 1, height),
        (279, 4, 1, len(data)),
    ]
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, bits + 6) + data + struct.pack("<3H", 16, 16, 16) + table + bytes(4)


def read_png(data):
    """Read an 8-bit RGB PNG by the book, checksums included: a second reader that shares nothing with Pillow."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack_from(">I", data, place + 8 + length)[0] == zlib.crc32(kind + body)
        chunks.append((kind, body))
        place += 12 + length
    assert chunks[-1] == (b"IEND", b"")
    width, height, *rest = struct.unpack(">IIBBBBB", dict(chunks)[b"IHDR"])
    assert rest == [8, 2, 0, 0, 0]
    lines = zlib.decompress(b"".join(body for kind, body in chunks if kind == b"IDAT"))
    rows, above = [], np.zeros(width * 3, int)
    for line in np.frombuffer(lines, np.uint8).reshape(height, 1 + width * 3).astype(int):
        above = unfiltered(line[0], line[1:], above)
        rows.append(above)
    return np.array(rows, np.uint8).reshape(height, width, 3)


def unfiltered(kind, line, above):
    row = np.zeros_like(line)
    for i, value in enumerate(line):
        left, corner = (row[i - 3], above[i - 3]) if i >= 3 else (0, 0)
        near = left + above[i] - corner
        paeth = min((left, above[i], corner), key=lambda guess: abs(near - guess))
        row[i] = (value + (0, left, above[i], (left + above[i]) // 2, paeth)[kind]) % 256
    return row


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 64), (33, 2)])
def test_a_written_frame_comes_back_bit_for_bit(size):
    frame = pixels(*size)

    again = decode(encode(frame), "a.png")

    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, frame)


def test_every_code_value_survives():
    frame = np.arange(256 * 3, dtype=np.uint16).reshape(16, 16, 3).astype(np.uint8)

    np.testing.assert_array_equal(decode(encode(frame), "a.png"), frame)


def test_a_written_frame_is_a_png_for_a_second_reader():
    smooth = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))  # makes the encoder use its filters

    for frame in (pixels(), smooth, np.zeros((3, 3, 3), np.uint8)):
        np.testing.assert_array_equal(read_png(encode(frame)), frame)


def test_a_frame_that_is_not_contiguous_is_written_as_it_looks():
    frame = pixels(8, 8)[::2, ::-1]

    np.testing.assert_array_equal(decode(encode(frame), "a.png"), frame)


def test_a_grey_frame_has_three_equal_channels():
    grey = pixels()[:, :, 0]
    data = saved(Image.fromarray(grey), "PNG")

    assert (inspect(data, "a.png").mode, inspect(data, "a.png").bit_depth) == ("L", 8)
    np.testing.assert_array_equal(decode(data, "a.png"), np.repeat(grey[:, :, None], 3, axis=2))


def test_alpha_is_dropped_and_colours_stay():
    rgba = np.dstack([pixels(), np.full((5, 7), 3, np.uint8)])
    data = saved(Image.fromarray(rgba), "PNG")

    assert inspect(data, "a.png").mode == "RGBA"
    np.testing.assert_array_equal(decode(data, "a.png"), rgba[:, :, :3])


def test_a_palette_frame_shows_its_colours():
    image = Image.new("P", (7, 5), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])
    data = saved(image, "PNG")

    assert inspect(data, "a.png").mode == "P"
    np.testing.assert_array_equal(decode(data, "a.png"), np.full((5, 7, 3), (10, 20, 30)))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_cmyk_frame_becomes_rgb(kind):
    data = saved(Image.new("CMYK", (7, 5), (255, 0, 0, 0)), kind)

    assert inspect(data, "a").mode == "CMYK"
    np.testing.assert_allclose(decode(data, "a"), np.full((5, 7, 3), (0, 255, 255)), atol=2)


def test_a_bilevel_frame_is_black_and_white():
    data = saved(Image.fromarray(np.eye(5, 7) > 0), "PNG")

    assert (inspect(data, "a.png").mode, inspect(data, "a.png").bit_depth) == ("1", 1)
    np.testing.assert_array_equal(decode(data, "a.png"), np.repeat(np.eye(5, 7)[:, :, None] * 255, 3, axis=2))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
    ids=["png", "bmp", "tiff", "lzw"],
)
def test_lossless_frames_of_any_size_are_accepted(kind, options):
    # file offsets and line lengths that contain "16" were once taken for 16 bits
    for width in range(1, 120):
        frame = pixels(3, width)
        data = saved(Image.fromarray(frame), kind, **options)

        header = inspect(data, "a")

        assert (header.width, header.height, header.bit_depth) == (width, 3, 8)
        np.testing.assert_array_equal(decode(data, "a"), frame)


def test_a_16_bit_bmp_has_less_than_8_bits_per_channel():
    rows = np.full((5, 8), 0b11111_000000_00000, "<u2").tobytes()
    masks = struct.pack("<3I", 0b11111_000000_00000, 0b111111_00000, 0b11111)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 5, 1, 16, 3, len(rows), 0, 0, 0, 0) + masks
    data = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows

    np.testing.assert_array_equal(decode(data, "a.bmp"), np.full((5, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (png16(pixels().astype(np.uint16), colour=2), 16),
        (png16(pixels()[:, :, 0].astype(np.uint16), colour=0), 16),
        (tiff16(pixels()), 16),
        (saved(Image.fromarray(pixels()[:, :, 0].astype(np.uint16)), "TIFF"), 16),
        (saved(Image.fromarray(pixels()[:, :, 0].astype(np.float32)), "TIFF"), 32),
        (saved(Image.fromarray(pixels()[:, :, 0].astype(np.int32)), "TIFF", compression="tiff_lzw"), 32),
    ],
    ids=["rgb png", "grey png", "rgb tiff", "grey tiff", "float tiff", "lzw tiff"],
)
def test_a_frame_of_more_than_8_bits_is_refused_and_not_rounded(data, bits):
    for read in (inspect, decode):
        with pytest.raises(SequenceError) as error:
            read(data, "deep.png")
        assert str(error.value) == (
            f"frame deep.png has {bits} bits per channel; only frames of 8 can be rendered without loss, "
            "convert it first"
        )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "it is not a PNG, JPEG, BMP or TIFF image"),
        (saved(Image.fromarray(pixels()), "GIF"), "it is not a PNG, JPEG, BMP or TIFF image"),
    ],
    ids=["empty", "html", "gif"],
)
def test_what_is_no_frame_is_named_with_the_reason(data, reason):
    for read in (inspect, decode):
        with pytest.raises(SequenceError) as error:
            read(data, "bad.png")
        assert str(error.value) == f"frame bad.png cannot be read: {reason}"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_truncated_frame_is_refused(kind):
    data = saved(Image.fromarray(pixels(40, 40)), kind)

    for part in (0.3, 0.6, 0.9):
        with pytest.raises(SequenceError, match=r"frame cut\.x cannot be read: "):
            inspect(data[: int(len(data) * part)], "cut.x")


def test_a_flipped_byte_before_the_end_mark_of_a_png_is_noticed():
    data = encode(pixels())

    for place in range(len(data) - 12):
        broken = bytearray(data)
        broken[place] ^= 0x10
        with pytest.raises(SequenceError):
            inspect(bytes(broken), "a.png")


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF"]),
    flips=st.lists(st.tuples(st.integers(0, 100), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_frame_is_read_or_refused(kind, flips):
    data = bytearray(saved(Image.fromarray(pixels()), kind))
    for place, value in flips:
        data[min(place, len(data) - 1)] = value

    with warnings.catch_warnings(), suppress(SequenceError):
        warnings.simplefilter("ignore")
        inspect(bytes(data), "a.png")
        assert decode(bytes(data), "a.png").dtype == np.uint8
