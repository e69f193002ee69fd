import av
import numpy as np
import pytest
from dailies.core.errors import SequenceError
from dailies.frames.image import decode, encode, inspect
from helpers.dpx_files import SAMPLES, dpx
from helpers.frame_files import written
from helpers.raising import refused

FORMS = [(8, 0), (10, 0), (10, 1), (10, 2), (12, 0), (12, 1), (12, 2), (16, 0)]
"""Bits and packing."""


def codes_of(descriptor, bits, *, height=5, width=7):
    codes = np.random.default_rng(0).integers(0, 2**bits, (height, width, SAMPLES[descriptor]))
    codes[0, 0], codes[-1, -1] = 0, 2**bits - 1
    return codes


def expanded(codes, bits):
    """Repeat the bits of codes until they fill 8 or 16 bits."""
    return codes if bits in {8, 16} else codes << (16 - bits) | codes >> (2 * bits - 16)


def channels_of(picture):
    colours = picture.pixels[:, :, :1] if picture.grey else picture.pixels
    return colours if picture.alpha is None else np.dstack([colours, picture.alpha])


def by_ffmpeg(data):
    context = av.CodecContext.create("dpx", "r")
    return [*context.decode(av.Packet(data)), *context.decode(None)][0]


def planes_by_ffmpeg(data, bits):
    """Return the codes that FFmpeg reads from planes in the order G, B, R, A, or from a single plane."""
    frame = by_ffmpeg(data)
    if len(frame.planes) == 1:
        pixels = frame.to_ndarray()
        return pixels.reshape(*pixels.shape[:2], -1)
    dtype = np.uint8 if bits == 8 else np.uint16
    found = [
        np.frombuffer(plane, dtype).reshape(frame.height, -1)[:, : frame.width]
        for plane in (frame.planes[index] for index in (2, 0, 1, 3)[: len(frame.planes)])
    ]
    return np.dstack(found)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "packing"), FORMS)
@pytest.mark.parametrize("width", [6, 7, 8])
@pytest.mark.parametrize("descriptor", [6, 50, 51])
def test_grey_rgb_and_rgba_are_read_in_every_packing(descriptor, width, bits, packing, order):
    codes = codes_of(descriptor, bits, width=width)
    data = dpx(codes, descriptor=descriptor, bits=bits, packing=packing, order=order)

    picture, header = decode(data, "a.dpx"), inspect(data, "a.dpx")

    np.testing.assert_array_equal(channels_of(picture), expanded(codes, bits))
    assert (header.mode, header.bit_depth) == ({6: "L", 50: "RGB", 51: "RGBA"}[descriptor], bits)
    if (bits, packing) != (10, 0):  # which FFmpeg does not support
        np.testing.assert_array_equal(planes_by_ffmpeg(data, bits), codes)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "packing"), FORMS)
def test_abgr_is_read_as_rgba(bits, packing, order):
    codes = codes_of(52, bits)
    data = dpx(codes, descriptor=52, bits=bits, packing=packing, order=order)

    np.testing.assert_array_equal(channels_of(decode(data, "a.dpx")), expanded(codes, bits)[:, :, ::-1])
    if bits == 8:
        np.testing.assert_array_equal(by_ffmpeg(data).to_ndarray(), codes)


@pytest.mark.parametrize("packing", [1, 2])
@pytest.mark.parametrize("width", [6, 7, 24, 64])
@pytest.mark.parametrize("about", [{"creator": b"Lasergraphics Inc."}, {"device": b"Scanity"}, {}])
def test_rows_that_start_within_a_word_are_read(about, width, packing):
    codes = codes_of(6, 10, width=width)
    data = dpx(codes, descriptor=6, bits=10, packing=packing, continuous=True, **about)

    np.testing.assert_array_equal(channels_of(decode(data, "a.dpx")), expanded(codes, 10))
    if about:
        np.testing.assert_array_equal(planes_by_ffmpeg(data, 10), codes)


