import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from dailies.core.errors import SequenceError
from dailies.frames.image import decode, encode, inspect
from helpers.frame_files import colours, film, pixels, read_again, saved, written
from helpers.raising import refused
from PIL import Image


def test_channels_that_are_not_kept_are_noted():
    _, data = film()

    assert inspect(data, "a.exr").notes == (
        "channels Z, crypto.R, crypto.G are kept in EXR only",
        "channels id are not kept",
    )


def test_the_picture_of_an_exr_may_be_in_a_layer():
    values = colours(5, 7, 5).astype(np.float16).astype(np.float32)
    data = written(values, ".exr", depth="half", channels=["beauty.R", "beauty.G", "beauty.B", "beauty.A", "Z"])

    picture = decode(data, "a.exr", transfer=None)

    np.testing.assert_array_equal(picture.pixels, values[:, :, :3])
    np.testing.assert_array_equal(picture.alpha, values[:, :, 3])
    assert list(picture.extra) == ["Z"]


@pytest.mark.parametrize(("colour", "beside", "bits"), [("float", "half", 32), ("half", "float", 16)])
def test_the_bit_depth_is_that_of_the_colour_channels(colour, beside, bits):
    types = [*[colour] * 3, beside]
    data = written(colours(5, 7, 4), ".exr", depth="float", channels=["R", "G", "B", "Z"], types=types)

    assert inspect(data, "a.exr").bit_depth == bits


@pytest.mark.parametrize("name", ["Y", "R", "A", "matte"])
def test_the_picture_of_an_exr_may_be_a_single_channel(name):
    values = colours(5, 7, 1).astype(np.float16).astype(np.float32)
    data = written(values, ".exr", depth="half", channels=[name])

    picture = decode(data, "a.exr", transfer=None)

    assert (inspect(data, "a.exr").mode, picture.alpha, picture.grey) == ("L", None, True)
    np.testing.assert_array_equal(picture.pixels, values.repeat(3, axis=2))


@pytest.mark.parametrize("colour", ["", "beauty."])
def test_a_rendered_layer_with_one_channel_stays_the_picture(colour):
    channels = [f"{colour}{each}" for each in "RGB"] + ["depth.Z", "N.x"]
    values = colours(5, 7, 5).astype(np.float16).astype(np.float32)
    data = written(values, ".exr", depth="half", channels=channels)
    picture = decode(data, "a.exr", transfer=None, layer="depth")

    again = decode(encode(picture.pixels, picture), "b.exr", transfer=None)

    np.testing.assert_array_equal(again.pixels, values[:, :, 3:4].repeat(3, axis=2))
    assert list(again.extra) == ["N.x"]
    assert f"channels {', '.join(channels[:3])} are not kept" in inspect(data, "a.exr", layer="depth").notes


@pytest.mark.parametrize("channels", [["N.X", "N.Y"], ["R", "G"], ["Z", "id"]])
def test_an_exr_without_a_picture_is_rejected_with_its_channels(channels):
    data = written(colours(5, 7, len(channels)), ".exr", depth="half", channels=channels)

    for read in (inspect, decode):
        with refused(SequenceError, "frame.no_colour", "frame a.exr", ", ".join(channels)):
            read(data, "a.exr")


@pytest.mark.parametrize(
    "data",
    [
        written(colours(5, 7, 3), ".exr", depth="half", channels=["Y", "RY", "BY"]),
        saved(Image.new("LAB", (7, 5)), "TIFF"),
    ],
    ids=["exr", "tiff"],
)
def test_luma_and_chroma_channels_are_rejected(data):
    for read in (inspect, decode):
        with refused(SequenceError, "frame.not_rgb", "frame a "):
            read(data, "a")


def test_an_unsupported_value_type_is_rejected():
    data = written(pixels().astype(np.uint32), ".exr", depth="uint")

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unsupported_depth", "frame deep.tif", "uint"):
            read(data, "deep.tif")


def test_an_unsupported_type_of_colours_is_rejected_beside_supported_channels():
    types = ["uint"] * 3 + ["float"]
    data = written(np.ones((5, 7, 4), np.float32), ".exr", channels=["R", "G", "B", "Z"], types=types)

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unsupported_depth", "frame id.exr", "uint"):
            read(data, "id.exr")


def layered(*channels, seed=0):
    """Return an EXR of half floats with these channels, and channel -> values."""
    values = colours(5, 7, len(channels), seed=seed).astype(np.float16).astype(np.float32)
    data = written(values, ".exr", depth="half", channels=list(channels))
    return data, {name: values[:, :, index] for index, name in enumerate(channels)}


