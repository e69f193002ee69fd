import logging
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from dailies.core.errors import LoadError, RenderError
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.models.load import Model
from dailies.models.signature import Signature
from dailies.render.engine import Engine, Settings, find_device
from dailies.render.memory import Fit
from dailies.render.network import Unfit
from dailies.render.parity import Parity
from dailies.render.tensors import Download, Transfers, pad
from dailies.render.tiling import spans
from helpers.networks import CPU, Do, Limited, Recorder, difference, engine, pixels, probed
from helpers.raising import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.overrides import TorchFunctionMode

PATIENCE = 60
"""Seconds after which what has not ended counts as a hang."""

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def constant(value):
    return Do(lambda x: torch.full_like(x, value))


def test_the_identity_returns_all_256_values():
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)

    np.testing.assert_array_equal(engine(nn.Identity()).render(frame), frame)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_the_identity_returns_any_frame(height, width, seed):
    frame = pixels(height, width, seed)

    rendered = engine(nn.Identity()).render(frame)

    assert rendered.dtype == np.uint8
    np.testing.assert_array_equal(rendered, frame)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (-0.5, 2.0)])
def test_the_identity_returns_the_frame_in_every_value_range(value_range):
    frame = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    recorder = Recorder()

    rendered = engine(recorder, value_range=value_range).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    assert (recorder.given[0].min(), recorder.given[0].max()) == value_range


def test_an_inverting_network_inverts():
    frame = pixels()

    np.testing.assert_array_equal(engine(Do(torch.neg)).render(frame), 255 - frame)


@pytest.mark.parametrize(
    ("code", "level"), [(0, 0), (0.49, 0), (0.51, 1), (127.4, 127), (127.6, 128), (254.6, 255), (-90, 0), (400, 255)]
)
def test_levels_are_rounded_to_the_nearest_and_clamped(code, level):
    rendered = engine(constant(code / 127.5 - 1)).render(pixels())

    np.testing.assert_array_equal(rendered, np.full((5, 7, 3), level))


def test_a_convolution_with_known_weights_gives_the_known_answer():
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    blur.weight.data.copy_(kernel.expand(3, 1, 3, 3))
    frame = pixels(20, 30)

    values = np.pad(np.pad(frame / 127.5 - 1, ((0, 12), (0, 2), (0, 0)), "symmetric"), ((1, 1), (1, 1), (0, 0)))
    blurred = sum(kernel[i, j].item() * values[i : i + 20, j : j + 30] for i in range(3) for j in range(3))
    np.testing.assert_allclose(engine(blur).render(frame), (blurred + 1) * 127.5, atol=0.501)


def test_a_convolution_that_swaps_channels_sees_red_first():
    swap = nn.Conv2d(3, 3, 1, bias=False)
    swap.weight.data.copy_(torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])[:, :, None, None])
    frame = pixels()

    np.testing.assert_array_equal(engine(swap).render(frame), frame[:, :, [2, 0, 1]])


@pytest.mark.parametrize(
    ("size", "padded"),
    [((5, 7), (32, 32)), ((1, 1), (32, 32)), ((32, 64), (32, 64)), ((33, 31), (64, 32)), ((70, 3), (96, 32))],
)
def test_the_network_sees_padded_float32_rgb(size, padded):
    recorder, frame = Recorder(), pixels(*size)

    engine(recorder).render(frame)

    (given_,) = recorder.given
    assert given_.dtype == torch.float32
    assert tuple(given_.shape) == (1, 3, *padded)
    assert given_.is_contiguous(memory_format=torch.channels_last)
    below, right = padded[0] - size[0], padded[1] - size[1]
    expected = np.pad(frame / 127.5 - 1, ((0, below), (0, right), (0, 0)), "symmetric")
    np.testing.assert_allclose(given_[0].permute(1, 2, 0), expected, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 2, 8, 32]))
def test_padding_is_that_of_numpy_symmetric(height, width, multiple):
    values = np.random.default_rng(0).random((1, 2, height, width))

    padded = pad(torch.from_numpy(values), multiple).numpy()

    sides = [(0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple)]
    np.testing.assert_array_equal(padded, np.pad(values, sides, "symmetric"))


