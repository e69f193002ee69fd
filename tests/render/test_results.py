"""Which of the tensors that a network returns is the frame."""

import logging
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
from helpers.networks import Do, coarse, pixels, probed, refusal
from helpers.raising import check
from torch import Tensor, nn
from torch.nn import functional

Named = namedtuple("Named", "stage final")


@dataclass
class Sample:
    """What networks of diffusers return; it is not a dict."""

    sample: Tensor


class Slotted:
    __slots__ = ("_hidden", "image")

    def __init__(self, image):
        self.image, self._hidden = image, image * 0


@pytest.mark.parametrize(
    ("wrap", "part"),
    [
        (lambda x: (x, x.mean()), "[0]"),
        (lambda x: [x[0], x], "[1]"),
        (lambda x: {"loss": x.mean(), "image": x}, "['image']"),
        (lambda x: ({"small": x[:, :, ::2, ::2], "full": (x,)}, x[:, :2]), "[0]['full'][0]"),
    ],
    ids=["tuple", "list", "dict", "nested"],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_of_several_tensors_the_only_image_is_used(wrap, part, tiled, caplog):
    caplog.set_level(logging.INFO)
    frame, renderer = pixels(40, 50), probed(Do(wrap), tiles={"tiled": tiled})

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.part == part
    assert len([text for text in caplog.messages if text.endswith(f"its part {part} is used")]) == 1


@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: (x, x.mean(), None, "text", 3),
        lambda x: (x[:, :2], x, x.repeat(1, 3, 1, 1)),
        lambda x: [functional.avg_pool2d(x, 4), functional.avg_pool2d(x, 2), x],
        lambda x: (x > 0, x),
        lambda x: (x.new_zeros(1, 1, 960, 960), x),
        lambda x: (x, x[:, :1].long()),
        lambda x: (x[0], x[:, None], x),
        Sample,
        Slotted,
        lambda x: {"out": Sample(x), "features": [x[:, :, ::2]]},
    ],
    ids=["values", "features", "pyramid", "mask", "attention", "classes", "dimensions", "object", "slots", "nested"],
)
def test_an_image_beside_other_or_smaller_tensors_is_used(wrap):
    frame = pixels(40, 50)

    np.testing.assert_array_equal(probed(Do(wrap)).render(frame), frame)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_of_any_number_of_channels_is_one_of_several(channels):
    error = refusal(Do(lambda x: (x, x[:, :1].expand(-1, channels, -1, -1))))

    check(error, "model.several_images", "2 images")


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda x: (x * 0, x), "1"),
        (lambda x: (x * 0, x), "-1"),
        (lambda x: [x * 0, x, x * 0], -2),
        (lambda x: (x * 0, x), "[1]"),
        (lambda x: {"stage": x * 0, "final": x}, "final"),
        (lambda x: {"stage": x * 0, "final": x}, "['final']"),
        (lambda x: {0: x * 0, 1: x}, 1),
        (lambda x: (x * 0, [x, x * 0]), 1.0),
        (lambda x: (x * 0, [x, x * 0]), "1.0"),
        (lambda x: {"a.b": x * 0, "stages.1": x}, "stages.1"),
        (lambda x: Named(x * 0, x), "final"),
        (lambda x: Named(x * 0, x), 1),
        (lambda x: (x * 0, Sample(x)), "1.sample"),
        (lambda x: x, 0),
    ],
)
@pytest.mark.parametrize("tiled", [False, True])
def test_output_chooses_by_index_or_name(wrap, output, tiled):
    frame = pixels(40, 90)

    renderer = probed(Do(wrap), said={"output": output}, tiles={"tiled": tiled, "tile_size": 64, "overlap": 32})

    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_missing_output_is_named_with_those_that_exist():
    error = refusal(Do(lambda x: {"stage": x, "final": (x, x.mean())}), said={"output": "last"})

    there = "stage (1×3×96×160), final.0 (1×3×96×160), final.1 (scalar)"
    check(error, "model.no_such_output", "'last'", there)
    check(refusal(nn.Identity(), said={"output": 1}), "model.no_such_output", "'1'")


def test_output_channels_and_scale_tell_images_apart():
    frame = pixels(40, 50)

    by_channels = probed(Do(lambda x: (x[:, :1] * 0, x)), said={"output_channels": 3})
    by_scale = probed(Do(lambda x: (nn.Upsample(scale_factor=2)(x), x)), said={"scale": 1})

    np.testing.assert_array_equal(by_channels.render(frame), frame)
    np.testing.assert_array_equal(by_scale.render(frame), frame)


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [(lambda x: x[:, None], "1×1×3×96×160"), (lambda x: x[0], "3×96×160"), (lambda x: (x[0], 1), "3×96×160")],
)
def test_an_output_of_other_dimensions_is_described_with_what_to_do(wrap, shape):
    check(refusal(Do(wrap)), "render.answer_without_frame", shape, "1×3×96×160", "model_loader or model_factory")


def test_an_output_without_a_frame_is_listed():
    error = refusal(Do(lambda x: {"code": x[:, :2], "mean": x.mean((2, 3))}))

    check(error, "render.answer_without_frame", "dict", "code (1×2×96×160), mean (1×3)")


def test_of_several_images_none_is_guessed_and_the_nearest_to_the_first_frame_is_named():
    frame = np.full((40, 50, 3), 200, np.uint8)

    error = refusal(Do(lambda x: (x * 0, x, x.mean())), first=frame)

    images, distances = "0 (1×3×96×160), 1 (1×3×96×160)", "0 by 72.5, 1 by 0.0"
    check(error, "model.several_images", images, "dailies.output", "1 is the nearest", distances)


def test_larger_images_are_compared_with_the_enlarged_input():
    larger = nn.Upsample(scale_factor=2, mode="bilinear")

    error = refusal(Do(lambda x: {"rough": larger(-x), "fine": larger(x)}), first=pixels(64, 64))

    check(error, "model.several_images", "rough (1×3×192×320), fine (1×3×192×320)", "fine is the nearest")


def test_the_nearest_is_named_for_a_network_of_coarse_sizes_and_a_large_frame():
    error = refusal(Do(lambda x: (coarse(64)(x), x + 1)), first=pixels(300, 400))

    check(error, "model.several_images", "0 is the nearest")