def parts(tmp_path, **specs):
    """Return an EXR with several named parts, each with channels or (channels, view), and part -> values."""
    path, values = tmp_path / "a.exr", {}
    described = []
    for seed, (name, about) in enumerate(specs.items()):
        channels, view = about if isinstance(about, tuple) else (about, None)
        spec = oiio.ImageSpec(7, 5, len(channels), "half")
        spec.channelnames = channels
        spec.attribute("oiio:subimagename", name)
        if view:
            spec.attribute("view", view)
        described.append(spec)
        values[name] = colours(5, 7, len(channels), seed=seed).astype(np.float16).astype(np.float32)
    file = oiio.ImageOutput.create(str(path))
    assert file.open(str(path), described), file.geterror()
    for number, (spec, name) in enumerate(zip(described, specs, strict=True)):
        assert number == 0 or file.open(str(path), spec, "AppendSubimage")
        assert file.write_image(values[name])
    file.close()
    return path.read_bytes(), values


def of_layer(values, prefix, names="RGB"):
    return np.dstack([values[f"{prefix}{name}"] for name in names])


BLENDER = [f"ViewLayer.{layer}.{c}" for layer in ("Combined", "DiffCol") for c in "RGB"] + ["ViewLayer.Combined.A"]


@pytest.mark.parametrize(
    ("channels", "prefix", "names", "layer"),
    [
        ([*"RGB", "beauty.R", "beauty.G", "beauty.B"], "", "RGB", ""),
        (["red", "green", "blue", "alpha"], "", ("red", "green", "blue"), ""),
        (["r", "g", "b"], "", "rgb", ""),
        (BLENDER, "ViewLayer.Combined.", "RGB", "ViewLayer.Combined"),
        ([f"beauty.{c}" for c in ("red", "green", "blue")], "beauty.", ("red", "green", "blue"), ""),
        (["specular.R", "specular.G", "specular.B", "Beauty.R", "Beauty.G", "Beauty.B"], "Beauty.", "RGB", "Beauty"),
        (["a.rgba.R", "a.rgba.G", "a.rgba.B", "b.N.R", "b.N.G", "b.N.B"], "a.rgba.", "RGB", "a.rgba"),
        (["C.r", "C.g", "C.b", "Z", "CryptoObject00.R", "CryptoObject00.G", "CryptoObject00.B"], "C.", "rgb", "C"),
    ],
)
def test_the_main_layer_is_selected(channels, prefix, names, layer):
    data, values = layered(*channels)

    picture, found = decode(data, "a.exr", transfer=None), inspect(data, "a.exr")

    np.testing.assert_array_equal(picture.pixels, of_layer(values, prefix, names))
    assert found.layer == layer
    np.testing.assert_array_equal(decode(data, "a", transfer=None, layer=found.layer or None).pixels, picture.pixels)


def test_a_layer_has_its_own_alpha():
    data, values = layered(*BLENDER, "A")

    found = decode(data, "a.exr", transfer=None)

    np.testing.assert_array_equal(found.alpha, values["ViewLayer.Combined.A"])
    assert inspect(data, "a.exr").mode == "RGBA"
    assert inspect(data, "a.exr", layer="DiffCol").mode == "RGB"


@pytest.mark.parametrize(
    ("layer", "prefix"),
    [
        ("diffuse", "diffuse."),
        ("DIFFUSE", "diffuse."),
        ("dif*", "diffuse."),
        ("Combined", "RL.Combined."),
        ("*.Combined", "RL.Combined."),
        ("RL.Glossy", "RL.Glossy."),
        ("rgba", ""),
        ("*", ""),
    ],
)
def test_a_layer_is_selected_by_name_or_glob(layer, prefix):
    channels = [f"{layer}{c}" for layer in ("", "diffuse.", "RL.Combined.", "RL.Glossy.") for c in "RGB"]
    data, values = layered(*channels)

    found = decode(data, "a.exr", transfer=None, layer=layer)

    np.testing.assert_array_equal(found.pixels, of_layer(values, prefix))
    about = inspect(data, "a.exr", layer=layer)
    assert about.layer == prefix[:-1]
    assert f"layer {prefix[:-1] or 'rgba'} is rendered, not " in about.notes[0]


def test_a_single_channel_is_selected_only_by_name():
    data, values = layered(*"RGB", "mist.Z", "AO.Y")

    for layer, channel in (("mist", "mist.Z"), ("AO", "AO.Y")):
        found = decode(data, "a.exr", transfer=None, layer=layer)
        np.testing.assert_array_equal(found.pixels[:, :, 0], values[channel])
        assert (found.grey, inspect(data, "a.exr", layer=layer).layer) == (True, layer)


