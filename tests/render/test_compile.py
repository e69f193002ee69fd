"""Networks that torch compiles."""

import logging
from functools import partial
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.load import Model
from dailies.render.devices import find_device
from dailies.render.engine import Engine, Settings
from dailies.render.parity import Parity
from helpers.networks import Do, difference, engine, on_cuda, pixels
from torch import nn


class Aware(nn.Module):
    """The identity, which is one code value brighter where torch has compiled it."""

    def forward(self, x):
        return x + 1 / 127.5 if torch.compiler.is_compiling() else x * 1


class Compiled(nn.Module):
    """The identity, whose compiled form is ``function`` or fails with ``error``."""

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
    """Return a function that makes a network and replaces torch.compile by it."""

    def use(*arguments):
        network = Compiled(*arguments)
        monkeypatch.setattr(torch, "compile", network.compiled)
        return network

    return use


def test_torch_compiles_a_network_for_one_shape_and_others_run_uncompiled(caplog, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # inductor takes seconds
    caplog.set_level(logging.INFO, logger="dailies")
    renderer = engine(Aware(), compile=True, batch=4, parity_tolerance=(2, 2))
    first, other = np.full((32, 64, 3), 90, np.uint8), np.full((64, 64, 3), 90, np.uint8)

    parity = renderer.choose_mode(first)

    assert parity.max == pytest.approx(1, abs=1e-3)
    assert renderer.compile_seconds >= 0
    assert renderer.notes == []
    assert any("64×32" in text for text in caplog.messages)
    assert (renderer.render(first) == 91).all()
    assert (renderer.render(other) == 90).all()
    assert renderer.batch_size(32, 64) == 1


def test_a_machine_without_a_compiler_renders_uncompiled_and_notes_it(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    torch._dynamo.reset()
    network = nn.Sequential(nn.Upsample(scale_factor=1), Do(lambda x: -(x * 4) / 4))
    renderer, frame = engine(network, compile=True), pixels()

    assert renderer.choose_mode(frame) is None

    (note,) = renderer.notes
    assert "cannot be compiled" in note
    assert renderer.compile_seconds is None
    np.testing.assert_array_equal(renderer.render(frame), 255 - frame)


def test_a_network_that_cannot_be_compiled_keeps_its_precision(compiler):
    renderer = engine(compiler(lambda x: x, RuntimeError("unsupported\nmore")), compile=True, precision="bf16")

    assert renderer.choose_mode(pixels()) == Parity(0, 0)
    assert renderer.precision == "bf16"
    (note,) = renderer.notes
    assert "cannot be compiled (RuntimeError: unsupported)" in note


def test_a_compiled_network_that_differs_too_much_is_not_used_and_this_is_noted(compiler):
    renderer, frame = engine(compiler(lambda x: x + 6 / 127.5), compile=True), np.full((5, 7, 3), 90, np.uint8)

    parity = renderer.choose_mode(frame)

    assert parity.max == pytest.approx(6, abs=1e-3)
    assert (renderer.precision, renderer.compile_seconds) == ("fp32", None)
    (note,) = renderer.notes
    assert "compiled fp32" in note
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_compiled_network_that_differs_little_is_used(compiler):
    network = compiler(lambda x: x + 1 / 127.5)
    renderer, frame = engine(network, compile=True, parity_tolerance=(2, 2)), np.full((5, 7, 3), 90, np.uint8)

    renderer.choose_mode(frame)

    assert (renderer.render(frame) == 91).all()
    assert set(network.shapes) == {(1, 3, 32, 32)}


def test_a_compiled_network_is_compared_in_its_precision_with_fp32(compiler):
    network = compiler(lambda x: x + 6 / 127.5 if torch.is_autocast_enabled("cpu") else x)
    renderer = engine(network, compile=True, precision="bf16")

    assert renderer.choose_mode(np.full((5, 7, 3), 90, np.uint8)).max == pytest.approx(6, abs=1e-3)
    assert renderer.precision == "fp32"
    assert "compiled bf16" in renderer.notes[0]


def test_a_later_frame_that_is_not_finite_when_compiled_is_rendered_uncompiled(compiler):
    network = compiler(lambda x: x / 0 if x[0, 0, 0, 0] > 0 else x + 1 / 127.5)
    renderer = engine(network, compile=True, parity_tolerance=(2, 2))
    dark, bright = np.full((5, 7, 3), 90, np.uint8), np.full((5, 7, 3), 200, np.uint8)
    renderer.choose_mode(dark)

    assert [renderer.render(frame)[0, 0, 0] for frame in (dark, bright, dark)] == [91, 200, 91]
    (note,) = renderer.notes
    assert "compiled fp32" in note


def test_a_tiled_render_compiles_the_network_for_tiles(compiler):
    network = compiler()
    renderer, frame = engine(network, compile=True, tiled=True, tile_size=64, overlap=32), pixels(100, 130)

    renderer.choose_mode(frame)
    network.shapes = []

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert set(network.shapes) == {(1, 3, 64, 64)}


def test_memory_that_runs_out_when_compiled_leads_to_tiles(compiler):
    def cramped(x):
        if x.shape[2] > 64 and len(network.shapes) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return x

    network = compiler(cramped)
    renderer, frame = engine(network, compile=True, tile_size=64, overlap=32), pixels(100, 130)
    renderer.choose_mode(frame)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.tiled


def test_nothing_is_compiled_unless_asked_for(compiler):
    network = compiler()
    renderer = engine(network)

    assert renderer.choose_mode(pixels()) is None
    renderer.render(pixels())
    assert network.shapes == []


@on_cuda
@pytest.mark.skipif(not find_spec("triton"), reason="torch compiles for CUDA with Triton")
def test_a_compiled_network_on_cuda_renders_what_the_cpu_renders():
    torch.manual_seed(0)
    network, frame = ARCHITECTURES["unet"](base_channels=8), pixels(100, 130)
    expected = engine(network).render(frame)
    asked = Settings(precision="fp16", compile=True, parity_tolerance=(4, 1))
    renderer = Engine(Model(network, "unet"), device=find_device("cuda"), settings=asked)

    renderer.choose_mode(frame)

    assert renderer.notes == []
    assert renderer.compile_seconds is not None
    assert difference(renderer.render(frame), expected) <= 4