def test_a_network_runs_without_autograd_and_its_parameters_stay():
    modes = []
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Do(lambda x: modes.append(torch.is_inference_mode_enabled()) or x))
    before = network[0].weight.clone()

    engine(network).render(pixels())

    assert modes == [True]
    torch.testing.assert_close(network[0].weight, before)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), sizes=st.sampled_from([(64, 32), (96, 40), (64, 0)]))
def test_tiled_identity_is_the_identity_bit_for_bit(height, width, sizes):
    frame = pixels(height, width)

    rendered = engine(nn.Identity(), tiled=True, tile_size=sizes[0], overlap=sizes[1]).render(frame)

    np.testing.assert_array_equal(rendered, frame)


@pytest.mark.parametrize("size", [(64, 64), (65, 64), (200, 130), (31, 500), (1, 1), (97, 193)])
def test_tiles_cover_every_pixel(size):
    rendered = engine(constant(100 / 127.5 - 1), tiled=True, tile_size=64, overlap=32).render(pixels(*size))

    np.testing.assert_array_equal(rendered, np.full((*size, 3), 100))


def test_tiles_are_no_larger_than_asked_and_fit_the_network():
    recorder = Recorder()

    engine(recorder, tiled=True, tile_size=100, overlap=20).render(pixels(250, 170))

    sides = {side for tile in recorder.given for side in tile.shape[2:]}
    assert len(recorder.given) > 4
    assert max(sides) <= 100
    assert all(side % 32 == 0 for side in sides)


def test_a_frame_smaller_than_a_tile_is_one_tile():
    recorder, frame = Recorder(), pixels(40, 50)

    rendered = engine(recorder, tiled=True).render(frame)

    assert [tuple(tile.shape[2:]) for tile in recorder.given] == [(64, 64)]
    np.testing.assert_array_equal(rendered, frame)


@pytest.mark.parametrize(
    ("architecture", "config", "tolerance"),
    [
        ("unet", {"base_channels": 8}, 2),
        ("nafnet", {"width": 8, "encoder_blocks": (1, 1), "middle_blocks": 1, "decoder_blocks": (1, 1)}, 9),
    ],
)
def test_tiles_of_a_convolutional_network_show_no_seams(architecture, config, tolerance):
    torch.manual_seed(0)
    network = ARCHITECTURES[architecture](**config)
    for name, values in network.named_parameters():
        if name.endswith(("beta", "gamma")):
            nn.init.normal_(values, std=0.2)
    rows, columns = np.mgrid[0:200, 0:260]
    waves = 128 + 90 * np.sin(rows / 5) * np.cos(columns / 7)  # alike in every tile: NAFNet averages over all it sees
    frame = np.clip(np.random.default_rng(0).normal(waves[:, :, None], 8, (200, 260, 3)), 0, 255).astype(np.uint8)

    full = engine(network, tiled=False).render(frame)
    tiled = engine(network, tiled=True, tile_size=160, overlap=64).render(frame)

    assert np.ptp(full) > 10
    assert difference(full, tiled) <= tolerance


def apart_from_edges(spans_, length, distance):
    """Tell which pixels are further than ``distance`` from every edge between tiles."""
    edges = {edge for span in spans_ for edge in span} - {0, length}
    return np.array([all(not edge - distance <= place < edge + distance for edge in edges) for place in range(length)])


def test_tiles_agree_with_those_of_monai_wherever_no_edge_is_near():
    from monai.data.utils import dense_patch_slices
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1)
    )  # sees 2 pixels far
    height, width, tile = 192, 256, 96
    frame = pixels(height, width).astype(np.float32) / 255

    ours = engine(network, tiled=True, tile_size=tile, overlap=32, batch=3, value_range=(0.0, 1.0)).render(frame)

    with torch.inference_mode():
        whole = torch.from_numpy(frame).permute(2, 0, 1)[None]
        theirs = sliding_window_inference(whole, (tile, tile), 2, network, overlap=1 / 3, mode="gaussian")
    theirs = theirs[0].permute(1, 2, 0).numpy()
    windows = dense_patch_slices((height, width), (tile, tile), (64, 64))
    apart = [
        apart_from_edges(spans(length, tile, 32), length, 2)
        & apart_from_edges([(window[axis].start, window[axis].stop) for window in windows], length, 2)
        for axis, length in enumerate((height, width))
    ]
    compared = np.outer(*apart)
    assert 0.5 < compared.mean() < 1
    np.testing.assert_allclose(ours[compared], theirs[compared], atol=1e-5)
    assert np.abs(ours - theirs).max() > 1e-5  # at edges the two lie otherwise, so this compares tiles


