import errno
import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import OpenEXR
import OpenImageIO as oiio  # noqa: N813
import pytest
import tifffile
from dailies.core.errors import RenderError, SequenceError
from dailies.frames import png
from dailies.frames.image import decode, encode, inspect
from dailies.frames.oiio import FORMATS, write_image
from helpers.frame_files import colours, pixels, plain, read_again, saved, written
from helpers.png_files import png_files
from helpers.raising import refused
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image


def test_the_picture_of_an_exr_may_be_in_any_part(tmp_path):
    values = colours(5, 7, 4).astype(np.float16).astype(np.float32)
    specs = [oiio.ImageSpec(7, 5, 1, "float"), oiio.ImageSpec(7, 5, 3, "half")]
    specs[0].channelnames = ("Z",)
    for number, spec in enumerate(specs):
        spec.attribute("oiio:subimagename", f"part {number}")
    path = tmp_path / "a.exr"
    file = oiio.ImageOutput.create(str(path))
    assert file.open(str(path), tuple(specs))
    assert file.write_image(np.ascontiguousarray(values[:, :, 3:]))
    assert file.open(str(path), specs[1], "AppendSubimage")
    assert file.write_image(np.ascontiguousarray(values[:, :, :3]))
    assert file.close()

    picture, header = decode(path.read_bytes(), "a.exr", transfer=None), inspect(path.read_bytes(), "a.exr")

    assert header.notes == ("the file holds several images; only number 2 is rendered",)
    np.testing.assert_array_equal(picture.pixels, values[:, :, :3])
    spec, again = read_again(encode(picture.pixels, picture), ".exr")
    assert spec.channelnames == ("R", "G", "B")
    np.testing.assert_array_equal(again, values[:, :, :3])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html>", FORMATS),
        (saved(Image.fromarray(pixels()), "GIF"), FORMATS),
        (b"RIFF\0\0\0\0WAVEfmt ", FORMATS),
    ],
    ids=["empty", "html", "gif", "sound"],
)
def test_a_file_that_is_not_a_frame_is_rejected_with_the_reason(data, reason):
    for read in (inspect, decode):
        with refused(SequenceError, "frame.unreadable", "frame bad.png", reason):
            read(data, "bad.png")


def file_of(kind):
    """Return a frame of 40×40 pixels in any format."""
    frame = pixels(40, 40)
    if kind in {".exr", ".dpx"}:
        return written(frame.astype(np.uint16) * 257, kind, depth="half" if kind == ".exr" else "uint16")
    return saved(Image.fromarray(frame), kind)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", ".exr", ".dpx"])
def test_a_truncated_frame_is_rejected(kind):
    data = file_of(kind)

    for part in (0.3, 0.6, 0.9):
        with pytest.raises(SequenceError, match=r"^frame cut\.x [^/]+$") as error:
            inspect(data[: int(len(data) * part)], "cut.x")
        assert error.value.code in {"frame.unreadable", "frame.truncated"}


def test_a_flipped_bit_of_a_png_is_rejected():
    data = encode(pixels(), plain(pixels()))

    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 0x10
        with refused(SequenceError, "frame.unreadable", "frame a.png"):
            inspect(bytes(broken), "a.png")


def decoded(data):
    """Return everything that is decoded from a file, in a comparable form."""
    picture = decode(data, "a.png")
    about = vars(picture) | {"attributes": vars(picture.attributes)}
    return {
        name: (str(each.dtype), each.shape, each.tobytes()) if isinstance(each, np.ndarray) else each
        for name, each in about.items()
    }


def decoded_by_openimageio(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png, "is_ordinary", lambda data: False)
        return decoded(data)


@settings(max_examples=100, deadline=None)
@given(file=png_files())
def test_both_readers_of_a_png_agree(file):
    assert decoded(file.data) == decoded_by_openimageio(file.data)


@settings(max_examples=100, deadline=None)
@given(file=png_files())
def test_pngs_are_decoded_as_by_pillow(file):
    # Pillow truncates 16 bits to 8, and misreads a transparent grey of less than 8 bits
    assume(file.depth == 8 or (file.depth < 8 and not (file.transparent and file.colour == 0)))
    picture = decode(file.data, "a.png")
    alpha = np.full(picture.pixels.shape[:2], 255) if picture.alpha is None else picture.alpha

    theirs = np.asarray(Image.open(io.BytesIO(file.data)).convert("RGBA"))

    np.testing.assert_array_equal(np.dstack([picture.pixels, alpha]), theirs)
    assert (picture.alpha is None) == (file.colour in {0, 2, 3} and not file.transparent)


@settings(max_examples=100, deadline=None)
@given(file=png_files(damaged=True))
def test_both_readers_agree_on_accepted_damaged_pngs(file):
    with suppress(SequenceError):
        inspect(file.data, "a.png")
        assert decoded(file.data) == decoded_by_openimageio(file.data)