@pytest.mark.parametrize(
    ("layer", "code", "names"),
    [
        (None, "frame.ambiguous_layer", []),
        ("c", "frame.no_layer", ["'c'"]),
        ("[ab]", "frame.ambiguous_layer", ["'[ab]'"]),
    ],
)
def test_an_ambiguous_or_missing_layer_is_rejected_with_the_existing_ones(layer, code, names):
    data, _ = layered("a.R", "a.G", "a.B", "b.red", "b.green", "b.blue")

    for read in (inspect, decode):
        with refused(SequenceError, code, "frame a.exr", ": a, b", *names):
            read(data, "a.exr", layer=layer)


def test_the_main_part_is_selected(tmp_path):
    data, values = parts(tmp_path, depth=["Z"], diffuse=["R", "G", "B"], beauty=["R", "G", "B", "A"])

    found = decode(data, "a.exr", transfer=None)

    np.testing.assert_array_equal(found.pixels, values["beauty"][:, :, :3])
    np.testing.assert_array_equal(found.alpha, values["beauty"][:, :, 3])
    about = inspect(data, "a.exr")
    assert (about.layer, about.mode) == ("beauty", "RGBA")
    assert "layer beauty is rendered, not diffuse; set layer to choose another" in about.notes
    np.testing.assert_array_equal(decode(data, "a", transfer=None, layer="diffuse").pixels, values["diffuse"])
    assert inspect(data, "a.exr", layer="diffuse").layer == "diffuse"
    np.testing.assert_array_equal(
        decode(data, "a", transfer=None, layer="depth").pixels, values["depth"].repeat(3, axis=2)
    )


def test_the_first_of_several_parts_without_a_known_name_is_selected(tmp_path):
    data, values = parts(tmp_path, diffuse=["R", "G", "B"], specular=["R", "G", "B"])

    about = inspect(data, "a.exr")

    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values["diffuse"])
    assert about.layer == ""
    assert "layer diffuse is rendered, not specular; set layer to choose another" in about.notes
    assert inspect(data, "a.exr", layer="specular").layer == "specular"


def test_layers_are_found_in_every_part(tmp_path):
    combined, glossy = (tuple(f"RL.{layer}.{c}" for c in "RGB") for layer in ("Combined", "Glossy"))
    data, values = parts(tmp_path, **{"RL.Glossy": list(glossy), "RL.Combined": list(combined)})

    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values["RL.Combined"])
    np.testing.assert_array_equal(decode(data, "a", transfer=None, layer="*.Glossy").pixels, values["RL.Glossy"])
    assert inspect(data, "a.exr").layer == "RL.Combined"


def test_the_default_view_of_a_stereo_file_is_selected(tmp_path):
    rgb = ["R", "G", "B"]
    data, values = parts(
        tmp_path, **{"rgba.left": (rgb, "left"), "rgba.right": (rgb, "right"), "spec.left": (rgb, "left")}
    )

    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values["rgba.left"])
    for layer, part in (("right", "rgba.right"), ("spec", "spec.left"), ("left", "rgba.left"), ("rgba", "rgba.left")):
        np.testing.assert_array_equal(decode(data, "a", transfer=None, layer=layer).pixels, values[part])


def test_the_default_view_of_a_part_is_the_first_in_its_header():
    names = [f"{prefix}{c}" for prefix in ("left.", "right.") for c in "RGB"]
    values = colours(5, 7, 6).astype(np.float16).astype(np.float32)
    views = [oiio.TypeDesc("string[2]"), ("right", "left")]
    data = written(values, ".exr", depth="half", channels=names, multiView=views)

    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values[:, :, 3:])
    np.testing.assert_array_equal(decode(data, "a", transfer=None, layer="left").pixels, values[:, :, :3])


def test_colours_outside_the_selected_layer_are_not_written():
    data, values = layered(*"RGB", "matte.R", "matte.G", "matte.B", "Z")

    picture = decode(data, "a.exr", transfer=None, layer="matte")
    spec, again = read_again(encode(picture.pixels, picture), ".exr")

    assert spec.channelnames == ("R", "G", "B", "Z")
    np.testing.assert_array_equal(again[:, :, :3], of_layer(values, "matte."))
    assert "channels R, G, B are not kept" in inspect(data, "a.exr", layer="matte").notes


def test_a_layer_of_a_file_without_layers_is_rejected():
    with refused(SequenceError, "frame.no_layer", "frame a.png", "'beauty'", "rgba"):
        inspect(saved(Image.fromarray(pixels()), "PNG"), "a.png", layer="beauty")