def test_a_network_that_works_in_place_changes_nothing_but_its_own_tile():
    frame = pixels(200, 90)

    tiled = engine(Do(torch.neg_), tiled=True, tile_size=64, overlap=32).render(frame)

    np.testing.assert_array_equal(tiled, 255 - frame)


def test_out_of_memory_goes_on_in_tiles_and_stays_there(caplog):
    network, frame = Limited(64 * 64), pixels(100, 90)
    renderer = engine(network, tile_size=64, overlap=32)

    assert not renderer.tiled
    first = renderer.render(frame)
    whole = [size for size in network.sizes if size == (128, 96)]
    second = renderer.render(frame)

    assert renderer.tiled
    np.testing.assert_array_equal(first, frame)
    np.testing.assert_array_equal(second, frame)
    assert len(whole) == 1
    assert network.sizes.count((128, 96)) == 1
    assert caplog.messages == ["out of memory at 90×100, going on in tiles of 64 pixels"]


def test_frames_that_fit_are_never_tiled():
    network = Limited(64 * 64)
    renderer = engine(network, tile_size=32, overlap=0)

    for size in ((64, 64), (33, 40)):
        renderer.render(pixels(*size))

    assert network.sizes == [(64, 64), (64, 64)]
    assert not renderer.tiled


def test_a_network_that_failed_halfway_through_in_place_work_loses_nothing():
    def halve_then_fail(x):
        x.neg_()
        if x.shape[2] > 64:
            raise torch.OutOfMemoryError
        return x

    frame = pixels(100, 50)

    rendered = engine(Do(halve_then_fail), tile_size=64, overlap=32).render(frame)

    np.testing.assert_array_equal(rendered, 255 - frame)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
    ids=["cuda", "cpu", "mps", "cudnn", "cudnn 9", "workspace"],
)
def test_every_way_to_run_out_of_memory_is_understood(error):
    frame = pixels(100, 90)

    rendered = engine(Limited(64 * 64, error), tile_size=64, overlap=32).render(frame)

    np.testing.assert_array_equal(rendered, frame)


def test_real_lack_of_memory_on_the_cpu_is_understood():
    def too_much(x):
        if x.shape[2] > 64:
            torch.empty(2**62, dtype=torch.uint8)
        return x

    frame = pixels(100, 50)

    np.testing.assert_array_equal(engine(Do(too_much), tile_size=64, overlap=32).render(frame), frame)


def test_tiles_that_do_not_fit_are_halved_and_the_size_found_stays(caplog):
    network, frame = Limited(100 * 100), pixels(500, 300)
    renderer = engine(network, tile_size=256, overlap=64)

    first, second = renderer.render(frame), renderer.render(frame)

    np.testing.assert_array_equal(first, frame)
    np.testing.assert_array_equal(second, frame)
    assert (renderer.tiled, renderer.tile_size, renderer.overlap) == (True, 64, 32)
    assert [size for size in network.sizes if size[0] * size[1] > 100 * 100] == [(512, 320), (224, 192), (128, 128)]
    assert caplog.messages == [
        f"out of memory at 300×500, going on in tiles of {side} pixels" for side in (256, 128, 64)
    ]


def test_tiles_that_are_asked_for_are_halved_too():
    network, frame = Limited(40 * 40), pixels(100, 90)
    renderer = engine(network, tiled=True, tile_size=96, overlap=32)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.tile_size == 32


def test_a_size_that_a_frame_does_not_exceed_is_passed_over():
    network, frame = Limited(64 * 64), pixels(100, 120)
    renderer = engine(network, tile_size=512, overlap=64)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert network.sizes[:2] == [(128, 128), (64, 64)]


def test_the_size_of_tiles_is_the_one_that_is_used():
    recorder = Recorder()
    renderer = probed(recorder, multiple=64, tiles={"tiled": True, "tile_size": 32, "overlap": 0})

    renderer.render(pixels(200, 200))

    assert {tuple(each.shape[2:]) for each in recorder.given[1:]} == {(64, 64)}
    assert renderer.tile_size == 64


