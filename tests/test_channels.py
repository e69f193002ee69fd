import numpy as np
import pytest
from dailies.errors import SequenceError
from dailies.frames import decode, inspect
from frame_files import colours, film, pixels, saved, written
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


@pytest.mark.parametrize("channels", [["a.R", "a.G", "a.B", "b.R", "b.G", "b.B"], ["N.X", "N.Y"]])
def test_an_exr_without_a_picture_is_refused_with_what_it_holds(channels):
    data = written(colours(5, 7, len(channels)), ".exr", depth="half", channels=channels)

    for read in (inspect, decode):
        with pytest.raises(SequenceError) as error:
            read(data, "a.exr")
        assert str(error.value) == (
            "frame a.exr has no channels R, G and B that are its picture; its channels: " + ", ".join(channels)
        )


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
        with pytest.raises(SequenceError) as error:
            read(data, "a")
        assert str(error.value) == "frame a holds lightness and two colour differences; convert it to RGB first"


def test_values_of_a_type_that_is_no_picture_are_refused():
    data = written(pixels().astype(np.uint32), ".exr", depth="uint")

    for read in (inspect, decode):
        with pytest.raises(SequenceError) as error:
            read(data, "deep.tif")
        assert str(error.value) == (
            "frame deep.tif holds values of type uint; allowed are 8 and 16 bits and floating-point numbers"
        )


def test_colours_of_a_type_that_is_no_picture_are_refused_beside_channels_that_could_be_one():
    types = ["uint"] * 3 + ["float"]
    data = written(np.ones((5, 7, 4), np.float32), ".exr", channels=["R", "G", "B", "Z"], types=types)

    for read in (inspect, decode):
        with pytest.raises(SequenceError, match=r"^frame id\.exr holds values of type uint; allowed are 8 and 16 bits"):
            read(data, "id.exr")
