import io
import pickle
import struct

import cv2
import numpy as np
import OpenEXR
import OpenImageIO as oiio  # noqa: N813
import pytest
from dailies.frames import image, png
from dailies.frames.attributes import STANDARD, STRUCTURE, TIFF_NAMES, Attributes
from dailies.frames.image import Picture, decode, encode, inspect
from helpers.frame_files import CHANNELS, colours, film, pixels, read_again, saved, written
from PIL import Image, ImageCms


def kinds(data):
    return [kind for kind, _ in png.chunks(data)]


@pytest.mark.parametrize("output_format", ["exr", "tiff", "png"])
def test_header_text_in_latin_1_is_converted_to_unicode(output_format):
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
def test_a_png_text_named_like_an_attribute_is_harmless(name, output_format):
    label = png.chunk("tEXt", f"{name}\0take 3".encode())
    picture = decode(png.encode(pixels(), carried=[label]), "a.png")

    again = decode(encode(picture.pixels, picture, output_format), "a")

    np.testing.assert_array_equal(image.convert_depth(again.pixels, "uint8"), pixels())


@pytest.mark.parametrize("output_format", ["png", "exr", "tiff"])
@pytest.mark.parametrize("name", ["chromaticities", "ICCProfile"])
def test_an_exr_text_named_like_a_typed_attribute_is_harmless(name, output_format):
    picture = decode(written(colours(5, 7, 3), ".exr", depth="half", **{name: "take 3"}), "a.exr")

    assert inspect(encode(picture.pixels, picture, output_format), "a").width == 7


def test_windows_and_channels_of_an_upscaled_exr_are_scaled():
    values, data = film()
    picture = decode(data, "a.exr", transfer=None)

    spec, again = read_again(encode(picture.pixels.repeat(2, axis=0).repeat(2, axis=1), picture), ".exr")

    assert (spec.width, spec.height, spec.x, spec.full_width, spec.full_height) == (14, 10, 6, 40, 20)
    np.testing.assert_array_equal(again[::2, ::2, spec.channelnames.index("Z")], values[:, :, 4])


def test_an_exr_header_is_converted_to_png_chunks():
    _, data = film()
    picture = decode(data, "a.exr")

    found = dict(png.chunks(encode(picture.pixels, picture, "png16")))

    assert found["pHYs"] == struct.pack(">IIB", 10_000, 20_000, 0)
    assert found["cHRM"] == struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
    assert found["tEXt"] == b"smpte:TimeCode\x0001:02:03:04"


def test_a_frame_tagged_as_rotated_is_rendered_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(pixels()), "JPEG", exif=exif)
    picture = decode(data, "a.jpg")

    assert inspect(data, "a.jpg").notes == ("tagged as rotated or mirrored, rendered as stored",)
    for output_format in ("png", "tiff"):
        assert not inspect(encode(picture.pixels, picture, output_format), "a").notes


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("output_format", ["auto", "png16", "tiff"])
def test_a_colour_profile_is_copied(kind, output_format):
    picture = decode(saved(Image.fromarray(pixels()), kind, icc_profile=PROFILE), "a")

    again = Image.open(io.BytesIO(encode(picture.pixels, picture, output_format)))

    assert again.info["icc_profile"] == PROFILE


def test_a_profile_for_other_channels_is_dropped():
    grey = PROFILE[:16] + b"GRAY" + PROFILE[20:]
    picture = decode(saved(Image.fromarray(pixels()[:, :, 0]), "PNG", icc_profile=grey), "a.png")

    assert "iCCP" in kinds(encode(picture.pixels, picture))
    assert "iCCP" not in kinds(encode(pixels(), picture))


def test_the_colour_chunks_of_a_png_are_copied_unchanged():
    labels = [
        ("gAMA", struct.pack(">I", 100_000)),
        ("cHRM", struct.pack(">8I", *range(8))),
        ("cICP", bytes([9, 16, 0, 1])),
        ("pHYs", struct.pack(">IIB", 2, 1, 0)),
        ("tEXt", b"Comment\0take 3"),
        ("tIME", bytes(7)),
    ]
    data = png.encode(pixels(), carried=[png.chunk(*label) for label in labels])
    picture = decode(data, "a.png")

    found = list(png.chunks(encode(picture.pixels, picture)))

    assert found[1:-2] == labels[:-1]


def read_with_openexr(data, tmp_path):
    """Return header and channels of an EXR, read with OpenEXR."""
    path = tmp_path / "second.exr"
    path.write_bytes(data)
    file = OpenEXR.File(str(path), separate_channels=True)
    return file.header(), {name: channel.pixels for name, channel in file.channels().items()}


def exr_with_attributes(values, tmp_path, **header):
    """Return an EXR written with OpenEXR."""
    path = tmp_path / "first.exr"
    channels = {name: values[:, :, index].astype(np.float16) for index, name in enumerate("RGB")}
    about = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(about | header, channels).write(str(path))
    return path.read_bytes()


VALUES = {
    "string": "x",
    "int": 1,
    "float": 1.0,
    "vector2": (1.0, 2.0),
    "box2i": (0, 0, 3, 3),
    "float[8]": (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329),
    "string[2]": ("left", "right"),
    "matrix": tuple(map(float, range(16))),
}
"""A value of each type that an attribute may have."""


