import io
import pickle
import struct

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from dailies import frames, png
from dailies.frames import decode, encode, inspect
from frame_files import CHANNELS, colours, film, pixels, read_again, saved, written
from PIL import Image, ImageCms


def kinds(data):
    return [kind for kind, _ in png.chunks(data)]


@pytest.mark.parametrize("output_format", ["exr", "tiff", "png"])
def test_a_header_that_is_not_unicode_is_no_damage(output_format):
    data = written(colours(5, 7, 3), ".exr", depth="half", owner="cafes").replace(b"cafes", b"caf\xe9s")
    picture = decode(data, "a.exr")

    again = encode(picture.pixels, picture, output_format)

    if output_format != "png":
        assert read_again(again, f".{output_format}".replace("tiff", "tif"))[0]["Copyright"] == "cafés"


def test_an_exr_keeps_its_channels_and_its_header():
    values, data = film()
    picture = decode(data, "a.exr", transfer=None)

    spec, again = read_again(encode(picture.pixels, picture), ".exr")

    found = {name: again[:, :, index] for index, name in enumerate(spec.channelnames)}
    assert set(found) == {"R", "G", "B", "A", "Z", "crypto.R", "crypto.G"}
    for name, plane in found.items():
        np.testing.assert_array_equal(plane, values[:, :, CHANNELS.index(name)])
    assert (spec.x, spec.y, spec.full_x, spec.full_y, spec.full_width, spec.full_height) == (3, 2, -1, 0, 20, 10)
    assert spec["PixelAspectRatio"] == 2
    assert spec["smpte:TimeCode"] == (0x01020304, 0)
    assert spec["worldToCamera"] == tuple(range(16))
    assert spec["Copyright"] == "me"
    assert dict(zip(spec.channelnames, map(str, spec.channelformats), strict=True))["crypto.R"] == "float"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("TypeVector2i", (1, 2)),
        ("TypeVector3i", (1, 2, 3)),
        ("TypeBox2i", (0, 0, 1919, 1079)),
        ("TypeBox2", (0.5, 1, 2, 3)),
        ("TypeRational", (24000, 1001)),
        ("TypeKeyCode", (1, 2, 3, 4, 5, 6, 7)),
        ("TypeMatrix33", tuple(range(9))),
    ],
)
def test_attributes_of_every_type_are_kept(kind, value):
    data = written(colours(5, 7, 3), ".exr", depth="half", some=[getattr(oiio, kind), value])
    picture = pickle.loads(pickle.dumps(decode(data, "a.exr")))

    found = [
        [(each.type, each.value) for each in read_again(file, ".exr")[0].extra_attribs if each.name == "some"]
        for file in (data, encode(picture.pixels, picture))
    ]

    assert found[0] == found[1]
    assert len(found[0]) == 1


@pytest.mark.parametrize("output_format", ["png", "exr", "tiff"])
@pytest.mark.parametrize("name", ["version", "preview", "envmap", "chromaticities", "ICCProfile", "smpte:TimeCode"])
def test_a_text_by_the_name_of_something_else_does_no_harm(name, output_format):
    label = png.chunk("tEXt", f"{name}\0take 3".encode())
    picture = decode(png.encode(pixels(), compression="fast", carried=[label]), "a.png")

    again = decode(encode(picture.pixels, picture, output_format), "a")

    np.testing.assert_array_equal(frames.converted(again.pixels, "uint8"), pixels())


@pytest.mark.parametrize("output_format", ["png", "exr", "tiff"])
@pytest.mark.parametrize("name", ["chromaticities", "ICCProfile"])
def test_an_exr_may_call_a_text_what_it_likes(name, output_format):
    picture = decode(written(colours(5, 7, 3), ".exr", depth="half", **{name: "take 3"}), "a.exr")

    assert inspect(encode(picture.pixels, picture, output_format), "a").width == 7


def test_the_windows_and_channels_of_an_exr_grow_with_it():
    values, data = film()
    picture = decode(data, "a.exr", transfer=None)

    spec, again = read_again(encode(picture.pixels.repeat(2, axis=0).repeat(2, axis=1), picture), ".exr")

    assert (spec.width, spec.height, spec.x, spec.full_width, spec.full_height) == (14, 10, 6, 40, 20)
    np.testing.assert_array_equal(again[::2, ::2, spec.channelnames.index("Z")], values[:, :, 4])


def test_what_a_png_can_hold_of_an_exr_header_it_holds():
    _, data = film()
    picture = decode(data, "a.exr")

    found = dict(png.chunks(encode(picture.pixels, picture, "png16")))

    assert found["pHYs"] == struct.pack(">IIB", 10_000, 20_000, 0)
    assert found["cHRM"] == struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    assert found["tEXt"] == b"smpte:TimeCode\x0001:02:03:04"


def test_a_frame_that_is_tagged_as_turned_is_rendered_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(pixels()), "JPEG", exif=exif)
    picture = decode(data, "a.jpg")

    assert inspect(data, "a.jpg").notes == ("tagged as turned or mirrored, rendered as stored",)
    for output_format in ("png", "tiff"):
        assert not inspect(encode(picture.pixels, picture, output_format), "a").notes


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("output_format", ["auto", "png16", "tiff"])
def test_a_colour_profile_is_carried_over(kind, output_format):
    picture = decode(saved(Image.fromarray(pixels()), kind, icc_profile=PROFILE), "a")

    again = Image.open(io.BytesIO(encode(picture.pixels, picture, output_format)))

    assert again.info["icc_profile"] == PROFILE


def test_a_profile_of_other_channels_is_not_carried_over():
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    picture = decode(saved(Image.fromarray(pixels()[:, :, 0]), "PNG", icc_profile=grey), "a.png")

    assert "iCCP" in kinds(encode(picture.pixels, picture))
    assert "iCCP" not in kinds(encode(pixels(), picture))


def test_the_colour_chunks_of_a_png_are_carried_over_as_they_are():
    labels = [
        ("gAMA", struct.pack(">I", 100_000)),
        ("cHRM", struct.pack(">8I", *range(8))),
        ("cICP", bytes([9, 16, 0, 1])),
        ("pHYs", struct.pack(">IIB", 2, 1, 0)),
        ("tEXt", b"Comment\0take 3"),
        ("tIME", bytes(7)),
    ]
    data = png.encode(pixels(), compression="fast", carried=[png.chunk(*label) for label in labels])
    picture = decode(data, "a.png")

    found = list(png.chunks(encode(picture.pixels, picture)))

    assert found[1:-2] == labels[:-1]
