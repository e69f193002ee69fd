"""Faster modes are compared with fp32, which is used if they differ too much."""

import math

import numpy as np
import pytest
import torch
from dailies.models.load import Model
from dailies.models.signature import Signature
from dailies.render.engine import Engine, Settings
from dailies.render.parity import Parity
from helpers.networks import CPU, Do, Recorder, difference, differing_in_bf16, engine, pixels
from torch import nn


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


FRAME = np.full((5, 10, 3), 90, np.uint8)


def brighter(x):
    return x + 1 / 127.5


def one_pixel_off(x):
    x[0, 1, 2, 3] += 5 / 127.5
    return x


@pytest.mark.parametrize(
    ("function", "tolerance", "parity", "precision"),
    [
        (brighter, (2, 1.5), (1, 1), "bf16"),
        (brighter, (2, 0.25), (1, 1), "fp32"),
        (one_pixel_off, (2, 0.25), (5, 5 / 150), "fp32"),
        (lambda x: x / 0, (2, 0.25), (math.inf, math.inf), "fp32"),
        (lambda x: x / 0, (1e9, 1e9), (math.inf, math.inf), "fp32"),
    ],
    ids=["tolerated", "mean", "one pixel", "infinite", "infinite and tolerated"],
)
def test_a_precision_within_the_tolerance_is_used_and_another_is_noted(function, tolerance, parity, precision):
    renderer = differing_in_bf16(function, parity_tolerance=tolerance)

    found = renderer.choose_mode(FRAME)

    assert (found.max, found.mean) == pytest.approx(parity, abs=1e-3)
    assert renderer.precision == precision
    assert [("bf16" in note) for note in renderer.notes] == ([True] if precision == "fp32" else [])
    np.testing.assert_array_equal(renderer.render(FRAME), FRAME + (precision == "bf16"))


def test_differences_beyond_black_and_white_do_not_count():
    renderer = differing_in_bf16(lambda x: x * 3)

    assert renderer.choose_mode(np.full((5, 7, 3), 255, np.uint8)) == Parity(0, 0)
    assert renderer.precision == "bf16"


def test_a_later_frame_that_is_not_finite_is_rendered_in_fp32_alone(caplog):
    renderer = differing_in_bf16(lambda x: x / 0 if x[0, 0, 0, 0] > 0 else x + 1 / 127.5)
    dark, bright = np.full((5, 7, 3), 90, np.uint8), np.full((5, 7, 3), 200, np.uint8)

    rendered = [renderer.render(frame)[0, 0, 0] for frame in (dark, bright, dark, bright)]

    assert rendered == [91, 200, 91, 200]
    assert renderer.precision == "bf16"
    (note,) = renderer.notes
    assert caplog.messages == [note]
    assert "in bf16 is not finite" in note


def test_fp32_is_compared_with_nothing():
    recorder = Recorder()

    assert engine(recorder).choose_mode(pixels()) is None
    assert recorder.given == []


def test_tiles_that_only_fp32_needs_are_not_used_later():
    def limited(x):
        if x.shape[2] > 64 and not torch.is_autocast_enabled("cpu"):
            raise torch.OutOfMemoryError
        return x

    renderer = engine(Do(limited), precision="bf16", tile_size=64, overlap=32)

    renderer.choose_mode(pixels(100, 60))

    assert (renderer.precision, renderer.tiled) == ("bf16", False)


def test_a_network_that_cannot_run_in_half_runs_in_full(caplog):
    model = Model(nn.Conv2d(3, 3, 1).eval(), "delicate", Signature(half=False))

    built = Engine(model, device=CPU, settings=Settings(precision="fp16"))

    assert built.precision == "fp32"
    (note,) = built.notes
    assert caplog.messages == [note]
    assert "delicate cannot run in fp16" in note


def test_a_tuned_network_is_compared_with_one_that_is_not():
    frame = pixels()
    renderer = engine(Do(lambda x: x + (6 / 127.5 if renderer.autotuned else 0)))
    renderer._network.is_autotuned = True

    assert not renderer.is_baseline
    parity = renderer.choose_mode(frame)

    assert parity.max == pytest.approx(6, abs=0.01)
    assert not renderer.autotuned
    assert renderer.is_baseline
    (note,) = renderer.notes
    assert "autotuned fp32" in note
