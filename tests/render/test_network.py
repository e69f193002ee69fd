import logging

import numpy as np
import pytest
import torch
from dailies.models.architectures.nafnet import ChannelNorm, NAFNet
from dailies.models.load import Model
from dailies.render.network import AUTOCAST, Network
from dailies.render.parity import Parity
from helpers.networks import CPU, Do, Recorder, engine, pixels
from torch import nn

FAILURE = "the network cannot be compiled"


class Aware(nn.Module):
    """The identity, which is one code value brighter where torch has compiled it."""

    def forward(self, x):
        return x + 1 / 127.5 if torch.compiler.is_compiling() else x * 1


class Compiled(nn.Module):
    """A network that answers otherwise when it is compiled, and does not compile where it is told so."""

    def __init__(self, function=lambda x: x, error=None):
        super().__init__()
        self.function = function
        self.error = error
        self.shapes = []

    def compiled(self, module, *, dynamic):
        assert module is self
        assert dynamic is False

        def run(x):
            if self.error:
                raise self.error
            self.shapes.append(tuple(x.shape))
            return self.function(x)

        return run

    def forward(self, x):
        return x


@pytest.fixture
def compiler(monkeypatch):
    """Put a network in the place of what torch would make of it."""

    def use(*arguments):
        network = Compiled(*arguments)
        monkeypatch.setattr(torch, "compile", network.compiled)
        return network

    return use


