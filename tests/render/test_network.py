"""A network on its device: the probe, batches, compilation, autotuning."""

import numpy as np
import pytest
import torch
from dailies.core.errors import LoadError
from dailies.models.architectures.nafnet import ChannelNorm, NAFNet
from dailies.models.load import Model
from dailies.models.signature import Signature
from dailies.render.network import AUTOCAST, Network, ProbeFailure, probe_size
from helpers.networks import CPU, Do, Recorder, coarse, engine, pixels, probed, refusal
from helpers.raising import check, refused
from torch import Tensor, nn
from torch.nn import functional


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
def test_the_first_probe_is_not_square_and_of_odd_multiples(signature, size):
    assert probe_size(Signature(**signature)) == size


def test_the_probe_finds_scale_and_channels():
    signature = probed(nn.Sequential(nn.Upsample(scale_factor=4), Do(lambda x: x[:, :1]))).signature

    assert (signature.scale, signature.output_channels) == (4, 1)


def test_the_first_probe_stays_within_the_bounds_of_a_network():
    recorder = Recorder()

    probed(recorder, most=(32, None))

    assert [tuple(each.shape[2:]) for each in recorder.given] == [(32, 160)]


@pytest.mark.parametrize(
    ("network", "signature", "kind", "code", "answer"),
    [
        (nn.Conv2d(1, 1, 1), {}, LoadError, "model.wrong_channels", "to have 1 channels, but got 3 channels instead"),
        (Do(lambda x: x[:, :2]), {}, ProbeFailure, "model.answer_without_frame", "1×2×96×160"),
        (nn.AvgPool2d(2), {}, ProbeFailure, "model.answer_without_frame", "1×3×48×80"),
        (Do(lambda x: x[:, :, 1:]), {}, ProbeFailure, "model.answer_without_frame", "1×3×95×160"),
        (nn.Upsample(scale_factor=2), {"scale": 4}, LoadError, "model.signature_contradicted", "scale 4"),
        (Do(lambda x: x[:, :1]), {"output_channels": 3}, LoadError, "model.signature_contradicted", "channels 3"),
    ],
    ids=["input", "channels", "smaller", "cut", "scale", "output"],
)
def test_a_failed_probe_names_what_was_given_and_what_came(network, signature, kind, code, answer):
    with refused(kind, code, "160×96", answer):
        probed(network, **signature)


