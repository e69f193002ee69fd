"""How a network is fed where it wants more, or says less, than RGB from -1 to 1 in sizes that 32 divides."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from dailies.core.errors import LoadError, RenderError
from dailies.models.signature import Signature
from dailies.render.network import probe_size
from helpers.networks import Do, Recorder, pixels, probed
from helpers.raising import check, refused
from torch import Tensor, nn
from torch.nn import functional

Named = namedtuple("Named", "stage final")

RANGE_NOTE = (
    "value_range [-1, 1] was assumed; set value_range in signatures, or the run's tag dailies.value_range, if it is "
    "another"
)


@dataclass
class Sample:
    """What diffusers' networks answer, without being a dict."""

    sample: Tensor


class Slotted:
    __slots__ = ("_hidden", "image")

    def __init__(self, image):
        self.image, self._hidden = image, image * 0


def refusal(network, **how):
    with pytest.raises(LoadError) as error:
        probed(network, **how)
    assert str(error.value).isprintable()
    return error.value


def test_of_several_images_none_is_guessed_and_the_nearest_to_the_first_frame_is_named():
    frame = np.full((40, 50, 3), 200, np.uint8)

    error = refusal(Do(lambda x: (x * 0, x, x.mean())), first=frame)

    images, distances = "0 (1×3×96×160), 1 (1×3×96×160)", "0 by 72.5, 1 by 0.0"
    check(error, "model.several_images", images, "dailies.output", "1 is the nearest", distances)


def test_the_nearest_of_larger_images_is_told_by_the_enlarged_input():
    larger = nn.Upsample(scale_factor=2, mode="bilinear")

    error = refusal(Do(lambda x: {"rough": larger(-x), "fine": larger(x)}), first=pixels(64, 64))

    check(error, "model.several_images", "rough (1×3×192×320), fine (1×3×192×320)", "fine is the nearest")


def test_the_nearest_is_named_for_a_network_of_coarse_sizes_and_a_large_frame():
    error = refusal(Do(lambda x: (coarse(64)(x), x + 1)), first=pixels(300, 400))

    check(error, "model.several_images", "0 is the nearest")


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


def test_an_output_that_the_network_does_not_answer_is_named_with_those_that_it_does():
    error = refusal(Do(lambda x: {"stage": x, "final": (x, x.mean())}), said={"output": "last"})

    there = "stage (1×3×96×160), final.0 (1×3×96×160), final.1 (scalar)"
    check(error, "model.no_such_output", "'last'", there)
    check(refusal(nn.Identity(), said={"output": 1}), "model.no_such_output", "'1'")


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
def test_an_image_beside_what_is_none_or_smaller_is_used(wrap):
    frame = pixels(40, 50)

    np.testing.assert_array_equal(probed(Do(wrap)).render(frame), frame)


def test_what_is_said_of_the_answer_tells_images_apart():
    frame = pixels(40, 50)

    by_channels = probed(Do(lambda x: (x[:, :1] * 0, x)), said={"output_channels": 3})
    by_scale = probed(Do(lambda x: (nn.Upsample(scale_factor=2)(x), x)), said={"scale": 1})

    np.testing.assert_array_equal(by_channels.render(frame), frame)
    np.testing.assert_array_equal(by_scale.render(frame), frame)


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [(lambda x: x[:, None], "1×1×3×96×160"), (lambda x: x[0], "3×96×160"), (lambda x: (x[0], 1), "3×96×160")],
)
def test_an_answer_of_other_dimensions_is_described_with_what_to_do(wrap, shape):
    check(refusal(Do(wrap)), "render.answer_without_frame", shape, "1×3×96×160", "model_loader or model_factory")


def test_an_answer_without_a_frame_is_listed():
    error = refusal(Do(lambda x: {"code": x[:, :2], "mean": x.mean((2, 3))}))

    check(error, "render.answer_without_frame", "dict", "code (1×2×96×160), mean (1×3)")