def test_a_png_that_only_openimageio_accepts_is_read():
    content = dict(png.chunks(png.encode(pixels())))
    rows = zlib.decompress(content["IDAT"]) + b"more"
    data = png.SIGNATURE + b"".join(
        png.chunk(kind, each) for kind, each in (content | {"IDAT": zlib.compress(rows)}).items()
    )

    with pytest.raises(ValueError, match="do not fill the size"):
        png.decode(data)
    np.testing.assert_array_equal(decode(data, "a.png").pixels, pixels())


def test_a_png_with_a_wrong_adler_checksum_is_rejected():
    data = encode(pixels(), plain(pixels()))
    chunks = [(kind, bytearray(content)) for kind, content in png.chunks(data)]
    for kind, content in chunks:
        if kind == "IDAT":
            content[-1] ^= 1  # of the Adler-32; the checksum of the chunk is computed again

    with refused(SequenceError, "frame.unreadable", "frame a.png", "IDAT: incorrect data check"):
        inspect(png.SIGNATURE + b"".join(png.chunk(*each) for each in chunks), "a.png")


def test_an_implausibly_large_png_is_rejected_before_allocation():
    data = bytearray(encode(pixels(), plain(pixels())))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unreadable", "frame a.png", "limit"):
            read(bytes(data), "a.png")


def test_a_full_disk_error_names_the_temporary_folder(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(OSError, match=r"No space left on device: '.*dailies-") as error:
        decode(file_of("TIFF"), "a.tif")
    assert error.value.errno == errno.ENOSPC


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "BMP", "TIFF", "WEBP", ".exr", ".dpx"]),
    flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_frame_is_read_or_rejected(kind, flips):
    data = bytearray(FILES[kind])
    for place, value in flips:
        data[min(place, len(data) - 1)] = value

    with suppress(SequenceError):
        inspect(bytes(data), "a.png")
        assert decode(bytes(data), "a.png").pixels.shape[2] == 3


FILES = {kind: file_of(kind) for kind in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", ".exr", ".dpx")}


def spec_of(kind="half", *, channels=("R", "G", "B"), **attributes):
    spec = oiio.ImageSpec(64, 32, len(channels), kind)
    spec.channelnames = channels
    for name, value in attributes.items():
        spec.attribute(name, value)
    return spec


HALVES = colours(32, 64, 3).astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    ("spec", "code", "names"),
    [
        (spec_of(textureformat="LatLong Environment"), "output.unreadable", []),
        (
            spec_of("double"),
            "output.wrong_layout",
            ["64×32 of B (float), G (float), R (float)", "64×32 of B (double), G (double), R (double)"],
        ),
        (
            spec_of(channels=("R", "G", "G")),
            "output.wrong_layout",
            ["64×32 of G (half), R (half), channel2 (half)"],
        ),
    ],
    ids=["layout", "depth", "channels"],
)
def test_a_written_file_with_another_layout_is_an_error(spec, code, names):
    with refused(RenderError, code, "exr", *names):
        write_image(HALVES, spec, ".exr")


def test_a_written_file_with_other_values_is_an_error():
    frame, lossy = HALVES.copy(), {"compression": "b44"}
    frame[-4:] = 0.5  # which this compression stores exactly

    assert write_image(frame, spec_of(**lossy), ".exr")
    with refused(RenderError, "output.wrong_values", "channel R"):
        write_image(frame, spec_of(**lossy), ".exr", whole=True)
    with refused(RenderError, "output.wrong_values", "channel R", "y 31"):
        write_image(HALVES, spec_of(**lossy), ".exr")


