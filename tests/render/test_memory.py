"""Memory that runs out: smaller batches, then tiles, then smaller tiles."""

import weakref

import numpy as np
import pytest
import torch
from dailies.core.errors import RenderError
from dailies.models.load import Model
from dailies.render.devices import find_device
from dailies.render.engine import Engine, Settings
from dailies.render.memory import MemoryPlan
from helpers.networks import CPU, Do, Limited, engine, on_cuda, pixels, probed
from helpers.raising import refused
from torch import nn
from torch.overrides import TorchFunctionMode


def test_frames_after_memory_ran_out_are_tiled(caplog):
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
    assert [record.args for record in caplog.records] == [(90, 100, 64)]


def test_frames_that_fit_are_never_tiled():
    network = Limited(64 * 64)
    renderer = engine(network, tile_size=32, overlap=0)

    for size in ((64, 64), (33, 40)):
        renderer.render(pixels(*size))

    assert network.sizes == [(64, 64), (64, 64)]
    assert not renderer.tiled


def test_in_place_work_of_a_failed_network_does_not_damage_the_frame():
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
def test_every_out_of_memory_error_leads_to_tiles(error):
    frame = pixels(100, 90)

    rendered = engine(Limited(64 * 64, error), tile_size=64, overlap=32).render(frame)

    np.testing.assert_array_equal(rendered, frame)


def test_a_real_lack_of_memory_on_the_cpu_leads_to_tiles():
    def too_much(x):
        if x.shape[2] > 64:
            torch.empty(2**62, dtype=torch.uint8)
        return x

    frame = pixels(100, 50)

    np.testing.assert_array_equal(engine(Do(too_much), tile_size=64, overlap=32).render(frame), frame)


def test_another_failure_of_the_network_is_raised():
    def fail(x):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        engine(Do(fail)).render(pixels())


def test_tiles_that_do_not_fit_are_halved_and_the_size_found_stays(caplog):
    network, frame = Limited(100 * 100), pixels(500, 300)
    renderer = engine(network, tile_size=256, overlap=64)

    first, second = renderer.render(frame), renderer.render(frame)

    np.testing.assert_array_equal(first, frame)
    np.testing.assert_array_equal(second, frame)
    assert (renderer.tiled, renderer.tile_size, renderer.overlap) == (True, 64, 32)
    assert [size for size in network.sizes if size[0] * size[1] > 100 * 100] == [(512, 320), (224, 192), (128, 128)]
    assert [record.args for record in caplog.records] == [(300, 500, side) for side in (256, 128, 64)]


def test_tiles_that_the_settings_ask_for_are_halved_too():
    network, frame = Limited(40 * 40), pixels(100, 90)
    renderer = engine(network, tiled=True, tile_size=96, overlap=32)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.tile_size == 32


def test_a_size_that_a_frame_does_not_exceed_is_passed_over():
    network, frame = Limited(64 * 64), pixels(100, 120)
    renderer = engine(network, tile_size=512, overlap=64)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert network.sizes[:2] == [(128, 128), (64, 64)]


def test_tiles_are_no_smaller_than_the_network_takes():
    network = Limited(128 * 160)
    renderer = probed(network, least=(100, 100), tiles={"tile_size": 256})
    network.limit = 64 * 64

    with refused(RenderError, "render.out_of_memory", "cpu", "tiles of 128 pixels"):
        renderer.render(pixels(300, 300))

    assert network.sizes[1:] == [(320, 320), (192, 192), (128, 128)]


def test_a_network_of_one_size_cannot_use_smaller_tiles():
    network = Limited(64 * 64)
    renderer = probed(network, tile=(64, 64))
    network.limit = 0

    with refused(RenderError, "render.out_of_memory", "cpu", "tiles of 64 pixels"):
        renderer.render(pixels(100, 90))


def test_memory_that_runs_out_later_shrinks_all_later_tiles():
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
def test_out_of_memory_for_good_names_what_to_change(settings_, names):
    with refused(RenderError, "render.out_of_memory", "cpu", *names):
        engine(Limited(0), tile_size=64, overlap=32, **settings_).render(pixels(100, 90))


class Cramped(TorchFunctionMode):
    """Runs out of memory when a tensor of zeros for a whole frame is made."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.new_zeros:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return function(*args, **kwargs or {})


def test_a_frame_that_does_not_fit_beside_its_tiles_is_named():
    with Cramped(), refused(RenderError, "render.out_of_memory", "cpu", "90×100"):
        engine(nn.Identity(), tiled=True, tile_size=64, overlap=32).render(pixels(100, 90))


def test_a_frame_that_does_not_fit_on_a_device_is_kept_on_the_cpu_with_large_tiles_again():
    renderer, frame = engine(nn.Identity(), tile_size=64, overlap=32), pixels(100, 90)
    renderer._plan = MemoryPlan(tiled=True, tile_size=32, frame_device=torch.device("cuda"))

    renderer._plan = renderer._smaller_plan(frame, in_network=False)

    assert renderer._plan == MemoryPlan(tiled=True, tile_size=64, frame_device=CPU)
    np.testing.assert_array_equal(renderer.render(frame), frame)


def test_tensors_of_a_failed_attempt_are_freed():
    given = []

    def fail(x):
        given.append(weakref.ref(x))
        if x.shape[2] > 64:
            raise torch.OutOfMemoryError
        assert [each() for each in given[:-1] if each() is not None] == []
        return x

    engine(Do(fail), tile_size=64, overlap=32).render(pixels(64, 200))
    engine(Do(fail), tile_size=64, overlap=32).render(pixels(100, 60))


@pytest.fixture
def half_a_gigabyte():
    """A CUDA device on which this process gets no more than that in addition to what it has."""
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
