import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest
from dailies.core.errors import SequenceError
from dailies.frames.image import decode, encode, inspect
from helpers.frame_files import colours, film, pixels, read_again, saved, written
from helpers.raising import refused
from PIL import Image


def test_what_of_an_exr_is_not_kept_is_said():
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
def test_the_bits_of_a_frame_are_those_of_its_picture(colour, beside, bits):
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
def test_a_rendered_layer_of_one_channel_is_read_again_as_itself(colour):
    channels = [f"{colour}{each}" for each in "RGB"] + ["depth.Z", "N.x"]
    values = colours(5, 7, 5).astype(np.float16).astype(np.float32)
    data = written(values, ".exr", depth="half", channels=channels)
    picture = decode(data, "a.exr", transfer=None, layer="depth")

    again = decode(encode(picture.pixels, picture), "b.exr", transfer=None)

    np.testing.assert_array_equal(again.pixels, values[:, :, 3:4].repeat(3, axis=2))
    assert list(again.extra) == ["N.x"]
    assert f"channels {', '.join(channels[:3])} are not kept" in inspect(data, "a.exr", layer="depth").notes


@pytest.mark.parametrize("channels", [["N.X", "N.Y"], ["R", "G"], ["Z", "id"]])
def test_an_exr_without_a_picture_is_refused_with_what_it_holds(channels):
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
def test_colours_that_are_differences_are_refused(data):
    for read in (inspect, decode):
        with refused(SequenceError, "frame.not_rgb", "frame a "):
            read(data, "a")


def test_values_of_a_type_that_is_no_picture_are_refused():
    data = written(pixels().astype(np.uint32), ".exr", depth="uint")

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unsupported_depth", "frame deep.tif", "uint"):
            read(data, "deep.tif")


def test_colours_of_a_type_that_is_no_picture_are_refused_beside_channels_that_could_be_one():
    types = ["uint"] * 3 + ["float"]
    data = written(np.ones((5, 7, 4), np.float32), ".exr", channels=["R", "G", "B", "Z"], types=types)

    for read in (inspect, decode):
        with refused(SequenceError, "frame.unsupported_depth", "frame id.exr", "uint"):
            read(data, "id.exr")


def layered(*channels, seed=0):
    """An EXR of half floats with these channels, and each channel's values by name."""
    values = colours(5, 7, len(channels), seed=seed).astype(np.float16).astype(np.float32)
    data = written(values, ".exr", depth="half", channels=list(channels))
    return data, {name: values[:, :, index] for index, name in enumerate(channels)}


def parts(tmp_path, **specs):
    """An EXR of several parts by name, each with channels, or with channels and a view; and the values of each."""
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
def test_the_layer_that_is_plainly_the_picture_is_taken(channels, prefix, names, layer):
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
    ("asked", "prefix"),
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
def test_a_layer_is_chosen_by_its_name_or_a_glob(asked, prefix):
    channels = [f"{layer}{c}" for layer in ("", "diffuse.", "RL.Combined.", "RL.Glossy.") for c in "RGB"]
    data, values = layered(*channels)

    found = decode(data, "a.exr", transfer=None, layer=asked)

    np.testing.assert_array_equal(found.pixels, of_layer(values, prefix))
    about = inspect(data, "a.exr", layer=asked)
    assert about.layer == prefix[:-1]
    assert f"layer {prefix[:-1] or 'rgba'} is rendered, not " in about.notes[0]


def test_a_single_channel_is_a_layer_for_who_asks_for_it():
    data, values = layered(*"RGB", "mist.Z", "AO.Y")

    for asked, channel in (("mist", "mist.Z"), ("AO", "AO.Y")):
        found = decode(data, "a.exr", transfer=None, layer=asked)
        np.testing.assert_array_equal(found.pixels[:, :, 0], values[channel])
        assert (found.grey, inspect(data, "a.exr", layer=asked).layer) == (True, asked)


@pytest.mark.parametrize(
    ("asked", "code", "names"),
    [
        (None, "frame.ambiguous_layer", []),
        ("c", "frame.no_layer", ["'c'"]),
        ("[ab]", "frame.ambiguous_layer", ["'[ab]'"]),
    ],
)
def test_a_layer_that_is_not_plain_is_refused_with_what_there_is(asked, code, names):
    data, _ = layered("a.R", "a.G", "a.B", "b.red", "b.green", "b.blue")

    for read in (inspect, decode):
        with refused(SequenceError, code, "frame a.exr", ": a, b", *names):
            read(data, "a.exr", layer=asked)


def test_the_part_that_is_the_picture_is_taken(tmp_path):
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


def test_the_first_of_several_parts_that_are_called_otherwise_is_taken_as_before(tmp_path):
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


def test_the_default_view_of_a_stereo_file_is_taken(tmp_path):
    rgb = ["R", "G", "B"]
    data, values = parts(
        tmp_path, **{"rgba.left": (rgb, "left"), "rgba.right": (rgb, "right"), "spec.left": (rgb, "left")}
    )

    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values["rgba.left"])
    for asked, part in (("right", "rgba.right"), ("spec", "spec.left"), ("left", "rgba.left"), ("rgba", "rgba.left")):
        np.testing.assert_array_equal(decode(data, "a", transfer=None, layer=asked).pixels, values[part])


def test_the_default_view_of_one_part_is_the_first_that_it_names():
    names = [f"{prefix}{c}" for prefix in ("left.", "right.") for c in "RGB"]
    values = colours(5, 7, 6).astype(np.float16).astype(np.float32)
    views = [oiio.TypeDesc("string[2]"), ("right", "left")]
    data = written(values, ".exr", depth="half", channels=names, multiView=views)

    np.testing.assert_array_equal(decode(data, "a", transfer=None).pixels, values[:, :, 3:])
    np.testing.assert_array_equal(decode(data, "a", transfer=None, layer="left").pixels, values[:, :, :3])


def test_colours_beside_the_chosen_layer_do_not_take_its_place_in_what_is_written():
    data, values = layered(*"RGB", "matte.R", "matte.G", "matte.B", "Z")

    picture = decode(data, "a.exr", transfer=None, layer="matte")
    spec, again = read_again(encode(picture.pixels, picture), ".exr")

    assert spec.channelnames == ("R", "G", "B", "Z")
    np.testing.assert_array_equal(again[:, :, :3], of_layer(values, "matte."))
    assert "channels R, G, B are not kept" in inspect(data, "a.exr", layer="matte").notes


def test_a_file_without_layers_refuses_one_that_is_asked_for():
    with refused(SequenceError, "frame.no_layer", "frame a.png", "'beauty'", "rgba"):
        inspect(saved(Image.fromarray(pixels()), "PNG"), "a.png", layer="beauty")
