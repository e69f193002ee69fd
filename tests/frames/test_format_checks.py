"""TGA, Radiance HDR, JPEG 2000 and Cineon: decoded as by a second decoder, or rejected."""

import io
import struct

import av
import cv2
import numpy as np
import pytest
from dailies.core.errors import SequenceError
from dailies.frames.image import decode, inspect
from helpers.frame_files import saved
from helpers.raising import check, refused
from PIL import Image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
INDICES = RNG.integers(0, 16, 35, dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (16, 4), dtype=np.uint8)
CODES = RNG.integers(0, 1024, (5, 7, 3))


def tga(kind, bits, pixels, *, descriptor=0, colours=b"", of=(0, 0, 0), note=b""):
    """Return a TGA of 7 × 5 pixels; ``of`` holds index of the first, number and bits of the palette's colours."""
    header = struct.pack("<BBBHHBHHHHBB", len(note), bool(of[1]), kind, *of, 0, 0, 7, 5, bits, descriptor)
    return header + note + colours + pixels


def cineon(codes, *, order=">", packing=5, channels=3, bits=10, interleave=0, signed=0, sense=0, padding=0):
    """Return a Cineon file of 10-bit codes, three to a word."""
    height, width, _ = codes.shape
    header = bytearray(2048)
    struct.pack_into(f"{order}6I", header, 0, 0x802A5FD7, 2048, 1024, 1024, 0, 2048 + 4 * width * height)
    header[24:28], header[193] = b"V4.5", channels
    for channel in range(channels):
        header[196 + 28 * channel : 199 + 28 * channel] = bytes([0, channel + 1, bits])
        struct.pack_into(f"{order}2I4f", header, 200 + 28 * channel, width, height, 0, 0, 1023, 2.046)
    header[680:684] = bytes([interleave, packing, signed, sense])
    struct.pack_into(f"{order}2I", header, 684, padding, 0)
    red, green, blue = (codes[:, :, channel].astype(np.uint32) for channel in range(3))
    words = red << 22 | green << 12 | blue << 2
    return bytes(header) + (words >> 2 if packing == 6 else words).astype(f"{order}u4").tobytes()


def jpeg2000(pixels, **options):
    return saved(Image.fromarray(pixels), "JPEG2000", **options)


def error_of(data):
    with refused(SequenceError, "frame.unreadable", "frame a "):
        decode(data, "a")
    with refused(SequenceError, "frame.unreadable", "frame a ") as error:
        inspect(data, "a")
    return error.value


@pytest.mark.parametrize("compression", [None, "tga_rle"])
@pytest.mark.parametrize("orientation", [1, -1])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_tga_is_decoded_as_by_pillow(mode, orientation, compression):
    image = Image.fromarray(RGBA).convert("RGB" if mode == "P" else "RGBA").convert(mode)
    data = saved(image, "TGA", compression=compression, orientation=orientation)

    found = decode(data, "a.tga")

    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
    np.testing.assert_array_equal(found.pixels, expected[:, :, :3])
    if mode.endswith("A"):
        np.testing.assert_array_equal(found.alpha, expected[:, :, 3])
    assert inspect(data, "a.tga").mode == ("RGB" if mode == "P" else mode)


def by_ffmpeg(data, codec):
    context = av.CodecContext.create(codec, "r")
    return next(iter([*context.decode(av.Packet(data)), *context.decode(None)])).to_ndarray(format="rgb24")


@pytest.mark.parametrize(
    "data",
    [
        tga(2, 16, RNG.integers(0, 65536, 35, dtype=np.uint16).tobytes()),
        tga(2, 15, RNG.integers(0, 32768, 35, dtype=np.uint16).tobytes()),
        tga(2, 24, RGB.tobytes(), descriptor=0x10),
        tga(2, 24, RGB.tobytes(), descriptor=0x30),
        tga(2, 24, RGB.tobytes(), note=b"a note"),
        tga(2, 24, RGB.tobytes(), colours=COLOURS[:, :3].tobytes(), of=(0, 16, 24)),
        tga(1, 8, INDICES.tobytes(), colours=COLOURS[:, :3].tobytes(), of=(0, 16, 24)),
        tga(1, 8, (INDICES % 12 + 4).astype(np.uint8).tobytes(), colours=COLOURS[:12, :3].tobytes(), of=(4, 12, 24)),
        tga(1, 8, INDICES.tobytes(), colours=COLOURS[:8].tobytes(), of=(0, 16, 16)),
    ],
    ids=[
        "16 bits",
        "15 bits",
        "from the right",
        "from the top right",
        "note",
        "palette unused",
        "palette",
        "part",
        "16",
    ],
)
def test_rare_kinds_of_tga_are_decoded_as_by_ffmpeg(data):
    np.testing.assert_array_equal(decode(data, "a.tga").pixels, by_ffmpeg(data, "targa"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tga(2, 24, RGB.tobytes(), descriptor=0x40), "interleaved"),
        (tga(3, 16, bytes(70)), "16-bit grey"),
        (tga(2, 16, bytes(70), descriptor=1), "16 bits with alpha"),
        (
            tga(1, 8, INDICES.tobytes(), colours=COLOURS.tobytes(), of=(0, 16, 32)),
            "alpha in its palette",
        ),
        (
            tga(2, 32, RGBA.tobytes(), descriptor=8)
            + bytes(494)
            + b"\4"
            + struct.pack("<2I", 18 + 140, 0)
            + b"TRUEVISION-XFILE.\0",
            "multiplied by alpha",
        ),
    ],
    ids=["interleaved", "grey", "alpha bit", "palette", "multiplied"],
)
def test_a_misread_kind_of_tga_is_rejected(data, reason):
    check(error_of(data), "frame.unreadable", reason, "convert it")