def test_padded_rows_of_a_film_scanner_are_read():
    codes = codes_of(6, 10)
    data = dpx(codes, descriptor=6, bits=10, packing=1, creator=b"Lasergraphics Inc.")

    np.testing.assert_array_equal(channels_of(decode(data, "a.dpx")), expanded(codes, 10))


@pytest.mark.parametrize("descriptor", [6, 50, 51, 52])
@pytest.mark.parametrize(("bits", "packing"), FORMS)
def test_padding_after_each_row_is_skipped(descriptor, bits, packing):
    codes = codes_of(descriptor, bits, width=8)
    data = dpx(codes, descriptor=descriptor, bits=bits, packing=packing, padding=8)

    expected = expanded(codes, bits)[:, :, :: -1 if descriptor == 52 else 1]
    np.testing.assert_array_equal(channels_of(decode(data, "a.dpx")), expected)


@pytest.mark.parametrize("image_start", [0, 0xFFFFFFFF, 4096])
def test_the_offset_of_the_pixels_may_be_in_either_header(image_start):
    codes = codes_of(50, 8)
    data = dpx(codes, start=4096, image_start=image_start)

    np.testing.assert_array_equal(decode(data, "a.dpx").pixels, codes)
    assert inspect(data, "a.dpx").revision == ("" if image_start == 4096 else "dpx-1")


def luma_of(descriptor, bits, codes):
    """Return luma, chroma and optional alpha, ``(height, width, 3 or 4)``; pairs of pixels share their chroma."""
    if descriptor >= 102:
        return codes[:, :, [1, 0, 2, 3][: codes.shape[2]]]
    chroma = [codes[:, start::2, 0].repeat(2, axis=1) for start in (0, 1)]
    return np.dstack([codes[:, :, 1], *chroma, codes[:, :, 2:]])


def rgb_of(luma, bits, red, blue):
    """Convert limited-range luma and chroma to RGB with the given weights of red and blue."""
    scale = 2 ** (bits - 8)
    y, cb, cr = (
        (luma[:, :, 0] - 16 * scale) / (219 * scale),
        *((luma[:, :, index] - 128 * scale) / (224 * scale) for index in (1, 2)),
    )
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return np.clip(np.dstack([r, (y - red * r - blue * b) / (1 - red - blue), b]), 0, 1)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("bits", "packing"), FORMS)
@pytest.mark.parametrize("descriptor", [100, 101, 102, 103])
@pytest.mark.parametrize(("colour", "red", "blue"), [(6, 0.2126, 0.0722), (2, 0.2126, 0.0722), (7, 0.299, 0.114)])
def test_luma_and_chroma_are_converted_to_rgb(colour, red, blue, descriptor, bits, packing, order):
    codes = codes_of(descriptor, bits, height=1, width=1).repeat(4, axis=0).repeat(6, axis=1)
    codes[:, :] = np.array([90, 120, 200, 77][: SAMPLES[descriptor]]) << (bits - 8)
    if descriptor in {100, 101}:
        codes[:, 1::2, 0] = 160 << (bits - 8)
    data = dpx(codes, descriptor=descriptor, bits=bits, packing=packing, order=order, colour=colour)

    picture, header = decode(data, "a.dpx"), inspect(data, "a.dpx")

    largest = np.iinfo(picture.pixels.dtype).max
    expected = rgb_of(luma_of(descriptor, bits, codes), bits, red, blue)
    assert abs(picture.pixels / largest - expected).max() < (1.01 / 255 if bits == 8 else 1 / 2000)
    assert (picture.alpha is None) == (descriptor in {100, 102})
    if picture.alpha is not None:
        assert abs(picture.alpha / largest - codes[0, 0, -1] / (2**bits - 1)).max() < 1 / 1000
    assert "luma and chroma" in header.notes[0]
    assert ("matrix not tagged" in header.notes[0]) == (colour == 2)


