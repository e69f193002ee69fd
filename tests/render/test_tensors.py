"""Frames as a network takes them, and back: padding, channels, value ranges, depths."""

import math

import numpy as np
import pytest
import torch
from dailies.models.signature import Signature
from dailies.render.tensors import is_finite, network_input, pad, to_network_input
from helpers.networks import Do, Recorder, constant, engine, pixels, probed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn


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
def test_frames_may_be_rendered_deeper(dtype, top):
    frame = pixels()

    np.testing.assert_allclose(probed(nn.Identity()).render(frame, dtype), frame.astype(float) / 255 * top, rtol=1e-6)


@pytest.mark.parametrize(
    ("code", "level"), [(0, 0), (0.49, 0), (0.51, 1), (127.4, 127), (127.6, 128), (254.6, 255), (-90, 0), (400, 255)]
)
def test_code_values_are_rounded_to_the_nearest_and_clamped(code, level):
    rendered = engine(constant(code / 127.5 - 1)).render(pixels())

    np.testing.assert_array_equal(rendered, np.full((5, 7, 3), level))


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


@pytest.mark.parametrize(
    "signature",
    [
        Signature(),
        Signature(value_range=(0.0, 1.0), multiple=1),
        Signature(value_range=(-0.3, 254.7)),
        Signature(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), least=(48, 1)),
        Signature(channel_order="bgr"),
        Signature(channels=5, extra_channels=(0.1, 0.2)),
    ],
)
def test_frames_of_8_bits_become_the_same_input_by_a_table_as_by_arithmetic(signature):
    frame = torch.from_numpy(pixels(37, 90, 1))
    unit = frame.permute(2, 0, 1)[None].float() / 255

    found = network_input(frame, signature)

    assert torch.equal(found, pad(to_network_input(unit, signature), signature.multiple, signature.least))


def test_a_small_frame_is_padded_to_the_least_that_a_network_takes():
    recorder, frame = Recorder(), pixels(5, 7)

    np.testing.assert_array_equal(probed(recorder, least=(40, 100)).render(frame), frame)
    assert [tuple(each.shape[2:]) for each in recorder.given] == [(96, 160), (64, 128)]


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


def test_a_network_that_returns_one_channel_renders_grey_frames():
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


def test_mean_and_std_are_per_channel_and_the_output_is_from_0_to_1():
    recorder, frame = Recorder(), pixels()
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)

    undo = Do(lambda x: x * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1))
    rendered = probed(nn.Sequential(recorder, undo), mean=mean, std=std).render(frame)

    np.testing.assert_array_equal(rendered, frame)
    expected = (frame / 255 - mean) / std
    np.testing.assert_allclose(recorder.given[-1][0, :, :5, :7].permute(1, 2, 0), expected, atol=1e-5)


def test_a_network_may_return_another_range_than_it_takes():
    frame = pixels()

    rendered = probed(Do(lambda x: (x + 1) / 2), output_range=(0.0, 1.0)).render(frame)

    np.testing.assert_array_equal(rendered, frame)


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


def test_a_constant_follows_alpha():
    recorder = Recorder()

    probed(nn.Sequential(recorder, Do(lambda x: x[:, :4])), channels=5, extra_channels=(0.5,))

    assert (recorder.given[0][:, 3] == 1).all()
    assert (recorder.given[0][:, 4] == 0.5).all()


@pytest.mark.parametrize("said", [{}, {"value_range": "[0, 1]"}])
def test_an_output_of_8_bit_integers_is_from_0_to_255(said):
    frame = pixels(32, 40)

    def to_bytes(x):
        return ((x if said else x / 2 + 0.5) * 255).round().to(torch.uint8)

    renderer = probed(Do(to_bytes), said=said, builder="onnx", first=frame)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert any("output_range [0, 255] is used" in note for note in renderer.notes)


def test_an_output_range_that_is_set_holds_for_integers_too():
    frame = np.full((32, 40, 3), 100, np.uint8)

    renderer = probed(Do(lambda x: torch.full_like(x, 50).to(torch.uint8)), said={"output_range": "[0, 100]"})

    assert renderer.render(frame).max() == 128


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_one_value_that_is_not_finite_is_found(odd, dtype, memory_format):
    output = torch.randn(1, 3, 40, 50).to(dtype).to(memory_format=memory_format)
    assert is_finite(output)

    output[0, 1, 20, 30] = odd

    assert not is_finite(output)
    assert is_finite(output[:, :, :20])
    assert not is_finite(output[:, :, :21, :31])