@pytest.mark.parametrize("output_format", ["auto", "exr", "tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_every_value_of_every_depth_is_verified(dtype, output_format):
    if dtype == "float32":
        halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
        halves = halves[np.isfinite(halves)]
        ties = np.nextafter(halves, np.float32(0)), (halves + np.roll(halves, 1)) / 2
        values = np.concatenate([halves, *ties, [np.nan, np.inf, -np.inf, 1e9, 1e-30, 65519, 65520]], dtype=np.float32)
    else:
        values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    frame = np.resize(values, (-(-len(values) // 64), 64, 3))

    assert encode(frame, plain(frame), output_format, whole=True)


def test_a_written_png_with_another_size_is_an_error(monkeypatch):
    monkeypatch.setattr(png, "encode", lambda layers, **_: PNG_OF_OTHER_SIZE)

    with refused(RenderError, "output.wrong_layout", "png", "(40, 40, 8, 2)", "(7, 5, 8, 2)"):
        encode(pixels(), plain(pixels()))


PNG_OF_OTHER_SIZE = encode(pixels(40, 40), plain(pixels(40, 40)))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("WEBP", {"lossless": True}), ("MPO", {}), ("TIFF", {})],
)
def test_further_images_in_a_file_are_noted(kind, options):
    first, second = Image.fromarray(pixels(40, 40)), Image.fromarray(pixels(40, 40, seed=1))
    data = saved(first, kind, save_all=True, append_images=[second], **options)

    assert inspect(data, "a").notes == ("the file holds several images; only the first is rendered",)
    np.testing.assert_array_equal(decode(data, "a").pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert not inspect(saved(first, kind.replace("MPO", "JPEG"), **options), "a").notes


def pages(*shapes):
    """Return a TIFF with pages of (height, width, NewSubfileType), and their pixels."""
    buffer = io.BytesIO()
    shown = [pixels(height, width, seed=index) for index, (height, width, _) in enumerate(shapes)]
    with tifffile.TiffWriter(buffer) as file:
        for page, (_, _, kind) in zip(shown, shapes, strict=True):
            file.write(page, photometric="rgb", subfiletype=kind, metadata=None)
    return buffer.getvalue(), shown


@pytest.mark.parametrize(
    ("shapes", "number"),
    [
        ([(10, 16, 1), (40, 64, 0)], 1),
        ([(10, 16, 0), (40, 64, 0)], 1),
        ([(40, 64, 0), (10, 16, 1)], 0),
        ([(40, 64, 0), (40, 64, 0)], 0),
        ([(80, 128, 1), (40, 64, 0)], 1),
        ([(10, 16, 1), (20, 32, 1)], 1),
        ([(10, 16, 1), (40, 64, 2), (80, 128, 2)], 2),
    ],
)
def test_the_largest_page_of_a_tiff_is_selected(shapes, number):
    data, shown = pages(*shapes)

    header, picture = inspect(data, "a.tif"), decode(data, "a.tif")

    np.testing.assert_array_equal(picture.pixels, shown[number])
    assert (header.width, header.height) == shown[number].shape[1::-1]
    which = f"number {number + 1}, the largest," if number else "the first"
    assert header.notes == (f"the file holds several images; only {which} is rendered",)
    assert header.revision == ("page" if number else "")


def test_the_largest_page_with_a_palette_is_selected():
    shown = Image.fromarray(pixels(40, 64)).convert("P")
    data = saved(Image.new("P", (16, 10)), "TIFF", save_all=True, append_images=[shown])

    np.testing.assert_array_equal(decode(data, "a.tif").pixels, np.asarray(shown.convert("RGB")))


@pytest.mark.parametrize("options", [{"quality": 90}, {"progressive": True}, {"subsampling": 2}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_are_decoded_as_by_pillow(mode, options):
    smooth = np.add.outer(np.arange(40) * 3, np.arange(64) * 2).astype(np.uint8)
    data = saved(Image.fromarray(np.dstack([smooth, 255 - smooth, smooth // 2])).convert(mode), "JPEG", **options)

    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    assert abs(decode(data, "a.jpg").pixels - theirs).max() <= (2 if mode == "CMYK" else 0)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webps_are_decoded_as_by_pillow(mode, options):
    alpha = pixels(40, 64, seed=3)[:, :, :1]
    image = Image.fromarray(np.dstack([pixels(40, 64), alpha])).convert(mode)
    picture = decode(saved(image, "WEBP", exact=True, **options), "a.webp")

    theirs = np.asarray(Image.open(io.BytesIO(saved(image, "WEBP", exact=True, **options))))

    np.testing.assert_array_equal(picture.pixels, theirs[:, :, :3])
    if mode == "RGBA":
        np.testing.assert_array_equal(picture.alpha, theirs[:, :, 3])


@pytest.mark.parametrize("compression", [OpenEXR.NO_COMPRESSION, OpenEXR.PIZ_COMPRESSION, OpenEXR.DWAA_COMPRESSION])
def test_exrs_are_decoded_as_by_openexr(compression, tmp_path):
    path = tmp_path / "a.exr"
    channels = {name: colours(32, 48, seed=index).astype(np.float16) for index, name in enumerate("RGB")}
    OpenEXR.File({"compression": compression, "type": OpenEXR.scanlineimage}, channels).write(str(path))

    theirs = OpenEXR.File(str(path), separate_channels=True).channels()

    ours = decode(path.read_bytes(), "a.exr", transfer=None).pixels
    np.testing.assert_array_equal(ours, np.dstack([theirs[name].pixels for name in "RGB"]))


@pytest.mark.parametrize("factor", [1, 257], ids=["bytes", "16 bits"])
def test_the_palette_of_a_tiff_may_hold_8_or_16_bit_values(factor):
    indexes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colours = np.stack([np.arange(256), 255 - np.arange(256), np.full(256, 10)]).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, indexes, photometric="palette", colormap=colours * factor)

    picture = decode(buffer.getvalue(), "a.tif")

    assert np.array_equal(picture.pixels, colours.T.astype(np.uint8)[indexes])
    assert inspect(buffer.getvalue(), "a.tif").revision == ("palette" if factor == 1 else "")