def test_tiles_are_no_smaller_than_the_network_takes():
    network = Limited(128 * 160)
    renderer = probed(network, least=(100, 100), tiles={"tile_size": 256})
    network.limit = 64 * 64

    with refused(RenderError, "render.out_of_memory", "cpu", "tiles of 128 pixels"):
        renderer.render(pixels(300, 300))

    assert network.sizes[1:] == [(320, 320), (192, 192), (128, 128)]


def test_a_network_of_one_size_cannot_make_do_with_less():
    network = Limited(64 * 64)
    renderer = probed(network, tile=(64, 64))
    network.limit = 0

    with refused(RenderError, "render.out_of_memory", "cpu", "tiles of 64 pixels"):
        renderer.render(pixels(100, 90))


def test_memory_that_runs_out_later_makes_tiles_smaller_from_there_on():
    network, frame = Limited(96 * 96), pixels(200, 200)
    renderer = engine(network, tile_size=96, overlap=32)
    renderer.render(frame)
    network.limit = 32 * 32

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.tile_size == 32


@pytest.mark.parametrize(
    ("settings_", "names"),
    [
        ({"tiled": False}, ["tiled", "auto", "true"]),
        ({"tiled": True}, ["tiles of 32 pixels"]),
        ({"tiled": "auto"}, ["tiles of 32 pixels"]),
    ],
)
def test_out_of_memory_for_good_says_what_to_change(settings_, names):
    with refused(RenderError, "render.out_of_memory", "cpu", *names):
        engine(Limited(0), tile_size=64, overlap=32, **settings_).render(pixels(100, 90))


