import io
import pickle
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from dailies.core.errors import SequenceError
from dailies.frames import png
from dailies.frames.image import convert_depth, decode, encode, inspect, is_browser_exact, output_dtype
from helpers.frame_files import colours, film, pixels, plain, saved, written
from helpers.raising import refused
from PIL import Image


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png16(array, colour):
    """Return a PNG with 16 bits per channel, which Pillow cannot write."""
    height, width = array.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


def tiff16(array):
    """Return an uncompressed 16-bit RGB TIFF."""
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


def tifffile_of(array, **options):
    """Return a TIFF written with tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


FORMATS = ["auto", "png", "png16", "exr", "tiff"]


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 64), (33, 2)])
def test_8_bit_frames_survive_every_format(size, output_format):
    frame = pixels(*size)

    again = decode(encode(frame, plain(frame), output_format), "a").pixels

    np.testing.assert_array_equal(convert_depth(again, "uint8"), frame)


@pytest.mark.parametrize("output_format", FORMATS)
def test_every_8_bit_value_survives_every_format(output_format):
    frame = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)

    again = decode(encode(frame, plain(frame), output_format), "a").pixels

    np.testing.assert_array_equal(convert_depth(again, "uint8"), frame)


@pytest.mark.parametrize("output_format", ["auto", "png16", "tiff"])
def test_every_16_bit_value_survives_lossless_formats(output_format):
    frame = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, axis=2)
    data = encode(frame, plain(frame), output_format)

    assert inspect(data, "a").bit_depth == 16
    np.testing.assert_array_equal(decode(data, "a").pixels, frame)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3), (4, 7, 3)])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_deep_frames_of_any_shape_survive(shape, dtype):
    frame = np.random.default_rng(0).integers(0, 2048, shape).astype(dtype)

    np.testing.assert_array_equal(decode(encode(frame, plain(frame)), "a", transfer=None).pixels, frame)


def test_every_half_float_survives():
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    frame = np.where(np.isfinite(halves), halves, 0).reshape(256, 256, 1).repeat(3, axis=2)
    data = encode(frame, plain(frame))

    assert inspect(data, "a").floating
    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, frame)


@pytest.mark.parametrize(("dtype", "side"), [("uint8", 16), ("uint16", 256)])
def test_every_integer_survives_conversion_to_float(dtype, side):
    frame = np.arange(side * side, dtype=dtype).reshape(side, side, 1).repeat(3, axis=2)

    np.testing.assert_array_equal(convert_depth(convert_depth(frame, "float32"), dtype), frame)


def test_integers_and_floats_cover_the_same_range():
    ends = np.array([0, 255], np.uint8)

    assert convert_depth(ends, "uint16").tolist() == [0, 65535]
    assert convert_depth(ends, "float32").tolist() == [0, 1]
    assert convert_depth(np.array([128, 129, 65535], np.uint16), "uint8").tolist() == [0, 1, 255]
    assert convert_depth(np.array([-1, 0.5, 2, np.nan, np.inf], np.float32), "uint8").tolist() == [0, 128, 255, 0, 255]


@pytest.mark.parametrize(
    ("output_format", "dtypes"),
    [
        ("auto", ["uint8", "uint16", "float32"]),
        ("tiff", ["uint8", "uint16", "float32"]),
        ("png", ["uint8"] * 3),
        ("png16", ["uint16"] * 3),
        ("exr", ["float32"] * 3),
    ],
)
def test_the_output_has_the_requested_depth_or_that_of_the_source(output_format, dtypes):
    for given_dtype, dtype in zip(["uint8", "uint16", "float32"], dtypes, strict=True):
        picture = plain(np.zeros((5, 7, 3), given_dtype))
        data = encode(np.zeros((5, 7, 3), given_dtype), picture, output_format)

        assert output_dtype(picture, output_format) == dtype
        assert decode(data, "a").pixels.dtype == dtype


def test_rendered_values_of_another_depth_are_converted():
    data = encode(np.full((5, 7, 3), 0.5, np.float32), plain(pixels()), "png16")

    assert decode(data, "a").pixels[0, 0].tolist() == [32768] * 3


def test_pillow_reads_written_pngs():
    smooth = np.tile(np.arange(64, dtype=np.uint8)[None, :, None], (48, 1, 3))  # exercises the filters

    for frame in (pixels(), smooth, np.zeros((3, 3, 3), np.uint8)):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode(frame, plain(frame))))), frame)


@pytest.mark.parametrize("output_format", ["png", "exr", "tiff"])
def test_the_bytes_of_a_frame_are_reproducible(output_format):
    frame = pixels()
    data = encode(frame, plain(frame), output_format)

    assert encode(frame, plain(frame), output_format) == data
    assert not re.search(rb"20\d\d:\d\d:\d\d \d\d:\d\d", data), "the file holds the time of writing"


def test_a_non_contiguous_frame_is_written_correctly():
    frame = pixels(8, 8)[::2, ::-1]

    for output_format in ("png", "tiff"):
        np.testing.assert_array_equal(decode(encode(frame, plain(frame), output_format), "a").pixels, frame)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_dpx_of_every_depth_is_read(bits):
    codes = np.arange(5 * 7 * 3).reshape(5, 7, 3) * (2**bits - 1) // 104
    full = codes.astype(np.uint8) if bits == 8 else np.round(codes * (65535 / (2**bits - 1))).astype(np.uint16)
    data = written(full, ".dpx", oiio__BitsPerSample=bits)

    picture, header = decode(data, "a.dpx"), inspect(data, "a.dpx")

    assert (header.bit_depth, header.mode, header.floating) == (bits, "RGB", False)
    assert picture.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert picture.pixels.min() == 0
    assert picture.pixels.max() == np.iinfo(picture.pixels.dtype).max
    np.testing.assert_array_equal(picture.pixels >> (0 if bits == 8 else 16 - bits), codes)


def dpx_of(rows, *, bits, width, height, order=">"):
    """Return a DPX with the given bytes of each row."""
    header = bytearray(2048)
    body = b"".join(rows)
    struct.pack_into(f"{order}I I8sI", header, 0, 0x53445058, 2048, b"V1.0", 2048 + len(body))
    struct.pack_into(f"{order}2H2I", header, 768, 0, 1, width, height)
    struct.pack_into(f"{order}4B2HI", header, 800, 50, 2, 2, bits, 0 if bits == 8 else 1, 0, 2048)
    return bytes(header) + body


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("bits", "width"), [(8, 6), (8, 7), (8, 8), (16, 7), (16, 8)])
def test_rows_of_a_dpx_may_be_padded_to_whole_words(bits, width, padded, order):
    frame = np.random.default_rng(0).integers(0, 2**bits, (5, width, 3), dtype=f"uint{bits}")
    rows = [row.astype(f"{order}u{bits // 8}").tobytes() for row in frame]
    data = dpx_of([row + bytes(-len(row) % 4 * padded) for row in rows], bits=bits, width=width, height=5, order=order)

    np.testing.assert_array_equal(decode(data, "a.dpx").pixels, frame)


def test_white_of_a_12_bit_dpx_is_white():
    codes = np.array([[[0, 1, 4095], [2048, 16, 4094]]], np.uint16)

    found = decode(dpx_of([(codes << 4).astype(">u2").tobytes()], bits=12, width=2, height=1), "a.dpx").pixels

    np.testing.assert_array_equal(found, codes << 4 | codes >> 8)


def test_a_10_bit_tiff_is_expanded():
    codes = np.arange(105).reshape(5, 7, 3) * 1023 // 104
    data = written(np.round(codes * (65535 / 1023)).astype(np.uint16), ".tif", oiio__BitsPerSample=10)

    assert inspect(data, "a.tif").bit_depth == 10
    np.testing.assert_array_equal(decode(data, "a.tif").pixels >> 6, codes)


@pytest.mark.parametrize(
    "data",
    [png16(pixels().astype(np.uint16) * 257 + 3, colour=2), tiff16(pixels().astype(np.uint16) * 257 + 3)],
    ids=["png", "tiff"],
)
def test_16_bit_files_are_read(data):
    frame = pixels().astype(np.uint16) * 257 + 3

    assert (inspect(data, "a").mode, inspect(data, "a").bit_depth) == ("RGB", 16)
    np.testing.assert_array_equal(decode(data, "a").pixels, frame)


def test_a_lossless_webp_is_read():
    data = saved(Image.fromarray(pixels()), "WEBP", lossless=True)

    np.testing.assert_array_equal(decode(data, "a.webp").pixels, pixels())


@pytest.mark.parametrize(("suffix", "depth"), [(".exr", "half"), (".exr", "float"), (".tif", "float")])
def test_floats_are_unchanged_without_a_transfer(suffix, depth):
    values = colours(5, 7, 3).astype(np.float16 if depth == "half" else np.float32)
    data = written(values.astype(np.float32), suffix, depth=depth)

    header = inspect(data, "a")

    assert (header.floating, header.bit_depth) == (True, 16 if depth == "half" else 32)
    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values.astype(np.float32))


def test_clip_clamps_floats_and_removes_nan():
    values = np.zeros((1, 6, 3), np.float32) + np.array([-1, 0.25, 7, np.nan, np.inf, -np.inf], np.float32)[:, None]
    data = written(values, ".exr", depth="half")

    assert decode(data, "a").pixels[0, :, 0].tolist() == [0, 0.25, 1, 0, 1, 0]
    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values)


@pytest.mark.parametrize("beside", [0, np.nan])
def test_values_beyond_half_floats_are_clamped(beside):
    frame = np.array([[[1e9, -1e9, 65504], [beside] * 3]], np.float32)

    again = decode(encode(frame, plain(frame)), "a", transfer=None).pixels

    np.testing.assert_array_equal(again, [[[65504, -65504, 65504], [beside] * 3]])


def test_a_grey_frame_has_three_equal_channels_and_is_written_as_grey():
    grey = pixels()[:, :, 0]
    data = saved(Image.fromarray(grey), "PNG")

    picture = decode(data, "a.png")
    again = encode(picture.pixels, picture)

    assert (inspect(data, "a.png").mode, inspect(data, "a.png").bit_depth, picture.grey) == ("L", 8, True)
    np.testing.assert_array_equal(picture.pixels, np.repeat(grey[:, :, None], 3, axis=2))
    assert Image.open(io.BytesIO(again)).mode == "L"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(again))), grey)


def test_a_coloured_render_of_a_grey_frame_is_written_as_rgb():
    picture = decode(saved(Image.fromarray(pixels()[:, :, 0]), "PNG"), "a.png")

    assert Image.open(io.BytesIO(encode(pixels(), picture))).mode == "RGB"


@pytest.mark.parametrize("output_format", ["png16", "exr", "tiff"])
def test_a_grey_frame_stays_grey_in_every_format(output_format):
    picture = decode(png16(pixels()[:, :, 0].astype(np.uint16) * 257, colour=0), "a.png")

    assert inspect(encode(picture.pixels, picture, output_format), "a").mode == "L"


def rgba(seed=0):
    return np.dstack([pixels(), pixels(seed=seed + 5)[:, :, 0]])


@pytest.mark.parametrize(
    "data",
    [
        saved(Image.fromarray(rgba()), "PNG"),
        saved(Image.fromarray(rgba()), "TIFF"),
        saved(Image.fromarray(rgba()), "WEBP", lossless=True, exact=True),
    ],
    ids=["png", "tiff", "webp"],
)
@pytest.mark.parametrize("output_format", ["png", "tiff"])
def test_alpha_and_the_colours_under_it_are_kept(data, output_format):
    picture = decode(data, "a")
    rendered = 255 - picture.pixels

    again = np.asarray(Image.open(io.BytesIO(encode(rendered, picture, output_format))))

    assert inspect(data, "a").mode == "RGBA"
    np.testing.assert_array_equal(picture.pixels, rgba()[:, :, :3])
    np.testing.assert_array_equal(again, np.dstack([255 - rgba()[:, :, :3], rgba()[:, :, 3]]))


@pytest.mark.parametrize("suffix", [".bmp", ".dpx"])
def test_alpha_of_bmp_and_dpx_does_not_change_colours(suffix):
    data = saved(Image.fromarray(rgba()), "BMP") if suffix == ".bmp" else written(rgba(), suffix)
    picture = decode(data, "a")

    again = np.asarray(Image.open(io.BytesIO(encode(picture.pixels, picture))))

    np.testing.assert_array_equal(again, rgba())


def test_an_unused_fourth_byte_of_a_bmp_is_not_alpha():
    data = saved(Image.fromarray(rgba() * np.array([1, 1, 1, 0], np.uint8)), "BMP")
    picture = decode(data, "a.bmp")

    again = np.asarray(Image.open(io.BytesIO(encode(picture.pixels, picture))).convert("RGBA"))

    np.testing.assert_array_equal(again, rgba() | np.array([0, 0, 0, 255], np.uint8))


def test_16_bit_alpha_is_kept():
    frame = np.random.default_rng(1).integers(0, 65536, (5, 7, 4), dtype=np.uint16)
    picture = decode(png16(frame, colour=6), "a.png")

    again = decode(encode(picture.pixels, picture), "a.png")

    np.testing.assert_array_equal(np.dstack([again.pixels, again.alpha]), frame)


def test_alpha_of_an_upscaled_frame_repeats_its_values():
    picture = decode(saved(Image.fromarray(rgba()), "PNG"), "a.png")
    larger = picture.pixels.repeat(2, axis=0).repeat(2, axis=1)

    again = decode(encode(larger, picture), "a.png")

    np.testing.assert_array_equal(again.alpha, picture.alpha.repeat(2, axis=0).repeat(2, axis=1))


def test_rendered_alpha_replaces_that_of_the_source():
    picture = decode(saved(Image.fromarray(rgba()), "PNG"), "a.png")

    np.testing.assert_array_equal(decode(encode(rgba(seed=9), picture), "a.png").alpha, rgba(seed=9)[:, :, 3])
    np.testing.assert_array_equal(decode(encode(rgba(seed=9), plain(pixels())), "a").alpha, rgba(seed=9)[:, :, 3])


def test_grey_with_alpha_keeps_both():
    data = saved(Image.fromarray(np.dstack([pixels()[:, :, 0], pixels()[:, :, 1]]), "LA"), "PNG")
    picture = decode(data, "a.png")

    assert (inspect(data, "a.png").mode, picture.grey) == ("LA", True)
    again = Image.open(io.BytesIO(encode(picture.pixels, picture)))
    np.testing.assert_array_equal(np.asarray(again), pixels()[:, :, :2])


def test_only_exr_colours_are_multiplied_by_alpha():
    half = np.full((1, 1, 4), [0.25, 0.5, 0, 0.5], np.float32)
    exr = written(half, ".exr", depth="half")
    picture = decode(exr, "a.exr")

    as_png = decode(encode(picture.pixels, picture, "png16"), "a.png")
    again = decode(encode(as_png.pixels, as_png, "exr"), "a.exr")

    np.testing.assert_array_equal(picture.pixels, half[:, :, :3])
    assert as_png.pixels.tolist() == [[[32768, 65535, 0]]]
    np.testing.assert_allclose(again.pixels, half[:, :, :3], atol=1e-4)


def test_several_pages_of_a_tiff_are_noted():
    data = saved(Image.fromarray(pixels()), "TIFF", save_all=True, append_images=[Image.new("RGB", (7, 5))])

    assert inspect(data, "a.tif").notes == ("the file holds several images; only the first is rendered",)
    np.testing.assert_array_equal(decode(data, "a.tif").pixels, pixels())


def test_an_untagged_8_bit_png_is_browser_exact():
    frame = pixels()
    labelled = png.encode(frame, carried=[png.chunk("gAMA", struct.pack(">I", 100_000))])

    assert is_browser_exact(encode(frame, plain(frame)))
    assert not is_browser_exact(labelled)
    assert not is_browser_exact(encode(frame, plain(frame), "png16"))
    assert not is_browser_exact(encode(frame, plain(frame), "tiff"))
    turned = Image.Exif()
    turned[0x0112] = 6
    assert not is_browser_exact(saved(Image.fromarray(frame), "PNG", exif=turned))
    others = {"save_all": True, "append_images": [Image.fromarray(255 - frame)]}
    assert not is_browser_exact(saved(Image.fromarray(frame), "PNG", **others))


def test_a_transparent_png_is_not_browser_exact():
    for mode in ("RGBA", "LA"):
        assert not is_browser_exact(saved(Image.new(mode, (7, 5)), "PNG"))
    for mode, colour in (("RGB", (0, 0, 0)), ("L", 0), ("P", 0)):
        assert is_browser_exact(saved(Image.new(mode, (7, 5)), "PNG"))
        assert not is_browser_exact(saved(Image.new(mode, (7, 5)), "PNG", transparency=colour))


def test_a_picture_can_be_pickled():
    _, data = film()
    picture = decode(data, "a.exr")

    again = pickle.loads(pickle.dumps(picture))

    assert encode(again.pixels, again) == encode(picture.pixels, picture)


def test_palettes_are_expanded():
    image = Image.new("P", (7, 5), 1)
    image.putpalette([9, 9, 9, 10, 20, 30])

    for kind in ("PNG", "TIFF", "BMP"):
        data = saved(image, kind)
        assert (inspect(data, "a").mode, inspect(data, "a").bit_depth <= 8) == ("RGB", True)
        np.testing.assert_array_equal(decode(data, "a").pixels, np.full((5, 7, 3), (10, 20, 30)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_palette_frame_tagged_as_rotated_is_rendered_as_stored(orientation, compression):
    image = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)).convert("P")
    data = saved(image, "TIFF", tiffinfo={274: orientation}, compression=compression)

    assert (inspect(data, "a.tif").width, inspect(data, "a.tif").height) == (7, 5)
    np.testing.assert_array_equal(decode(data, "a.tif").pixels, np.asarray(image.convert("RGB")))


def test_an_unreadable_palette_is_rejected_by_inspect_and_decode():
    data = tifffile_of(np.zeros((5, 7), np.uint16), photometric="palette", colormap=np.zeros((3, 65536), np.uint16))

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unreadable", "frame a.tif", "palette"):
            read(data, "a.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_white_is_zero_tiff_is_inverted(dtype):
    grey = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7), dtype, endpoint=True)
    data = tifffile_of(grey, photometric="miniswhite")

    np.testing.assert_array_equal(decode(data, "a.tif").pixels[:, :, 0], np.iinfo(dtype).max - grey)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"tile": (16, 16)}])
@pytest.mark.parametrize(("dtype", "revision"), [("uint8", "alpha"), ("uint16", "")])
def test_alpha_of_a_white_is_zero_tiff_is_not_inverted(dtype, revision, options):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (5, 7, 2), dtype, endpoint=True)
    stored = np.moveaxis(values, 2, 0) if "planarconfig" in options else values
    data = tifffile_of(stored, photometric="miniswhite", extrasamples=["unassalpha"], **options)

    picture = decode(data, "a.tif")

    np.testing.assert_array_equal(picture.pixels[:, :, 0], np.iinfo(dtype).max - values[:, :, 0])
    np.testing.assert_array_equal(picture.alpha, values[:, :, 1])
    assert inspect(data, "a.tif").revision == revision  # 16 bits were read correctly by the first release


@pytest.mark.parametrize("depth", ["uint8", "uint16", "float16", "float32"])
@pytest.mark.parametrize(
    "options",
    [
        {"tile": (16, 16)},
        {"rowsperstrip": 3, "compression": "zlib"},
        {"bigtiff": True, "byteorder": ">"},
        {"planarconfig": "separate"},
    ],
    ids=["tiles", "strips", "big", "planes"],
)
def test_every_layout_of_a_tiff_is_read(depth, options):
    frame = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(depth)
    stored = np.moveaxis(frame, 2, 0) if "planarconfig" in options else frame

    found = decode(tifffile_of(stored, photometric="rgb", **options), "a.tif", transfer=None).pixels

    assert found.dtype == ("float32" if "float" in depth else depth)
    np.testing.assert_array_equal(found, frame)


def test_64_bit_floats_are_read_in_strips_and_rejected_in_tiles():
    frame = colours(40, 48, 3).astype(np.float64)

    np.testing.assert_array_equal(
        decode(tifffile_of(frame, photometric="rgb"), "a.tif", transfer=None).pixels, frame.astype(np.float32)
    )
    with refused(SequenceError, "frame.tiles_of_64_bit", "frame a.tif"):
        inspect(tifffile_of(frame, photometric="rgb", tile=(16, 16)), "a.tif")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_cmyk_frame_is_converted_to_rgb(kind):
    data = saved(Image.new("CMYK", (7, 5), (255, 0, 0, 0)), kind)

    assert inspect(data, "a").mode == "RGB"
    np.testing.assert_allclose(decode(data, "a").pixels, np.full((5, 7, 3), (0, 255, 255)), atol=2)


def test_a_bilevel_frame_is_black_and_white():
    data = saved(Image.fromarray(np.eye(5, 7) > 0), "PNG")

    assert (inspect(data, "a.png").mode, inspect(data, "a.png").bit_depth) == ("L", 1)
    np.testing.assert_array_equal(decode(data, "a.png").pixels, np.repeat(np.eye(5, 7)[:, :, None] * 255, 3, axis=2))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})],
    ids=["png", "bmp", "tiff", "lzw"],
)
def test_lossless_frames_of_any_size_are_accepted(kind, options):
    # the width must not be mistaken for anything else in the header
    for width in range(1, 24):
        frame = pixels(3, width)
        data = saved(Image.fromarray(frame), kind, **options)

        header = inspect(data, "a")

        assert (header.width, header.height, header.bit_depth) == (width, 3, 8)
        np.testing.assert_array_equal(decode(data, "a").pixels, frame)


def test_a_16_bit_bmp_is_expanded():
    rows = np.full((5, 8), 0b11111_000000_00000, "<u2").tobytes()
    masks = struct.pack("<3I", 0b11111_000000_00000, 0b111111_00000, 0b11111)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 5, 1, 16, 3, len(rows), 0, 0, 0, 0) + masks
    data = struct.pack("<2sIHHI", b"BM", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows

    np.testing.assert_array_equal(decode(data, "a.bmp").pixels, np.full((5, 8, 3), (255, 0, 0)))


def unit_range(values):
    """Scale integers so that the largest is 1; negative values become 0."""
    return np.clip(values / np.iinfo(values.dtype).max, 0, 1)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}, {"byteorder": ">"}], ids=str)
@pytest.mark.parametrize("photometric", ["rgb", "minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32"])
def test_signed_and_long_integers_of_a_tiff_are_read(dtype, photometric, options):
    largest, smallest = np.iinfo(dtype).max, np.iinfo(dtype).min
    values = np.random.default_rng(0).integers(smallest, largest, (40, 48, 3), dtype, endpoint=True)
    values[0, :3], values[1, :3] = smallest, largest
    stored = values if photometric == "rgb" else values[:, :, 0]
    data = tifffile_of(stored, photometric=photometric, **options)

    header, picture = inspect(data, "a.tif"), decode(data, "a.tif")

    found = picture.pixels / np.iinfo(picture.pixels.dtype).max
    expected = unit_range(values if photometric == "rgb" else values[:, :, :1])
    expected = 1 - expected if photometric == "miniswhite" else expected
    assert abs(found - expected).max() <= 0.501 / np.iinfo(picture.pixels.dtype).max
    assert picture.pixels.dtype == ("uint8" if dtype == "int8" else "uint16")
    assert (header.bit_depth, header.floating) == (8 * np.dtype(dtype).itemsize, False)
    assert header.notes == (("values below 0 are black",) if dtype != "uint32" else ())


def test_signed_integers_without_negative_values_have_no_note():
    assert not inspect(tifffile_of(np.ones((5, 7), np.int16)), "a.tif").notes


@pytest.mark.parametrize(
    ("photometric", "what"), [(32803, "the mosaic of a camera's sensor"), ("mask", "a mask")], ids=["mosaic", "mask"]
)
def test_a_tiff_that_is_not_a_picture_is_rejected(photometric, what):
    data = tifffile_of(np.zeros((5, 7), np.uint8), photometric=photometric)

    with refused(SequenceError, "frame.not_a_picture", "frame a.tif", what):
        inspect(data, "a.tif")


def test_integers_of_24_bits_are_rejected():
    data = bytearray(tiff16(pixels().astype(np.uint16)))
    place = data.index(struct.pack("<3H", 16, 16, 16))
    data[place : place + 6] = struct.pack("<3H", 24, 24, 24)

    with refused(SequenceError, "frame.unsupported_depth", "frame a.tif"):
        inspect(bytes(data), "a.tif")


def test_white_is_zero_floats_are_not_inverted_and_noted():
    data = tifffile_of(np.ones((5, 7), np.float32), photometric="miniswhite")

    assert inspect(data, "a.tif").notes == (
        "the tag that 0 is white is ignored, because the values are floating-point numbers",
    )


def test_ycbcr_is_decoded_as_by_pillow():
    data = tifffile_of(pixels(16, 16), photometric="ycbcr")

    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    assert abs(decode(data, "a.tif").pixels - theirs).max() <= 1


SOURCES = {
    "film": film()[1],
    "rgba": saved(Image.fromarray(rgba()), "PNG"),
    "grey and alpha": saved(Image.fromarray(rgba()[:, :, :2], "LA"), "PNG"),
    "tiff": saved(Image.fromarray(rgba()), "TIFF"),
    "float tiff": written(colours(5, 7, 4), ".tif", depth="float"),
    "grey exr": written(colours(5, 7, 1), ".exr", depth="half", channels=["Y"]),
    "rgba exr": written(colours(5, 7, 4), ".exr", depth="half"),
    "window": written(colours(5, 7, 3), ".exr", depth="half", window=(-3, -2, 0, 0, 7, 5)),
}


@pytest.mark.parametrize("output_format", ["auto", "png", "png16", "exr", "tiff"])
@pytest.mark.parametrize("source", SOURCES)
def test_encoded_values_are_verified_for_every_source_and_format(source, output_format):
    for transfer in ("clip", None):
        picture = decode(SOURCES[source], "a", transfer=transfer)
        for scale in (1, 2):
            larger = picture.pixels.repeat(scale, axis=0).repeat(scale, axis=1)
            for rendered in (larger, np.dstack([larger, larger[:, :, 0]])):
                assert encode(rendered, picture, output_format, whole=True)