@pytest.mark.parametrize("descriptor", [100, 102, 103])
def test_ffmpeg_reads_the_same_luma_and_chroma(descriptor):
    codes = codes_of(descriptor, 8, width=8)
    frame = by_ffmpeg(dpx(codes, descriptor=descriptor))
    if descriptor == 100:
        found = np.frombuffer(frame.planes[0], np.uint8).reshape(5, -1)[:, :16].reshape(5, 8, 2)
    else:
        planes = [np.frombuffer(each, np.uint8).reshape(5, -1)[:, :8] for each in frame.planes]
        found = np.dstack([planes[index] for index in (1, 0, 2, 3)[: len(planes)]])

    np.testing.assert_array_equal(found, codes)


def test_full_range_luma_is_not_expanded():
    codes = np.full((4, 6, 3), 128)
    codes[:, :3, 1], codes[:, 3:, 1] = 0, 255

    found = decode(dpx(codes, descriptor=102, limits=(0, 255)), "a.dpx").pixels

    assert found[0, 0].tolist() == [0, 0, 0]
    assert found[0, 5].tolist() == [255, 255, 255]
    assert decode(dpx(codes // 2 + 60, descriptor=102, limits=(16, 235)), "a.dpx").pixels[0, 0].max() < 100


@pytest.mark.parametrize(
    ("about", "what"),
    [
        ({"descriptor": 0}, "channels that the header does not name (descriptor 0, user-defined)"),
        ({"descriptor": 7}, "chroma without luma"),
        ({"descriptor": 151}, "3 channels without a name of kind 151"),
        ({"descriptor": 100, "width": 7}, "luma and chroma (CbY CrY) of an odd width"),
        ({"descriptor": 102, "bits": 32}, "luma and chroma (CbYCr) of 32 bits"),
        ({"bits": 1}, "values of 1 bits"),
        ({"encoding": 1}, "run lengths"),
        ({"sign": 1}, "signed integers"),
        ({"descriptor": 1, "elements": 3}, "its channels in 3 separate elements"),
    ],
)
def test_unsupported_kinds_are_rejected_with_their_content(about, what):
    about = {"descriptor": 50, "bits": 8, "width": 8} | about
    width = about.pop("width")
    data = dpx(np.zeros((5, width, SAMPLES[about["descriptor"]]), int), **about)

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unsupported_content", "frame a.dpx", what):
            read(data, "a.dpx")


@pytest.mark.parametrize(
    "about", [{"descriptor": 6, "bits": 10, "packing": 1}, {"descriptor": 102}, {"descriptor": 52}]
)
def test_truncated_files_are_rejected(about):
    data = dpx(codes_of(about["descriptor"], about.get("bits", 8), height=20, width=20), **about)

    for size in (100, 2048, 2100, len(data) - 8):
        with refused(SequenceError, "frame.truncated", "frame a.dpx"):
            inspect(data[:size], "a.dpx")


@pytest.mark.parametrize(
    ("about", "revision"),
    [
        ({}, ""),
        ({"descriptor": 6}, ""),
        ({"descriptor": 6, "bits": 10, "packing": 1, "width": 6}, ""),
        ({"descriptor": 6, "bits": 10, "packing": 1, "width": 7}, "dpx-1"),
        ({"descriptor": 51, "bits": 10, "packing": 1}, "dpx-1"),
        ({"descriptor": 52}, "dpx-1"),
        ({"descriptor": 102}, "dpx-1"),
    ],
)
def test_only_files_that_the_first_release_read_differently_have_a_revision(about, revision):
    about = {"descriptor": 50, "bits": 8, "width": 8} | about
    codes = codes_of(about["descriptor"], about["bits"], width=about.pop("width"))

    assert inspect(dpx(codes, **about), "a.dpx").revision == revision


def test_the_time_code_of_luma_and_chroma_is_kept():
    data = bytearray(dpx(codes_of(102, 8), descriptor=102))
    data[1920:1924] = bytes([1, 2, 3, 4])
    picture = decode(bytes(data), "a.dpx")

    assert b"01:02:03:04" in encode(picture.pixels, picture)


def test_a_file_that_openimageio_wrote_is_read():
    codes = codes_of(6, 10, width=8)
    data = written(expanded(codes, 10).astype(np.uint16), ".dpx", oiio__BitsPerSample=10)

    np.testing.assert_array_equal(channels_of(decode(data, "a.dpx")), expanded(codes, 10))