class Cramped(TorchFunctionMode):
    """Memory that does not suffice for zeros of a whole frame."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.new_zeros:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*args, **kwargs or {})


def test_a_frame_that_does_not_fit_beside_its_tiles_says_so():
    with Cramped(), refused(RenderError, "render.out_of_memory", "cpu", "90×100"):
        engine(nn.Identity(), tiled=True, tile_size=64, overlap=32).render(pixels(100, 90))


def test_a_frame_that_does_not_fit_on_a_device_stays_beside_it_and_tiles_begin_anew():
    renderer, frame = engine(nn.Identity(), tile_size=64, overlap=32), pixels(100, 90)
    renderer._fit = Fit(tiled=True, tile=32, home=torch.device("cuda"))

    renderer._fit = renderer._smaller_fit(frame, in_network=False)

    assert renderer._fit == Fit(tiled=True, tile=64, home=CPU)
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_nothing_of_a_failed_try_is_kept_in_memory():
    given = []

    def fail(x):
        given.append(weakref.ref(x))
        if x.shape[2] > 64:
            raise torch.OutOfMemoryError
        assert [each() for each in given[:-1] if each() is not None] == []
        return x

    engine(Do(fail), tile_size=64, overlap=32).render(pixels(64, 200))
    engine(Do(fail), tile_size=64, overlap=32).render(pixels(100, 60))


def test_another_failure_of_the_network_is_not_taken_for_lack_of_memory():
    def fail(x):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine(Do(fail)).render(pixels())


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
def test_output_of_another_type_is_welcome(network):
    frame = pixels()

    assert difference(engine(network).render(frame), frame) <= 1


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_precision_is_that_of_the_convolutions(precision, dtype):
    dtypes = []
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), Do(lambda x: dtypes.append(x.dtype) or x))
    network[0].weight.data.copy_(torch.eye(3)[:, :, None, None])
    frame = pixels(40, 50)

    rendered = engine(network, precision=precision).render(frame)

    assert dtypes == [dtype]
    assert difference(rendered, frame) <= (0 if dtype == torch.float32 else 1)


def lower(function, **settings):
    """An engine whose network is the identity in fp32 and something else in bf16."""
    network = Do(lambda x: function(x) if torch.is_autocast_enabled("cpu") else x)
    return engine(network, precision="bf16", **settings)


def test_a_precision_that_changes_little_stays():
    renderer, frame = lower(lambda x: x + 1 / 127.5, parity_tolerance=(2, 1.5)), np.full((5, 7, 3), 90, np.uint8)

    parity = renderer.settle(frame)

    assert (parity.max, parity.mean) == (pytest.approx(1, abs=1e-3), pytest.approx(1, abs=1e-3))
    assert (renderer.precision, renderer.notes) == ("bf16", [])
    assert (renderer.render(frame) == 91).all()


def test_a_precision_that_changes_all_pixels_a_little_gives_way():
    renderer = lower(lambda x: x + 1 / 127.5)

    renderer.settle(np.full((5, 7, 3), 90, np.uint8))

    assert renderer.precision == "fp32"


def test_a_precision_that_changes_one_pixel_too_much_gives_way_and_says_so():
    def spoil(x):
        x[0, 1, 2, 3] += 5 / 127.5
        return x

    renderer, frame = lower(spoil), np.full((5, 10, 3), 90, np.uint8)

    parity = renderer.settle(frame)

    assert (parity.max, parity.mean) == (pytest.approx(5, abs=1e-3), pytest.approx(5 / 150, abs=1e-3))
    assert renderer.precision == "fp32"
    assert renderer.notes == [
        "bf16 changes the first frame by 5 code values of 255 at most and 0.0333 on average; parity_tolerance allows 2 "
        "and 0.25, so all are rendered in fp32"
    ]
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_what_is_beyond_black_and_white_does_not_count():
    renderer = lower(lambda x: x * 3)

    assert renderer.settle(np.full((5, 7, 3), 255, np.uint8)) == Parity(0, 0)
    assert renderer.precision == "bf16"


@pytest.mark.parametrize("tolerance", [(2, 0.25), (1e9, 1e9)])
def test_a_precision_whose_first_output_is_not_finite_always_gives_way(tolerance):
    renderer, frame = lower(lambda x: x / 0, parity_tolerance=tolerance), pixels()

    assert renderer.settle(frame) == Parity(math.inf, math.inf)
    assert renderer.precision == "fp32"
    assert renderer.notes == ["the first frame's output in bf16 is not finite, so all are rendered in fp32"]
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_a_later_frame_that_is_not_finite_is_rendered_in_fp32_alone(caplog):
    renderer = lower(lambda x: x / 0 if x[0, 0, 0, 0] > 0 else x + 1 / 127.5)
    dark, bright = np.full((5, 7, 3), 90, np.uint8), np.full((5, 7, 3), 200, np.uint8)

    rendered = [renderer.render(frame)[0, 0, 0] for frame in (dark, bright, dark, bright)]

    assert rendered == [91, 200, 91, 200]
    assert renderer.precision == "bf16"
    assert renderer.notes == caplog.messages == ["frames whose output in bf16 is not finite are rendered in fp32"]


def test_fp32_is_compared_with_nothing():
    recorder = Recorder()

    assert engine(recorder).settle(pixels()) is None
    assert recorder.given == []


def test_tiles_that_fp32_alone_needs_are_not_kept():
    def limited(x):
        if x.shape[2] > 64 and not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError
        return x

    renderer = engine(Do(limited), precision="bf16", tile_size=64, overlap=32)

    renderer.settle(pixels(100, 60))

    assert (renderer.precision, renderer.tiled) == ("bf16", False)


class Arrival:
    """When the download from a device is over, without the device."""

    def __init__(self):
        self.waited = 0
        self.meanwhile = lambda: None

    def synchronize(self):
        self.waited += 1
        self.meanwhile()


@pytest.fixture
def arrival(monkeypatch):
    """Have results arrive late, as from a device that works on its own."""
    arrival = Arrival()
    monkeypatch.setattr(Transfers, "download", lambda self, values, finite: Download(values, finite, arrival))
    return arrival


def test_frames_may_be_submitted_before_the_results_of_others_are_asked_for(arrival):
    renderer = engine(Do(torch.neg))
    given = [pixels(5 + seed, 7, seed) for seed in range(4)]

    under_way = [renderer.submit(frame) for frame in given]
    assert arrival.waited == 0

    for frame, rendering in reversed(list(zip(given, under_way, strict=True))):
        np.testing.assert_array_equal(rendering.result(), 255 - frame)
    assert arrival.waited == 4


def test_a_late_output_that_is_not_finite_is_refused_when_it_is_asked_for(arrival):
    rendering = engine(constant(float("nan"))).submit(pixels())

    with refused(RenderError, "render.not_finite"):
        rendering.result()


def test_late_outputs_that_are_not_finite_are_rendered_in_fp32_whoever_asks(arrival):
    renderer = lower(lambda x: x / 0)
    given = [pixels(40, 50, seed) for seed in range(8)]

    under_way = [renderer.submit(frame) for frame in given]
    with ThreadPoolExecutor(4) as pool:
        rendered = list(pool.map(lambda rendering: rendering.result(), under_way))

    np.testing.assert_array_equal(rendered, given)
    assert renderer.precision == "bf16"
    assert len(renderer.notes) == 1


def test_how_many_go_together_is_told_of_the_precision_that_was_asked_for():
    fails, busy, go_on = threading.Event(), threading.Event(), threading.Event()

    def network(x):
        if torch.is_autocast_enabled("cpu"):
            return x / 0 if fails.is_set() else x + len(x) / 1000
        busy.set()
        assert go_on.wait(PATIENCE)
        return x

    renderer, frame = engine(Do(network), precision="bf16", batch=2), pixels()
    renderer.submit_all([frame, frame], [None, None])
    assert renderer.together(5, 7) == 1
    fails.set()

    with ThreadPoolExecutor(2) as pool:
        rendering = pool.submit(renderer.render, frame)
        assert busy.wait(PATIENCE)
        together = pool.submit(renderer.together, 5, 7)
        wait([together], timeout=0.5)
        go_on.set()

    assert together.result() == 1
    np.testing.assert_array_equal(rendering.result(), frame)


def test_a_frame_that_is_rendered_anew_in_fp32_keeps_nobody_waiting_who_feeds_the_device(arrival):
    renderer = lower(lambda x: x / 0)
    rendering = renderer.submit(pixels())

    with ThreadPoolExecutor(1) as pool:
        arrival.meanwhile = lambda: pool.submit(renderer.together, 5, 7).result(timeout=PATIENCE)
        np.testing.assert_array_equal(rendering.result(), pixels())

    assert arrival.waited == 2


def test_a_first_try_learns_scale_and_channels():
    signature = probed(nn.Sequential(nn.Upsample(scale_factor=4), Do(lambda x: x[:, :1]))).signature

    assert (signature.scale, signature.output_channels) == (4, 1)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_an_upscaling_network_gives_larger_frames(scale, tiled):
    frame = pixels(70, 90)
    tiles = {"tiled": tiled, "tile_size": 64, "overlap": 32}

    rendered = probed(nn.Upsample(scale_factor=scale), tiles=tiles).render(frame)

    np.testing.assert_array_equal(rendered, frame.repeat(scale, 0).repeat(scale, 1))


def test_a_network_of_one_channel_sees_the_colours_one_by_one():
    recorder, frame = Recorder(), pixels()

    rendered = probed(recorder, channels=1, value_range=(0, 255)).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    np.testing.assert_allclose(recorder.given[-1][:, 0, :5, :7].permute(1, 2, 0), frame, atol=1e-4)


def test_a_network_from_one_channel_to_three_sees_the_luminance():
    recorder, frame = Recorder(), pixels()

    rendered = probed(nn.Sequential(recorder, Do(lambda x: x.expand(-1, 3, -1, -1))), channels=1).render(frame)

    luminance = frame @ np.array([0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(rendered, np.stack([luminance] * 3, axis=2), atol=0.501)
    assert len(recorder.given[-1]) == 1


def test_a_network_that_answers_one_channel_gives_grey_frames():
    frame = pixels()

    rendered = probed(Do(lambda x: x[:, 1:2])).render(frame)

    np.testing.assert_array_equal(rendered, frame[:, :, [1, 1, 1]])


def test_a_network_of_four_channels_sees_an_opaque_alpha():
    recorder, frame = Recorder(), pixels()

    rendered = probed(recorder, channels=4, value_range=(0, 1)).render(frame)

    assert rendered.shape == (5, 7, 4)
    np.testing.assert_array_equal(rendered[:, :, :3], frame)
    assert (rendered[:, :, 3] == 255).all()
    assert (recorder.given[-1][:, 3] == 1).all()


@pytest.mark.parametrize("tiled", [False, True])
def test_a_network_for_bgr_sees_blue_first(tiled):
    recorder, frame = Recorder(), pixels()

    rendered = probed(recorder, channel_order="bgr", value_range=(0, 255), tiles={"tiled": tiled}).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    np.testing.assert_allclose(recorder.given[-1][0, :, :5, :7].permute(1, 2, 0), frame[:, :, ::-1], atol=1e-4)


def test_mean_and_std_are_per_channel_and_the_answer_is_from_0_to_1():
    recorder, frame = Recorder(), pixels()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)

    undo = Do(lambda x: x * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1))
    rendered = probed(nn.Sequential(recorder, undo), mean=mean, std=std).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    expected = (frame / 255 - mean) / std
    np.testing.assert_allclose(recorder.given[-1][0, :, :5, :7].permute(1, 2, 0), expected, atol=1e-5)


def test_a_network_may_answer_in_another_range_than_it_takes():
    frame = pixels()

    rendered = probed(Do(lambda x: (x + 1) / 2), output_range=(0.0, 1.0)).render(frame)

    np.testing.assert_array_equal(rendered, frame)


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


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), tile=st.sampled_from([(64, 96), (40, 64), (33, 35)]))
def test_a_network_of_one_size_is_given_no_other(height, width, tile):
    recorder, frame = Recorder(), pixels(height, width)

    rendered = probed(recorder, tile=tile, multiple=1, tiles={"tiled": False, "overlap": 16}).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    assert {tuple(each.shape[2:]) for each in recorder.given} == {tile}


def test_a_frame_beyond_the_bounds_of_a_network_is_rendered_in_tiles():
    recorder, frame = Recorder(), pixels(200, 90)
    renderer = probed(recorder, most=(128, None))

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert max(each.shape[2] for each in recorder.given) <= 128
    assert renderer.tiled


def test_the_first_try_stays_within_the_bounds_of_a_network():
    recorder = Recorder()

    probed(recorder, most=(32, None))

    assert [tuple(each.shape[2:]) for each in recorder.given] == [(32, 160)]


def test_a_small_frame_is_padded_to_the_least_that_a_network_takes():
    recorder, frame = Recorder(), pixels(5, 7)

    np.testing.assert_array_equal(probed(recorder, least=(40, 100)).render(frame), frame)
    assert [tuple(each.shape[2:]) for each in recorder.given] == [(96, 160), (64, 128)]


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_every_value_of_16_bits_survives(value_range):
    frame = np.arange(65536, dtype=np.uint16).repeat(3).reshape(256, 256, 3)

    rendered = probed(nn.Identity(), value_range=value_range).render(frame)

    assert rendered.dtype == np.uint16
    np.testing.assert_array_equal(rendered, frame)


def test_floats_are_neither_clamped_nor_rounded():
    frame = np.random.default_rng(0).normal(0.5, 2, (5, 7, 3)).astype(np.float32)

    rendered = probed(nn.Identity()).render(frame)

    assert rendered.dtype == np.float32
    np.testing.assert_allclose(rendered, frame, atol=1e-6)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint16, 65535), (np.float32, 1)])
def test_frames_may_come_back_deeper(dtype, top):
    frame = pixels()

    np.testing.assert_allclose(probed(nn.Identity()).render(frame, dtype), frame.astype(float) / 255 * top, rtol=1e-6)


@pytest.mark.parametrize(
    ("network", "signature", "kind", "code", "answer"),
    [
        (nn.Conv2d(1, 1, 1), {}, LoadError, "model.wrong_channels", "to have 1 channels, but got 3 channels instead"),
        (Do(lambda x: x[:, :2]), {}, Unfit, "model.answer_without_frame", "1×2×96×160"),
        (nn.AvgPool2d(2), {}, Unfit, "model.answer_without_frame", "1×3×48×80"),
        (Do(lambda x: x[:, :, 1:]), {}, Unfit, "model.answer_without_frame", "1×3×95×160"),
        (nn.Upsample(scale_factor=2), {"scale": 4}, LoadError, "model.signature_contradicted", "scale 4"),
        (Do(lambda x: x[:, :1]), {"output_channels": 3}, LoadError, "model.signature_contradicted", "channels 3"),
    ],
    ids=["input", "channels", "smaller", "cut", "scale", "output"],
)
def test_a_first_try_that_goes_wrong_says_what_was_expected(network, signature, kind, code, answer):
    with refused(kind, code, "160×96", answer):
        probed(network, **signature)


def test_a_network_that_cannot_run_in_half_runs_in_full(caplog):
    model = Model(nn.Conv2d(3, 3, 1).eval(), "delicate", Signature(half=False))

    built = Engine(model, device=CPU, settings=Settings(precision="fp16"))

    assert built.precision == "fp32"
    assert caplog.messages == ["delicate cannot run in fp16; it runs in fp32"]


def test_rendering_twice_gives_the_same_bits():
    torch.manual_seed(0)
    renderer = engine(ARCHITECTURES["unet"](base_channels=4))
    frame = pixels(50, 60)

    np.testing.assert_array_equal(renderer.render(frame), renderer.render(frame))


def test_auto_is_the_best_device_there_is():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"

    assert find_device("auto").type == best
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("wanted", ["cuda:99", *([] if torch.backends.mps.is_available() else ["mps"])])
def test_a_device_that_is_asked_for_and_missing_is_refused(wanted):
    with refused(RenderError, "device.not_in_torch", f"device is {wanted},", f"torch {torch.__version__}"):
        find_device(wanted)


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
def test_frames_in_flight_on_cuda_do_not_touch_each_other(dtype):
    renderer = Engine(Model(nn.Identity(), "test"), device=find_device("cuda"), settings=Settings())
    given = [pixels(500 + 32 * seed, 700, seed).astype(dtype) for seed in range(12)]

    under_way = [renderer.submit(frame) for frame in given]

    for frame, rendering in zip(given, under_way, strict=True):
        np.testing.assert_allclose(rendering.result(), frame, atol=1e-3)


@on_cuda
def test_late_outputs_on_cuda_that_are_not_finite_are_rendered_in_fp32_whoever_asks():
    network = Do(lambda x: x / 0 if torch.is_autocast_enabled("cuda") else -x)
    renderer = Engine(Model(network, "test"), device=find_device("cuda"), settings=Settings(precision="fp16"))
    given = [pixels(400, 500, seed) for seed in range(12)]

    under_way = [renderer.submit(frame) for frame in given]
    with ThreadPoolExecutor(4) as pool:
        rendered = list(pool.map(lambda rendering: rendering.result(), under_way))

    np.testing.assert_array_equal(rendered, [255 - frame for frame in given])
    assert renderer.notes == ["frames whose output in fp16 is not finite are rendered in fp32"]


@pytest.fixture
def half_a_gigabyte():
    """A CUDA device of which this process gets no more than that beside what it has."""
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 2**29
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.get_device_properties(0).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@on_cuda
def test_memory_that_runs_out_on_cuda_leads_to_tiles(half_a_gigabyte):
    network = Do(lambda x: -x.repeat(1, 200, 1, 1)[:, :3])
    settings_ = Settings(tile_size=256, overlap=32)
    renderer = Engine(Model(network, "test"), device=find_device("cuda"), settings=settings_)
    given = [pixels(500, 700, seed) for seed in range(4)]

    under_way = [renderer.submit(frame) for frame in given]

    for frame, rendering in zip(given, under_way, strict=True):
        np.testing.assert_array_equal(rendering.result(), 255 - frame)
    assert (renderer.tiled, renderer.tile_size) == (True, 256)


@on_cuda
@pytest.mark.skipif(not find_spec("triton"), reason="torch compiles for CUDA with Triton")
def test_a_compiled_network_on_cuda_renders_what_the_cpu_renders():
    torch.manual_seed(0)
    network, frame = ARCHITECTURES["unet"](base_channels=8), pixels(100, 130)
    expected = engine(network).render(frame)
    asked = Settings(precision="fp16", compile=True, parity_tolerance=(4, 1))
    renderer = Engine(Model(network, "unet"), device=find_device("cuda"), settings=asked)

    renderer.settle(frame)

    assert renderer.notes == []
    assert renderer.compile_seconds is not None
    assert difference(renderer.render(frame), expected) <= 4