@pytest.mark.parametrize(("multiple", "found"), [(8, 32), (64, 64), (48, 96), (128, 128), (28, 224), (256, 256)])
def test_the_multiple_that_a_network_needs_is_found_and_reported(multiple, found, caplog):
    frame = pixels(70, 90)

    renderer = probed(coarse(multiple), first=frame)

    assert renderer.signature.multiple == found
    assert renderer.initial_multiple == 32
    note = f"the network takes sides that are multiples of {found} pixels and not of 32; multiple {found} is used"
    assert renderer.notes == ([] if found == 32 else [note])
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_network_that_crops_odd_sizes_is_probed_with_others():
    def autoencoder(x):
        for _ in range(6):
            x = x[:, :, : x.shape[2] // 2 * 2 : 2, : x.shape[3] // 2 * 2 : 2]
        return functional.interpolate(x, scale_factor=64.0)

    assert probed(Do(autoencoder)).signature.multiple == 64


@pytest.mark.parametrize("how", [{"said": {"multiple": 32}}, {"said": {"multiple": "16"}}])
def test_a_multiple_that_is_set_is_never_overridden(how):
    error = refusal(coarse(64), first=pixels(70, 90), **how)

    check(error, "model.wrong_size", "160×96", "RuntimeError: The size of tensor", "set multiple", "tile")


class Fixed(nn.Module):
    """A network of one size, as a transformer with positions that were learned."""

    def __init__(self, height, width):
        super().__init__()
        self.register_buffer("places", torch.zeros(1, 3, height, width))

    def forward(self, x):
        return x + self.places


def test_a_network_of_one_size_names_what_to_set():
    error = refusal(Fixed(64, 64), first=pixels(70, 90))

    check(error, "model.wrong_size", "160×96", "tensor a (160)", "tensor b (64)", "256", "set multiple", "tile")
    frame = pixels(70, 90)
    np.testing.assert_array_equal(probed(Fixed(64, 64), said={"tile": 64}).render(frame), frame)


def test_a_network_of_just_the_size_of_the_frames_renders_them_and_this_is_noted():
    frame = pixels(65, 90)

    renderer = probed(Fixed(96, 96), first=frame)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    (note,) = renderer.notes
    assert "takes 96×96" in note
    assert "set multiple in signatures" in note
    assert renderer.signature == Signature(output_channels=3, scale=1)


def test_a_network_that_swaps_the_sides_is_refused_for_square_frames_too():
    error = refusal(Do(lambda x: x.transpose(2, 3)), first=pixels(64, 64))

    check(error, "model.answer_without_frame", "1×3×160×96", "160×96 pixels")


def test_a_network_that_takes_more_than_an_image_is_refused():
    class Conditioned(nn.Module):
        def forward(self, x, sigma):
            return x * sigma

    for network in (Conditioned(), torch.jit.script(Conditioned())):
        check(refusal(network), "model.needs_more_inputs", "sigma", "model_loader or model_factory")


def test_a_network_that_takes_something_else_is_refused():
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


def test_memory_that_runs_out_at_coarser_sizes_does_not_hide_the_reason():
    def run(x):
        if x.shape[3] > 192:
            raise torch.OutOfMemoryError("CUDA out of memory")
        raise ValueError("this size is not for me")

    check(refusal(Do(run), first=pixels(400, 400)), "model.wrong_size", "ValueError: this size is not for me")


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
def test_channels_that_a_frame_lacks_have_to_be_set(network, channels, code):
    check(refusal(network, channels=channels), code, f"{channels} channels", "dailies.extra_channels")


def test_the_number_of_missing_constants_is_named():
    check(refusal(nn.Conv2d(2, 1, 1), channels=2), "model.extra_channels_unset", "1 constant ")
    check(refusal(nn.Identity(), said={"channels": 6}), "model.extra_channels_unset", "3 constants ")


def test_a_network_that_makes_other_channels_of_the_colours_gets_these():
    network = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 1, bias=False), nn.PixelShuffle(2))
    network[1].weight.data = torch.eye(12)[:, :, None, None]
    frame = pixels(40, 50)

    renderer = probed(network, channels=12)

    assert renderer.signature.channels == 3
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_batch_is_run_at_once_unless_it_is_rejected():
    recorder = Recorder()
    network = Network(Model(recorder.eval(), "test"), CPU, precision="fp32")
    given = torch.rand(5, 3, 32, 32)

    assert torch.equal(network(given), given)
    assert [len(each) for each in recorder.given] == [5]
    assert not network.takes_one


def test_weights_are_in_channels_last_and_those_that_are_already_are_not_copied():
    convolution, point = nn.Conv2d(4, 4, 3), nn.Conv2d(64, 64, 1)
    before = point.weight.data_ptr()

    Network(Model(nn.Sequential(convolution, point), "test"), CPU, precision="fp32")

    assert convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert point.weight.data_ptr() == before


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_norm_of_large_numbers_does_not_overflow_in_half(precision):
    norm, kind = ChannelNorm(8, eps=1e-6), AUTOCAST[precision]
    values = torch.linspace(-6e4, 6e4, 8 * 16).reshape(1, 8, 4, 4)

    with torch.inference_mode(), torch.autocast("cpu", dtype=kind):
        half = norm(values.to(kind))

    torch.testing.assert_close(half.float(), norm(values.to(kind).float()), atol=0.02, rtol=0.02)


def test_the_average_of_a_large_frame_does_not_overflow_in_half():
    network = NAFNet(width=4, encoder_blocks=(), middle_blocks=1, decoder_blocks=())
    attention = network.middle_blks[0].sca
    values = torch.full((1, 2, 300, 300), 30.0)  # the sum is beyond half's 65,504 by far

    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.float16):
        assert torch.isfinite(attention(values.half())).all()


def test_cudnn_is_deterministic_and_benchmarks_only_if_autotune_is_set():
    network = Network(Model(nn.Identity(), "test"), CPU, precision="fp32")
    network.device = torch.device("cuda")

    def flags():
        with torch.backends.cudnn.flags(deterministic=False):
            torch.backends.cudnn.benchmark = not network.is_autotuned
            network._arithmetic()
            return torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic

    assert flags() == (False, True)
    network.is_autotuned = True
    assert flags() == (True, True)
    with network.in_baseline():
        assert flags() == (False, True)
    assert (flags(), network.mode) == ((True, True), "autotuned fp32")


def test_a_cpu_is_never_autotuned():
    renderer = engine(nn.Identity(), autotune=True)

    assert renderer.choose_mode(pixels()) is None
    assert (renderer.is_baseline, renderer.autotuned) == (True, False)