def test_torch_compiles_a_network_for_one_shape_and_the_others_run_as_they_are(caplog):
    caplog.set_level(logging.INFO, logger="dailies")
    renderer = engine(Aware(), compile=True, batch=4, parity_tolerance=(2, 2))
    first, other = np.full((32, 64, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8)

    parity = renderer.settle(first)

    assert parity.max == pytest.approx(1, abs=1e-3)
    assert renderer.compile_seconds > 0
    assert renderer.notes == []
    assert [text for text in caplog.messages if text.startswith("the network was compiled for 64×32 pixels in ")]
    assert (renderer.render(first) == 91).all()
    assert (renderer.render(other) == 90).all()
    assert renderer.together(32, 64) == 1


def test_a_machine_without_a_compiler_renders_without_and_says_so(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    torch._dynamo.reset()
    network = nn.Sequential(nn.Upsample(scale_factor=1), Do(lambda x: -(x * 4) / 4))
    renderer, frame = engine(network, compile=True), pixels()

    assert renderer.settle(frame) is None

    (note,) = renderer.notes
    assert note.startswith(f"{FAILURE} (")
    assert note.endswith("), so it runs as it is")
    assert renderer.compile_seconds is None
    np.testing.assert_array_equal(renderer.render(frame), 255 - frame)


def test_a_network_that_cannot_be_compiled_keeps_its_precision(compiler):
    renderer = engine(compiler(lambda x: x, RuntimeError("unsupported\nmore")), compile=True, precision="bf16")

    assert renderer.settle(pixels()) == Parity(0, 0)
    assert renderer.precision == "bf16"
    assert renderer.notes == [f"{FAILURE} (RuntimeError: unsupported), so it runs as it is"]


def test_a_compiled_network_that_differs_too_much_gives_way_and_says_so(compiler):
    renderer, frame = engine(compiler(lambda x: x + 6 / 127.5), compile=True), np.full((5, 7, 3), 90, np.uint8)

    parity = renderer.settle(frame)

    assert parity.max == pytest.approx(6, abs=1e-3)
    assert (renderer.precision, renderer.compile_seconds) == ("fp32", None)
    assert renderer.notes == [
        "compiled fp32 changes the first frame by 6 code values of 255 at most and 6 on average; parity_tolerance "
        "allows 2 and 0.25, so all are rendered in fp32"
    ]
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_compiled_network_that_differs_little_stays(compiler):
    network = compiler(lambda x: x + 1 / 127.5)
    renderer, frame = engine(network, compile=True, parity_tolerance=(2, 2)), np.full((5, 7, 3), 90, np.uint8)

    renderer.settle(frame)

    assert (renderer.render(frame) == 91).all()
    assert set(network.shapes) == {(1, 3, 32, 32)}


def test_a_compiled_network_is_compared_in_its_precision_with_fp32(compiler):
    network = compiler(lambda x: x + 6 / 127.5 if torch.is_autocast_enabled("cpu") else x)
    renderer = engine(network, compile=True, precision="bf16")

    assert renderer.settle(np.full((5, 7, 3), 90, np.uint8)).max == pytest.approx(6, abs=1e-3)
    assert renderer.precision == "fp32"
    assert renderer.notes[0].startswith("compiled bf16 changes the first frame by 6 ")


def test_a_later_frame_that_is_not_finite_when_compiled_is_rendered_without(compiler):
    network = compiler(lambda x: x / 0 if x[0, 0, 0, 0] > 0 else x + 1 / 127.5)
    renderer = engine(network, compile=True, parity_tolerance=(2, 2))
    dark, bright = np.full((5, 7, 3), 90, np.uint8), np.full((5, 7, 3), 200, np.uint8)
    renderer.settle(dark)

    assert [renderer.render(frame)[0, 0, 0] for frame in (dark, bright, dark)] == [91, 200, 91]
    assert renderer.notes == ["frames whose output in compiled fp32 is not finite are rendered in fp32"]


def test_tiles_are_what_is_compiled_where_frames_are_cut(compiler):
    network = compiler()
    renderer, frame = engine(network, compile=True, tiled=True, tile_size=64, overlap=32), pixels(100, 130)

    renderer.settle(frame)
    network.shapes = []

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert set(network.shapes) == {(1, 3, 64, 64)}


def test_memory_that_runs_out_when_compiled_leads_to_tiles(compiler):
    class Cramped(Compiled):
        pass

    def cramped(x):
        if x.shape[2] > 64 and len(network.shapes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    network = compiler(cramped)
    renderer, frame = engine(network, compile=True, tile_size=64, overlap=32), pixels(100, 130)
    renderer.settle(frame)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.tiled


def test_nothing_is_compiled_unless_asked_for(compiler):
    network = compiler()
    renderer = engine(network)

    assert renderer.settle(pixels()) is None
    renderer.render(pixels())
    assert network.shapes == []


def test_cudnn_chooses_alike_in_every_job_unless_it_is_to_tune():
    network = Network(Model(nn.Identity(), "test"), CPU, precision="fp32")
    network.device = torch.device("cuda")

    def flags():
        with torch.backends.cudnn.flags(deterministic=False):
            torch.backends.cudnn.benchmark = not network.autotunes
            network._arithmetic()
            return torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic

    assert flags() == (False, True)
    network.autotunes = True
    assert flags() == (True, True)
    with network.plain():
        assert flags() == (False, True)
    assert (flags(), network.way) == ((True, True), "autotuned fp32")


def test_a_tuned_network_is_compared_with_one_that_is_not():
    frame = pixels()
    renderer = engine(Do(lambda x: x + (6 / 127.5 if renderer.autotuned else 0)))
    renderer._network.autotunes = True

    assert not renderer.is_plain
    parity = renderer.settle(frame)

    assert parity.max == pytest.approx(6, abs=0.01)
    assert not renderer.autotuned
    assert renderer.is_plain
    assert renderer.notes == [
        f"autotuned fp32 changes the first frame by {parity.max:g} code values of 255 at most and {parity.mean:g} on "
        "average; parity_tolerance allows 2 and 0.25, so all are rendered in fp32"
    ]


def test_a_cpu_has_nothing_to_tune():
    renderer = engine(nn.Identity(), autotune=True)

    assert renderer.settle(pixels()) is None
    assert (renderer.is_plain, renderer.autotuned) == (True, False)


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


def test_several_inputs_are_given_at_once_unless_they_are_refused():
    recorder = Recorder()
    network = Network(Model(recorder.eval(), "test"), CPU, precision="fp32")
    given = torch.rand(5, 3, 32, 32)

    assert torch.equal(network(given), given)
    assert [len(each) for each in recorder.given] == [5]
    assert not network.takes_one