def test_constants_follow_the_colours():
    recorder, frame = Recorder(), pixels(40, 50)
    network = nn.Sequential(recorder, Do(lambda x: x[:, :3]))

    renderer = probed(network, channels=5, value_range=(0, 1), channel_order="bgr", extra_channels=(0.06, -2.0))

    np.testing.assert_array_equal(renderer.render(frame), frame)
    (given,) = (each for each in recorder.given if each.shape[2:] == (64, 64))
    assert given.shape[1] == 5
    np.testing.assert_allclose(given[0, :3, :40, :50].permute(1, 2, 0), frame[:, :, ::-1] / 255, atol=1e-6)
    assert (given[:, 3] == torch.tensor(0.06)).all()
    assert (given[:, 4] == -2).all()


def test_a_grey_network_with_a_constant_gets_the_colours_one_by_one():
    recorder, frame = Recorder(), pixels()

    rendered = probed(
        nn.Sequential(recorder, Do(lambda x: x[:, :1])), channels=2, value_range=(0, 255), extra_channels=(7.0,)
    ).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    given = recorder.given[-1]
    assert given.shape == (3, 2, 32, 32)
    assert (given[:, 1] == 7).all()


def test_a_constant_beside_alpha_is_given():
    recorder = Recorder()

    probed(nn.Sequential(recorder, Do(lambda x: x[:, :4])), channels=5, extra_channels=(0.5,))

    assert (recorder.given[0][:, 3] == 1).all()
    assert (recorder.given[0][:, 4] == 0.5).all()


def test_tiles_and_batches_have_their_constants():
    network = Do(lambda x: x[:, :3] + (x[:, 3:] - 0.25).nan_to_num(9))

    renderer = probed(
        network, channels=4, extra_channels=(0.25,), tiles={"tiled": True, "tile_size": 64, "overlap": 32, "batch": 3}
    )
    frame = pixels(150, 200)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.batch == 3


@pytest.mark.parametrize(
    ("network", "channels", "code"),
    [
        (Do(lambda x: x[:, :3]), 4, "model.fourth_channel_not_alpha"),
        (Do(lambda x: x[:, :1]), 4, "model.fourth_channel_not_alpha"),
        (nn.Conv2d(2, 1, 1), 2, "model.extra_channels_unset"),
        (nn.Conv2d(5, 3, 1), 5, "model.extra_channels_unset"),
        (nn.Conv2d(6, 3, 1), 6, "model.extra_channels_unset"),
    ],
)
def test_channels_that_are_not_of_the_frame_are_asked_for(network, channels, code):
    check(refusal(network, channels=channels), code, f"{channels} channels", "dailies.extra_channels")


def test_how_many_constants_are_asked_for():
    check(refusal(nn.Conv2d(2, 1, 1), channels=2), "model.extra_channels_unset", "1 constant ")
    check(refusal(nn.Identity(), said={"channels": 6}), "model.extra_channels_unset", "3 constants ")


def squashed(x):
    return torch.sigmoid(4 * (x - 0.5))


BRIGHT = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (80, 1, 3))


@pytest.mark.parametrize(
    ("function", "best"),
    [(lambda x: x.clamp(0, 1), "[0, 1]"), (squashed, "[0, 1]"), (lambda x: x.clamp(0, 255).round(), "[0, 255]")],
    ids=["clamp", "sigmoid", "code values"],
)
def test_an_assumed_range_is_doubted_where_another_changes_the_first_frame_far_less(function, best, caplog):
    renderer = probed(Do(function), first=BRIGHT, builder="nets:build")

    note, doubt = renderer.notes
    assert note == RANGE_NOTE
    assert doubt.startswith(f"with value_range {best} the network would leave the first frame far nearer to the source")
    assert doubt.endswith(
        f"the assumed [-1, 1]; if it was trained on {best}, set value_range in signatures, or the run's tag "
        "dailies.value_range"
    )
    assert caplog.messages == renderer.notes
    assert renderer.signature.value_range == (-1, 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.clamp(-1, 1),
        lambda x: torch.tanh(1.2 * x),
        lambda x: -x,
        lambda x: x * 0.5,
        lambda x: (x + 0.4).clamp(-1, 1),
        lambda x: functional.avg_pool2d(x, 9, 1, 4),
        torch.zeros_like,
        lambda x: x[:, :1],
        nn.Upsample(scale_factor=2),
    ],
    ids=["same", "clamp", "tanh", "inverse", "contrast", "brighter", "blur", "grey", "one channel", "larger"],
)
def test_an_assumed_range_that_fits_is_said_and_not_doubted(function):
    assert probed(Do(function), first=BRIGHT, builder="nets:build").notes == [RANGE_NOTE]


