import io
import struct

import av
import cv2
import numpy as np
import pytest
from dailies.core.errors import SequenceError
from dailies.frames.image import decode, encode, inspect
from helpers.bmp_files import (
    END,
    END_OF_LINE,
    HEIGHT,
    RGB555,
    RGB565,
    WIDTH,
    bmp,
    encoded,
    info,
    literal,
    packed,
    random,
    with_fields,
    with_palette,
    with_runs,
)
from helpers.raising import refused
from PIL import Image

av.logging.set_level(av.logging.PANIC)


def channels_of(data):
    picture = decode(data, "a.bmp")
    colours = picture.pixels
    return colours if picture.alpha is None else np.dstack([colours, picture.alpha])


def by_pillow(data):
    image = Image.open(io.BytesIO(data))
    return np.asarray(image.convert("RGBA" if image.mode == "RGBA" else "RGB"))


def by_opencv(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("rejected")
    image = image[:, :, None].repeat(3, axis=2) if image.ndim == 2 else image
    return image[:, :, [2, 1, 0, 3][: image.shape[2]]]


def by_ffmpeg(data):
    context = av.CodecContext.create("bmp", "r")
    frame = [*context.decode(av.Packet(data)), *context.decode(None)][0]
    return frame.to_ndarray(format="rgba" if frame.format.name in {"rgba", "bgra", "argb", "abgr"} else "rgb24")


READERS = (by_pillow, by_opencv, by_ffmpeg)


def read_by_others(data):
    """Yield the RGB pixels of every other reader that supports the file."""
    for reader in READERS:
        try:
            yield reader(data)[:, :, :3].astype(int)
        except (OSError, ValueError, av.FFmpegError, cv2.error):
            continue


def others_agree(data, expected, *, at_least, within=0):
    """Return whether enough of the other readers return the expected colours."""
    return sum(abs(found - expected[:, :, :3]).max() <= within for found in read_by_others(data)) >= at_least


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "about",
    [
        {},
        {"top_down": True},
        {"gap": 100},
        {"count": 300},
        {"size": 12},
        {"size": 16},
        {"size": 64},
        {"size": 52},
        {"size": 108},
        {"size": 124},
    ],
    ids=str,
)
def test_a_palette_is_looked_up(bits, about):
    data, expected = with_palette(bits, **about)

    np.testing.assert_array_equal(channels_of(data), expected)
    # no other reader supports 2 bits and the shortest OS/2 header
    assert others_agree(data, expected, at_least=0 if bits == 2 or about.get("size") == 16 else 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_index_beyond_the_palette_is_black_and_noted(bits):
    data, expected = with_palette(bits, count=3)
    indices = random(1).integers(0, 1 << bits, (HEIGHT, WIDTH))
    data_beyond = data[: -len(packed(indices, bits))] + packed(indices, bits)
    expected = np.where((indices < 3)[:, :, None], expected_colours(3)[np.minimum(indices, 2)], 0)

    np.testing.assert_array_equal(channels_of(data_beyond), expected)
    assert inspect(data_beyond, "a.bmp").notes == ("pixels whose colour is not in the palette are black",)
    assert inspect(data_beyond, "a.bmp").revision
    assert not inspect(data, "a.bmp").notes
    assert others_agree(data_beyond, expected, at_least=0 if bits == 2 else 3)


def expected_colours(count):
    return random().integers(0, 256, (count, 3), dtype=np.uint8)


def replicated(codes, fields):
    """Repeat the bits of codes until they fill 8 bits, or 16 if one channel has more than 8."""
    width = 16 if max(count for _, count in fields) > 8 else 8
    text = [[f"{{:0{count}b}}" for _, count in fields]]
    planes = [
        [int((text[0][index].format(value) * width)[:width], 2) for value in codes[:, :, index].ravel()]
        for index in range(len(fields))
    ]
    return np.dstack([np.reshape(plane, codes.shape[:2]) for plane in planes])


FIELDS = {
    "565": (16, RGB565),
    "bgr565": (16, RGB565[::-1]),
    "555": (16, RGB555),
    "bgr555": (16, RGB555[::-1]),
    "444": (16, ((8, 4), (4, 4), (0, 4))),
    "231": (16, ((4, 2), (1, 3), (0, 1))),
    "xrgb": (32, ((16, 8), (8, 8), (0, 8))),
    "xbgr": (32, ((0, 8), (8, 8), (16, 8))),
    "rgbx": (32, ((24, 8), (16, 8), (8, 8))),
    "bgrx": (32, ((8, 8), (16, 8), (24, 8))),
    "101010": (32, ((20, 10), (10, 10), (0, 10))),
    "111110": (32, ((21, 11), (10, 11), (0, 10))),
    "7187": (32, ((25, 7), (7, 18), (0, 7))),
}

TRANSPARENT = {
    "4444": (16, ((8, 4), (4, 4), (0, 4), (12, 4))),
    "5551": (16, (*RGB555, (15, 1))),
    "argb": (32, ((16, 8), (8, 8), (0, 8), (24, 8))),
    "abgr": (32, ((0, 8), (8, 8), (16, 8), (24, 8))),
    "rgba": (32, ((24, 8), (16, 8), (8, 8), (0, 8))),
    "bgra": (32, ((8, 8), (16, 8), (24, 8), (0, 8))),
    "61754": (32, ((26, 6), (9, 17), (4, 5), (0, 4))),
}


@pytest.mark.parametrize("size", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("name", FIELDS)
def test_colour_masks_may_be_in_any_order(name, size):
    bits, fields = FIELDS[name]
    data, codes = with_fields(bits, fields, size=size)

    found, deep = channels_of(data), max(count for _, count in fields) > 8
    # 18 bits are truncated to 16
    codes = np.minimum(codes, codes >> [max(0, count - 16) for _, count in fields])
    fields = [(start, min(count, 16)) for start, count in fields]
    np.testing.assert_array_equal(found, replicated(codes, fields))
    assert (inspect(data, "a.bmp").mode, found.dtype) == ("RGB", "uint16" if deep else "uint8")
    if name in {"565", "555", "xrgb", "rgbx"} or (name in {"xbgr", "bgrx"} and size > 52):
        assert min(abs(each - found).max() for each in read_by_others(data)) <= 1


@pytest.mark.parametrize(("size", "compression"), [(56, 3), (108, 3), (124, 3), (40, 6)])
@pytest.mark.parametrize(("bits", "fields"), TRANSPARENT.values(), ids=TRANSPARENT)
def test_an_alpha_mask_may_be_anywhere(bits, fields, size, compression):
    data, codes = with_fields(bits, fields, size=size, compression=compression)

    codes = np.minimum(codes, codes >> [max(0, count - 16) for _, count in fields])
    np.testing.assert_array_equal(channels_of(data), replicated(codes, [(s, min(n, 16)) for s, n in fields]))
    if bits == 32 and size != 40 and max(n for _, n in fields) == 8:
        assert any(np.array_equal(each, codes[:, :, :3]) for each in read_by_others(data))


@pytest.mark.parametrize("size", [12, 40, 52, 64, 108, 124])
@pytest.mark.parametrize("colours", [0, 7, 256])
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_palette_of_a_true_colour_file_is_skipped(bits, colours, size):
    fields = RGB555 if bits == 16 else ((16, 8), (8, 8), (0, 8))
    data, codes = with_fields(bits, fields, size=size, compression=0, colours=colours)

    expected = replicated(codes, fields)
    np.testing.assert_array_equal(channels_of(data), expected)
    assert others_agree(data, expected, at_least=1, within=0 if bits > 16 else 1)


def test_a_nonzero_fourth_byte_is_read_as_alpha_and_noted():
    data, codes = with_fields(32, TRANSPARENT["argb"][1], compression=0)

    np.testing.assert_array_equal(channels_of(data), codes)
    assert inspect(data, "a.bmp").notes == (
        "the fourth byte of each pixel, which the format does not define, is read as alpha",
    )


def runs_of(indices, bits, *, is_literal, top_down):
    rows = indices if top_down else indices[::-1]
    return b"".join((literal if is_literal else encoded)(row, bits) + END_OF_LINE for row in rows) + END


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("is_literal", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths_are_decoded(bits, is_literal, top_down):
    indices = random(1).integers(0, 4, (HEIGHT, WIDTH))
    runs = runs_of(indices, bits, is_literal=is_literal, top_down=top_down)
    data, expected = with_runs(indices, runs, bits=bits, top_down=top_down)

    np.testing.assert_array_equal(channels_of(data), expected)
    assert others_agree(data, expected, at_least=3)


@pytest.mark.parametrize("bits", [4, 8])
def test_pixels_skipped_by_run_lengths_have_the_first_colour(bits):
    indices = random(1).integers(0, 4, (HEIGHT, WIDTH))
    indices[4, 5:] = 0  # a row that ends early
    indices[3, 3:5] = 0  # a step to the right
    indices[1, 6:] = indices[0, :6] = 0  # a step up
    rows = [
        literal(indices[5], bits),
        literal(indices[4, :5], bits),
        literal(indices[3, :3], bits) + b"\0\2\2\0" + literal(indices[3, 5:], bits),
        literal(indices[2], bits),
        literal(indices[1, :6], bits) + b"\0\2\0\1" + literal(indices[0, 6:], bits),
    ]
    data, expected = with_runs(indices, END_OF_LINE.join(rows) + END_OF_LINE + END, bits=bits)

    np.testing.assert_array_equal(channels_of(data), expected)
    assert others_agree(data, expected, at_least=2 if bits == 4 else 3)


def test_run_lengths_may_end_before_the_last_row():
    indices = random(1).integers(0, 4, (HEIGHT, WIDTH))
    indices[:2] = 0
    runs = END_OF_LINE.join(encoded(row, 8) for row in indices[:1:-1]) + END
    data, expected = with_runs(indices, runs)

    np.testing.assert_array_equal(channels_of(data), expected)
    assert others_agree(data, expected, at_least=2)


def test_a_run_with_an_index_beyond_the_palette_is_black_and_noted():
    indices = random(1).integers(0, 5, (HEIGHT, WIDTH))
    data, expected = with_runs(indices, runs_of(indices, 8, is_literal=True, top_down=False), count=3)

    np.testing.assert_array_equal(channels_of(data), expected)
    assert inspect(data, "a.bmp").notes == ("pixels whose colour is not in the palette are black",)


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_run_lengths_without_an_end_marker_are_rejected(cut):
    indices = random(1).integers(1, 5, (HEIGHT, WIDTH))
    data, _ = with_runs(indices, runs_of(indices, 8, is_literal=False, top_down=False))

    with refused(SequenceError, "frame.truncated", "frame a.bmp"):
        inspect(data[:-cut], "a.bmp")


@pytest.mark.parametrize(
    ("header", "code", "what"),
    [
        (info(64), "frame.unsupported_content", "64 bits (compression code 0)"),
        (info(0, 5), "frame.unsupported_content", "PNG"),
        (info(0, 4), "frame.unsupported_content", "JPEG"),
        (info(32, 11), "frame.unsupported_content", "CMYK"),
        (info(1, 3, size=64), "frame.unsupported_content", "Huffman"),
        (info(24, 4, size=64), "frame.unsupported_content", "run lengths of 24 bits"),
        (info(8, 9), "frame.unsupported_content", "code 9"),
        (b"\x99\0\0\0" + bytes(200), "frame.unknown_header", "153 bytes"),
        (info(24, height=0), "frame.impossible_size", "9×0"),
        (info(8, height=2_000_000_000), "frame.impossible_size", "9×2000000000"),
        (info(24, height=60), "frame.truncated", ""),
        (info(8)[:20], "frame.truncated", ""),
        (info(8), "frame.no_palette", ""),
    ],
)
def test_unsupported_and_damaged_headers_are_rejected_with_the_reason(header, code, what):
    data = bmp(header, bytes(200 if len(header) > 20 else 0))

    for read in (inspect, decode):
        with refused(SequenceError, code, "frame a.bmp", what):
            read(data, "a.bmp")


@pytest.mark.parametrize("masks", [(0xFF00, 0x0FF0, 0xF), (0xFF00FF00, 0xFF0000, 0xFF), (0, 0, 0)])
def test_overlapping_or_empty_masks_are_rejected(masks):
    data = bmp(info(32, 3, masks=masks), bytes(4 * WIDTH * HEIGHT))

    with refused(SequenceError, "frame.bad_masks", "frame a.bmp"):
        inspect(data, "a.bmp")


@pytest.mark.parametrize(
    ("data", "revision"),
    [
        (with_palette(8)[0], ""),
        (with_palette(4, size=12)[0], ""),
        (with_palette(8, size=64)[0], "bmp-1"),
        (with_fields(24, FIELDS["xrgb"][1], compression=0)[0], ""),
        (with_fields(16, RGB555, compression=0)[0], ""),
        (with_fields(16, RGB565[::-1])[0], ""),
        (with_fields(16, *TRANSPARENT["5551"][1:], size=108)[0], "bmp-1"),
        (with_fields(32, TRANSPARENT["argb"][1], compression=0)[0], ""),
        (with_fields(32, TRANSPARENT["argb"][1], size=108)[0], ""),
        (with_fields(32, TRANSPARENT["rgba"][1], size=108)[0], "bmp-1"),
        (with_fields(32, FIELDS["xbgr"][1])[0], "bmp-1"),
    ],
)
def test_only_files_that_the_first_release_read_differently_have_a_revision(data, revision):
    assert inspect(data, "a.bmp").revision == revision


def test_the_resolution_is_kept_in_a_tiff():
    picture = decode(with_palette(8)[0], "a.bmp")

    again = Image.open(io.BytesIO(encode(picture.pixels, picture, "tiff")))

    assert again.info["dpi"] == pytest.approx((72.009, 72.009), abs=0.02)


def test_a_grey_palette_of_8_bits_is_grey():
    grey = b"".join(struct.pack("<4B", value, value, value, 0) for value in range(256))
    data = bmp(info(8), packed(random().integers(0, 256, (HEIGHT, WIDTH)), 8), grey)

    assert inspect(data, "a.bmp").mode == "L"