def attributes_of_type(kind, *names):
    """Return attributes that all have the same type and value."""
    described = oiio.TypeBox2i if kind == "box2i" else oiio.TypeDesc(kind)
    parts = (described.basetype, described.aggregate, described.vecsemantics, described.arraylen)
    return Attributes(values=tuple((name, parts, VALUES[kind]) for name in names))


@pytest.mark.parametrize("kind", VALUES)
def test_no_attribute_changes_the_layout_or_values_of_an_exr(kind, tmp_path):
    frame = colours(5, 7, 3).astype(np.float16).astype(np.float32)
    names = sorted({*STRUCTURE, *STANDARD, "Compression", "TextureFormat", "oiio:x", "some", "studio:shot"})

    # in groups, because one attribute could hide the effect of another
    for start in range(0, 16):
        picture = Picture(frame, attributes=attributes_of_type(kind, *names[start::16]))
        _, found = read_with_openexr(encode(frame, picture, whole=True), tmp_path)
        assert set(found) == set("RGB"), names[start::16]
        np.testing.assert_array_equal(np.dstack([found[each] for each in "RGB"]), frame, err_msg=str(names[start::16]))


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("name", TIFF_NAMES)
def test_no_attribute_changes_the_layout_or_values_of_a_tiff(name, kind):
    frame = colours(5, 7, 3)
    picture = Picture(frame, attributes=attributes_of_type(kind, name))

    found = cv2.imdecode(np.frombuffer(encode(frame, picture, "tiff", whole=True), np.uint8), cv2.IMREAD_UNCHANGED)

    np.testing.assert_array_equal(found[:, :, ::-1], frame)


@pytest.mark.parametrize("kind", ["LatLong Environment", "CubeFace Environment", "Plain Texture"])
@pytest.mark.parametrize("levels", [0, 1, 2])
def test_panoramas_and_textures_are_written_as_plain_images(kind, levels, tmp_path):
    frame = colours(32, 64, 3).astype(np.float16).astype(np.float32)
    spec = oiio.ImageSpec(64, 32, 3, "half")
    spec.tile_width = spec.tile_height = 16
    spec.attribute("textureformat", kind)
    spec.attribute("openexr:levelmode", 0)
    path = str(tmp_path / "texture.exr")
    if levels:
        spec.attribute("maketx:filtername", "box")
        mode = oiio.MakeTxTexture if levels == 1 else oiio.MakeTxEnvLatl
        assert oiio.ImageBufAlgo.make_texture(mode, oiio.ImageBuf(frame), path, spec)
    else:
        file = oiio.ImageOutput.create(path)
        assert file.open(path, spec)
        assert file.write_image(frame)
        assert file.close()
    data = (tmp_path / "texture.exr").read_bytes()
    picture = decode(data, "a.exr", transfer=None)

    header, found = read_with_openexr(encode(picture.pixels, picture, whole=True), tmp_path)

    assert not {"envmap", "tiles"} & set(header)
    np.testing.assert_array_equal(np.dstack([found[name] for name in "RGB"]), picture.pixels)
    if levels < 2:
        np.testing.assert_array_equal(picture.pixels, frame)
    assert inspect(data, "a.exr").revision == "texture"


def test_an_aces_container_is_written_as_an_exr(tmp_path):
    frame = colours(5, 7, 3).astype(np.float16).astype(np.float32)
    data = exr_with_attributes(frame, tmp_path, acesImageContainerFlag=1, compression=OpenEXR.NO_COMPRESSION)
    picture = decode(data, "a.exr", transfer=None)

    header, found = read_with_openexr(encode(picture.pixels, picture, whole=True), tmp_path)

    assert "acesImageContainerFlag" not in header
    np.testing.assert_array_equal(np.dstack([found[name] for name in "RGB"]), frame)


def test_camera_metadata_is_kept(tmp_path):
    about = {
        "cameraModel": "ALEXA 35",
        "reelName": "A001",
        "isoSpeed": 800.0,
        "imageCounter": 12,
        "whiteLuminance": 100.0,
        "owner": "me",
        "comments": "take 3",
        "studio": "north",
    }
    picture = decode(exr_with_attributes(colours(5, 7, 3), tmp_path, **about), "a.exr", transfer=None)

    header, _ = read_with_openexr(encode(picture.pixels, picture), tmp_path)

    for name in (
        "cameraModel",
        "reelName",
        "isoSpeed",
        "imageCounter",
        "whiteLuminance",
        "owner",
        "comments",
        "studio",
    ):
        assert header[name] == about[name]


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1e-9, 1e9, np.inf, np.nan])
@pytest.mark.parametrize("output_format", ["exr", "tiff", "png"])
def test_impossible_pixel_aspect_ratios_are_dropped(output_format, ratio):
    number = (oiio.BASETYPE.FLOAT, oiio.AGGREGATE.SCALAR, oiio.VECSEMANTICS.NOXFORM, 0)
    values = (("PixelAspectRatio", number, ratio), ("XResolution", number, 1e30), ("YResolution", number, 1e-30))
    picture = Picture(pixels(), attributes=Attributes(values=values))

    assert inspect(encode(pixels(), picture, output_format, whole=True), "a").width == 7
