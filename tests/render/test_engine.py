"""Frames through a network: results, late results, failures, devices."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest
import torch
from dailies.core.errors import RenderError
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.load import Model
from dailies.render.devices import find_device
from dailies.render.engine import Engine, Settings
from dailies.render.tensors import Download, Transfers
from helpers.networks import Do, constant, difference, differing_in_bf16, engine, on_cuda, pixels, probed
from helpers.raising import refused
from torch import nn

PATIENCE = 60
"""Seconds after which what has not ended counts as a hang."""


def test_an_inverting_network_inverts():
    frame = pixels()

    np.testing.assert_array_equal(engine(Do(torch.neg)).render(frame), 255 - frame)


def test_a_convolution_with_known_weights_gives_the_known_answer():
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    blur.weight.data.copy_(kernel.expand(3, 1, 3, 3))
    frame = pixels(20, 30)

    values = np.pad(np.pad(frame / 127.5 - 1, ((0, 12), (0, 2), (0, 0)), "symmetric"), ((1, 1), (1, 1), (0, 0)))
    blurred = sum(kernel[i, j].item() * values[i : i + 20, j : j + 30] for i in range(3) for j in range(3))
    np.testing.assert_allclose(engine(blur).render(frame), (blurred + 1) * 127.5, atol=0.501)


def test_a_network_runs_without_autograd_and_its_parameters_stay():
    modes = []
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Do(lambda x: modes.append(torch.is_inference_mode_enabled()) or x))
    before = network[0].weight.clone()

    engine(network).render(pixels())

    assert modes == [True]
    assert torch.equal(network[0].weight, before)


def test_rendering_twice_gives_the_same_bits():
    torch.manual_seed(0)
    renderer = engine(ARCHITECTURES["unet"](base_channels=4))
    frame = pixels(50, 60)

    np.testing.assert_array_equal(renderer.render(frame), renderer.render(frame))


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_upscaling_network_gives_larger_frames(scale, tiled):
    frame = pixels(70, 90)
    tiles = {"tiled": tiled, "tile_size": 64, "overlap": 32}

    rendered = probed(nn.Upsample(scale_factor=scale), tiles=tiles).render(frame)

    np.testing.assert_array_equal(rendered, frame.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize("tiled", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_output_that_is_not_finite_is_refused(value, tiled):
    def spoil(x):
        x[0, 1, 2, 3] = value
        return x

    with refused(RenderError, "render.not_finite"):
        engine(Do(spoil), tiled=tiled).render(pixels())


def test_output_in_the_padding_does_not_matter():
    def spoil(x):
        x[:, :, 5:, 7:] = float("nan")
        return x

    frame = pixels(5, 7)

    np.testing.assert_array_equal(engine(Do(spoil)).render(frame), frame)


@pytest.mark.parametrize(
    ("network", "code", "answer"),
    [
        (Do(lambda x: x[:, :1]), "render.wrong_shape", "1×1×32×32"),
        (nn.Upsample(scale_factor=2), "render.wrong_shape", "1×3×64×64"),
        (Do(lambda x: x[0]), "render.answer_without_frame", "3×32×32"),
        (Do(lambda x: (x[0], 3)), "render.answer_without_frame", "3×32×32"),
        (Do(lambda x: None), "render.answer_without_frame", "NoneType"),
    ],
    ids=["channels", "size", "dimensions", "tuple", "none"],
)
def test_output_of_another_shape_is_refused(network, code, answer):
    with refused(RenderError, code, answer, "1×3×32×32"):
        engine(network).render(pixels())


@pytest.mark.parametrize("network", [nn.Identity(), Do(lambda x: x.double()), Do(lambda x: x.half())])
def test_output_of_another_float_type_is_accepted(network):
    frame = pixels()

    assert difference(engine(network).render(frame), frame) <= 1


def test_a_part_that_is_missing_later_is_an_error_of_the_render():
    renderer = probed(Do(lambda x: {"image": x} if x.shape[2:] == (96, 160) else {"mean": x.mean()}))

    with refused(RenderError, "render.part_missing", "1×3×32×32", "['image']"):
        renderer.render(pixels())


class Arrival:
    """The event that a download from a device has arrived, without the device."""

    def __init__(self):
        self.waited = 0
        self.meanwhile = lambda: None

    def synchronize(self):
        self.waited += 1
        self.meanwhile()


@pytest.fixture
def arrival(monkeypatch):
    """Let results arrive late, as from a device that works asynchronously."""
    arrival = Arrival()
    monkeypatch.setattr(Transfers, "download", lambda self, values, finite: Download(values, finite, arrival))
    return arrival


def test_frames_may_be_submitted_before_earlier_results_are_requested(arrival):
    renderer = engine(Do(torch.neg))
    given = [pixels(5 + seed, 7, seed) for seed in range(4)]

    under_way = [renderer.submit(frame) for frame in given]
    assert arrival.waited == 0

    for frame, rendering in reversed(list(zip(given, under_way, strict=True))):
        np.testing.assert_array_equal(rendering.result(), 255 - frame)
    assert arrival.waited == 4


def test_a_late_output_that_is_not_finite_is_refused_when_it_is_requested(arrival):
    rendering = engine(constant(float("nan"))).submit(pixels())

    with refused(RenderError, "render.not_finite"):
        rendering.result()


def test_late_outputs_that_are_not_finite_are_rendered_in_fp32_by_any_thread(arrival):
    renderer = differing_in_bf16(lambda x: x / 0)
    given = [pixels(40, 50, seed) for seed in range(8)]

    under_way = [renderer.submit(frame) for frame in given]
    with ThreadPoolExecutor(4) as pool:
        rendered = list(pool.map(lambda rendering: rendering.result(), under_way))

    np.testing.assert_array_equal(rendered, given)
    assert renderer.precision == "bf16"
    assert len(renderer.notes) == 1


def test_the_batch_size_is_that_of_the_precision_in_use_while_another_thread_renders_in_fp32():
    fails, busy, go_on = threading.Event(), threading.Event(), threading.Event()

    def network(x):
        if torch.is_autocast_enabled("cpu"):
            return x / 0 if fails.is_set() else x + len(x) / 1000
        busy.set()
        assert go_on.wait(PATIENCE)
        return x

    renderer, frame = engine(Do(network), precision="bf16", batch=2), pixels()
    renderer.submit_all([frame, frame], [None, None])
    assert renderer.batch_size(5, 7) == 1
    fails.set()

    with ThreadPoolExecutor(2) as pool:
        rendering = pool.submit(renderer.render, frame)
        assert busy.wait(PATIENCE)
        together = pool.submit(renderer.batch_size, 5, 7)
        wait([together], timeout=0.1)
        go_on.set()

    assert together.result() == 1
    np.testing.assert_array_equal(rendering.result(), frame)


def test_a_wait_for_the_device_does_not_block_the_thread_that_submits(arrival):
    renderer = differing_in_bf16(lambda x: x / 0)
    rendering = renderer.submit(pixels())

    with ThreadPoolExecutor(1) as pool:
        arrival.meanwhile = lambda: pool.submit(renderer.batch_size, 5, 7).result(timeout=PATIENCE)
        np.testing.assert_array_equal(rendering.result(), pixels())

    assert arrival.waited == 2


@on_cuda
@pytest.mark.parametrize("autotune", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16"])
def test_cuda_renders_what_the_cpu_renders(precision, autotune, caplog):
    torch.manual_seed(0)
    network, frame = ARCHITECTURES["unet"](base_channels=8), pixels(100, 130)
    model = Model(network.eval(), "unet")
    expected = engine(network).render(frame)

    with caplog.at_level(logging.WARNING):
        asked = Settings(precision=precision, autotune=autotune)
        rendered = Engine(model, device=find_device("cuda"), settings=asked).render(frame)

    assert difference(rendered, expected) <= (1 if precision == "fp32" else 4)
    assert not caplog.messages


@on_cuda
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_frames_in_flight_on_cuda_do_not_overwrite_each_other(dtype):
    renderer = Engine(Model(nn.Identity(), "test"), device=find_device("cuda"), settings=Settings())
    given = [pixels(500 + 32 * seed, 700, seed).astype(dtype) for seed in range(12)]

    under_way = [renderer.submit(frame) for frame in given]

    for frame, rendering in zip(given, under_way, strict=True):
        np.testing.assert_allclose(rendering.result(), frame, atol=1e-3)


@on_cuda
def test_late_outputs_on_cuda_that_are_not_finite_are_rendered_in_fp32_by_any_thread():
    network = Do(lambda x: x / 0 if torch.is_autocast_enabled("cuda") else -x)
    renderer = Engine(Model(network, "test"), device=find_device("cuda"), settings=Settings(precision="fp16"))
    given = [pixels(400, 500, seed) for seed in range(12)]

    under_way = [renderer.submit(frame) for frame in given]
    with ThreadPoolExecutor(4) as pool:
        rendered = list(pool.map(lambda rendering: rendering.result(), under_way))

    np.testing.assert_array_equal(rendered, [255 - frame for frame in given])
    (note,) = renderer.notes
    assert "in fp16 is not finite" in note