def test_a_dark_frame_raises_no_doubt():
    network = Do(lambda x: ((x + 1) * 8 - 1).clamp(-1, 1))

    assert probed(network, first=BRIGHT // 9, builder="nets:build").notes == [RANGE_NOTE]


@pytest.mark.parametrize("how", [{"said": {"value_range": "[-1, 1]"}}, {"builder": "dailies"}, {"builder": "spandrel"}])
def test_a_range_that_is_known_is_not_called_assumed(how):
    network = Do(lambda x: x.clamp(0, 1))

    assert probed(network, **{"first": BRIGHT, "builder": "nets:build"} | how).notes == []


def test_mean_and_std_say_the_range():
    said = {"mean": [0.5] * 3, "std": [0.5] * 3}

    assert probed(nn.Identity(), first=BRIGHT, builder="onnx", said=said).notes == []


def test_a_first_frame_that_cannot_be_read_or_rendered_leaves_the_range_assumed():
    def fail(x):
        if x.shape[2:] != probe_size(Signature()):
            raise RuntimeError("out of order")
        return x

    assert probed(Do(fail), first=BRIGHT, builder="nets:build").notes == [RANGE_NOTE]


def coarse(multiple):
    """A network that works only on multiples of some pixels."""

    def run(x):
        small = x[:, :, ::multiple, ::multiple]
        return x + 0 * functional.interpolate(small, scale_factor=float(multiple))

    return Do(run)


@pytest.mark.parametrize(("multiple", "found"), [(8, 32), (64, 64), (48, 96), (128, 128), (28, 224), (256, 256)])
def test_the_multiple_that_a_network_needs_is_found_and_reported(multiple, found, caplog):
    frame = pixels(70, 90)

    renderer = probed(coarse(multiple), first=frame)

    assert renderer.signature.multiple == found
    assert renderer.told_multiple == 32
    note = f"the network takes sides that are multiples of {found} pixels and not of 32; multiple {found} is used"
    assert renderer.notes == ([] if found == 32 else [note])
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_network_that_answers_less_to_odd_sizes_gets_others():
    def autoencoder(x):
        for _ in range(6):
            x = x[:, :, : x.shape[2] // 2 * 2 : 2, : x.shape[3] // 2 * 2 : 2]
        return functional.interpolate(x, scale_factor=64.0)

    assert probed(Do(autoencoder)).signature.multiple == 64


def test_tiles_are_no_smaller_than_the_multiple_that_was_found():
    frame = pixels(300, 520)

    renderer = probed(coarse(256), tiles={"tiled": True, "tile_size": 128, "overlap": 32})

    assert renderer.tile_size == 256
    np.testing.assert_array_equal(renderer.render(frame), frame)


@pytest.mark.parametrize("how", [{"said": {"multiple": 32}}, {"said": {"multiple": "16"}}])
def test_a_multiple_that_is_said_is_never_overridden(how):
    error = refusal(coarse(64), first=pixels(70, 90), **how)

    check(error, "model.wrong_size", "160×96", "RuntimeError: The size of tensor", "set multiple", "tile")


class Fixed(nn.Module):
    """A network of one size, as a transformer with positions that were learned."""

    def __init__(self, height, width):
        super().__init__()
        self.register_buffer("places", torch.zeros(1, 3, height, width))

    def forward(self, x):
        return x + self.places


def test_a_network_of_one_size_says_what_to_set():
    error = refusal(Fixed(64, 64), first=pixels(70, 90))

    check(error, "model.wrong_size", "160×96", "tensor a (160)", "tensor b (64)", "256", "set multiple", "tile")
    frame = pixels(70, 90)
    np.testing.assert_array_equal(probed(Fixed(64, 64), said={"tile": 64}).render(frame), frame)


def test_a_network_of_just_the_size_of_the_frames_renders_them_and_says_so():
    frame = pixels(65, 90)

    renderer = probed(Fixed(96, 96), first=frame)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    (note,) = renderer.notes
    assert "takes 96×96" in note
    assert "set multiple in signatures" in note
    assert renderer.signature == Signature(output_channels=3, scale=1)


def test_a_network_that_exchanges_the_sides_is_refused_on_square_frames_too():
    error = refusal(Do(lambda x: x.transpose(2, 3)), first=pixels(64, 64))

    check(error, "model.answer_without_frame", "1×3×160×96", "160×96 pixels")


def test_a_network_that_takes_more_than_an_image_says_so():
    class Conditioned(nn.Module):
        def forward(self, x, sigma):
            return x * sigma

    for network in (Conditioned(), torch.jit.script(Conditioned())):
        check(refusal(network), "model.needs_more_inputs", "sigma", "model_loader or model_factory")


def test_a_network_that_takes_something_else_says_so():
    check(refusal(Do(lambda x: x.keys())), "model.does_not_run", "keys", "model_loader or model_factory")


class Deep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x
        for _ in range(6):
            y = functional.max_pool2d(y, 2)
        return x + functional.interpolate(y, scale_factor=64.0)


def test_the_reason_of_a_torchscript_program_is_the_last_line():
    error = refusal(torch.jit.script(Deep()), said={"multiple": 32})

    check(error, "model.wrong_size", "160×96", "(RuntimeError: The size of tensor a (160) must match")


@pytest.mark.parametrize(
    ("signature", "size"),
    [
        ({}, (96, 160)),
        ({"multiple": 1}, (96, 160)),
        ({"multiple": 24}, (72, 120)),
        ({"multiple": 64}, (64, 192)),
        ({"multiple": 100}, (100, 300)),
        ({"least": (300, 300)}, (320, 352)),
        ({"most": (64, None)}, (64, 160)),
        ({"most": (80, 40)}, (64, 32)),
        ({"tile": (40, 50)}, (40, 50)),
    ],
)
def test_the_first_try_is_not_square_and_of_odd_multiples(signature, size):
    assert probe_size(Signature(**signature)) == size


@pytest.mark.parametrize("said", [{}, {"value_range": "[0, 1]"}])
def test_an_answer_in_whole_numbers_of_8_bits_is_from_0_to_255(said):
    frame = pixels(32, 40)

    def to_bytes(x):
        return ((x if said else x / 2 + 0.5) * 255).round().to(torch.uint8)

    renderer = probed(Do(to_bytes), said=said, builder="onnx", first=frame)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert any("output_range [0, 255] is used" in note for note in renderer.notes)


def test_an_output_range_that_is_said_holds_for_whole_numbers_too():
    frame = np.full((32, 40, 3), 100, np.uint8)

    renderer = probed(Do(lambda x: torch.full_like(x, 50).to(torch.uint8)), said={"output_range": "[0, 100]"})

    assert renderer.render(frame).max() == 128


def test_a_part_that_is_missing_later_is_an_error_of_the_render():
    renderer = probed(Do(lambda x: {"image": x} if x.shape[2:] == (96, 160) else {"mean": x.mean()}))

    with refused(RenderError, "render.part_missing", "1×3×32×32", "['image']"):
        renderer.render(pixels())


def test_a_network_that_makes_other_channels_of_the_colours_gets_these():
    network = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 1, bias=False), nn.PixelShuffle(2))
    network[1].weight.data = torch.eye(12)[:, :, None, None]
    frame = pixels(40, 50)

    renderer = probed(network, channels=12)

    assert renderer.signature.channels == 3
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_memory_that_runs_out_at_coarser_sizes_does_not_hide_the_reason():
    def run(x):
        if x.shape[3] > 192:
            raise torch.OutOfMemoryError("CUDA out of memory")
        raise ValueError("this size is not for me")

    check(refusal(Do(run), first=pixels(400, 400)), "model.wrong_size", "ValueError: this size is not for me")