@pytest.mark.parametrize("compression", [None, "tga_rle"])
def test_a_truncated_tga_is_rejected(compression):
    smooth = np.repeat(np.arange(64, dtype=np.uint8), 3).reshape(1, 64, 3).repeat(20, axis=0)
    data = saved(Image.fromarray(smooth), "TGA", compression=compression)

    for size in (10, 100, len(data) // 2, len(data) - 60):
        assert error_of(data[:size])


@pytest.mark.parametrize("data", [bytes(100), tga(2, 24, b""), tga(4, 24, RGB.tobytes()), b"\0\0\2" + b"text" * 30])
def test_a_file_that_only_resembles_a_tga_is_rejected(data):
    check(error_of(data), "frame.unreadable", "PNG, TIFF, ")


@pytest.mark.parametrize("no_jp2", [False, True], ids=["jp2", "codestream"])
@pytest.mark.parametrize(
    "pixels",
    [RGB, RGBA, RGB[:, :, 0], RNG.integers(0, 65536, (5, 7), dtype=np.uint16)],
    ids=["RGB", "RGBA", "grey", "16-bit grey"],
)
def test_lossless_jpeg_2000_is_decoded_exactly(pixels, no_jp2):
    data = jpeg2000(pixels, no_jp2=no_jp2)

    found = decode(data, "a.jp2")

    expected = pixels if pixels.ndim == 3 else pixels[:, :, None].repeat(3, axis=2)
    np.testing.assert_array_equal(found.pixels, expected[:, :, :3])
    if expected.shape[2] == 4:
        np.testing.assert_array_equal(found.alpha, expected[:, :, 3])
    assert (found.pixels.dtype, found.grey) == (pixels.dtype, pixels.ndim == 2)


def test_a_deep_jpeg_2000_keeps_its_bits():
    deep = RNG.integers(0, 65536, (40, 50, 3), dtype=np.uint16)
    _, data = cv2.imencode(".jp2", deep[:, :, ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])

    np.testing.assert_array_equal(decode(data.tobytes(), "a.jp2").pixels, deep)


def test_lossy_jpeg_2000_is_decoded_as_by_ffmpeg():
    smooth = np.add.outer(np.arange(40), np.arange(50))[:, :, None] + np.array([0, 50, 100])
    data = jpeg2000(smooth.astype(np.uint8), irreversible=True, quality_mode="dB", quality_layers=[40])

    found = decode(data, "a.jp2").pixels.astype(int)

    assert np.abs(found - by_ffmpeg(data, "jpeg2000")).max() <= 1


def test_a_jpeg_2000_in_cmyk_is_rejected():
    data = jpeg2000(RGBA)
    place = data.index(b"colr") + 4
    cmyk = data[:place] + b"\1\0\0" + struct.pack(">I", 12) + data[place + 7 :]

    check(error_of(cmyk), "frame.unreadable", "JPEG 2000", "colour space 12", "sRGB, grey, sYCC")


def test_a_damaged_jpeg_2000_is_rejected():
    data = jpeg2000(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8))

    with refused(SequenceError, "frame.unreadable", "frame a.jp2"):
        inspect(data[: len(data) // 2], "a.jp2")


def test_radiance_hdr_is_decoded_as_by_opencv():
    values = np.abs(RNG.normal(0.5, 3, (9, 12, 3))).astype(np.float32)
    values[0, 0] = 0
    _, data = cv2.imencode(".hdr", values)
    data = data.tobytes()

    found = decode(data, "a.hdr", transfer=None)

    np.testing.assert_array_equal(found.pixels, cv2.imdecode(np.frombuffer(data, np.uint8), -1)[:, :, ::-1])
    about = inspect(data, "a.hdr")
    assert (about.floating, about.mode, about.width, about.height) == (True, "RGB", 12, 9)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ((b"rgbe", b"xyze"), "no FORMAT specifier found"),
        ((b"-Y 9", b"-Y 8"), None),
        ((b"#?RADIANCE", b"#?RGBE"), None),
    ],
)
def test_variants_of_radiance_hdr_are_read_or_rejected(change, reason):
    data = cv2.imencode(".hdr", np.ones((9, 12, 3), np.float32))[1].tobytes().replace(*change)

    if reason:
        check(error_of(data), "frame.unreadable", reason)
    else:
        assert decode(data, "a.hdr").pixels.max() == 1


def test_a_truncated_radiance_hdr_is_rejected():
    data = cv2.imencode(".hdr", np.random.default_rng(0).random((9, 12, 3), np.float32))[1].tobytes()

    check(error_of(data[: len(data) * 2 // 3]), "frame.unreadable", "Read error")


@pytest.mark.parametrize(("order", "packing"), [(">", 5), ("<", 5), (">", 6)])
def test_cineon_is_decoded(order, packing):
    data = cineon(CODES, order=order, packing=packing)

    found = decode(data, "a.cin")

    np.testing.assert_array_equal(found.pixels, CODES << 6 | CODES >> 4)
    assert (inspect(data, "a.cin").bit_depth, found.pixels.dtype) == (10, np.uint16)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"packing": 0}, "packed"),
        ({"channels": 1}, "1 channels"),
        ({"bits": 12}, "12 bits"),
        ({"interleave": 1}, "planar or line-interleaved"),
        ({"padding": 4}, "planar or line-interleaved"),
        ({"sense": 1}, "signed values, or a negative"),
        ({"signed": 1}, "signed values, or a negative"),
    ],
)
def test_a_misread_kind_of_cineon_is_rejected(changes, reason):
    check(error_of(cineon(CODES, **changes)), "frame.unreadable", "Cineon", reason)


def test_a_truncated_cineon_is_rejected():
    data = cineon(CODES)

    for size in (8, 700, 1500, len(data) - 20):
        assert error_of(data[:size])
