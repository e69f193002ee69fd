"""Tiles: where they are, that they cover a frame, and that blending them adds nothing."""

import itertools

import numpy as np
import pytest
import torch
from dailies.models.architectures.catalog import ARCHITECTURES
from dailies.render.tiling import spans, weights, window
from helpers.networks import Do, Recorder, coarse, constant, difference, engine, pixels, probed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

SETTINGS = [
    (512, 64, 32),
    (512, 0, 32),
    (256, 96, 32),
    (500, 50, 32),
    (96, 33, 32),
    (64, 32, 32),
    (40, 39, 1),
    (7, 3, 1),
    (48, 31, 16),
]


@pytest.mark.parametrize(("tile", "overlap", "stride"), SETTINGS)
def test_spans_cover_evenly_aligned_and_overlapping(tile, overlap, stride):
    for length in range(stride, 90 * stride + 1, stride):
        tiles = spans(length, tile, overlap, stride)
        sizes = {stop - start for start, stop in tiles}
        assert len(sizes) == 1, f"{length}: tiles of {sizes}"
        assert max(sizes) <= tile
        assert all(start % stride == 0 and stop % stride == 0 for start, stop in tiles)
        assert (tiles[0][0], tiles[-1][1]) == (0, length)
        for (start, stop), (following, _) in itertools.pairwise(tiles):
            assert start < following <= stop - overlap, f"{length}: {tiles}"


@pytest.mark.parametrize(("tile", "overlap"), [(512, 64), (256, 32), (96, 32)])
def test_spans_are_as_few_and_as_small_as_they_can_be(tile, overlap):
    for length in range(32, 4097, 32):
        tiles = spans(length, tile, overlap)
        size = tiles[0][1]
        if len(tiles) > 1:
            assert (len(tiles) - 1) * (tile - overlap) + overlap < length
            assert len(tiles) * (size - 32 - overlap) + overlap < length


def test_frame_within_a_tile_is_one_span():
    assert spans(256, 512, 64) == [(0, 256)]
    assert spans(512, 512, 64) == [(0, 512)]
    assert spans(32, 500, 50) == [(0, 32)]


def test_spans_known_by_hand():
    assert spans(96, 64, 32) == [(0, 64), (32, 96)]
    assert spans(10, 4, 1, stride=1) == [(0, 4), (3, 7), (6, 10)]
    assert spans(544, 512, 64) == [(0, 320), (224, 544)]
    assert spans(1088, 512, 64) == [(0, 416), (320, 736), (672, 1088)]


def test_redundant_work_of_full_hd_is_a_third():
    work = {n: sum(stop - start for start, stop in spans(n, 512, 64)) for n in (1920, 1088)}
    assert work[1920] * work[1088] / (1920 * 1088) == pytest.approx(1.34, abs=0.005)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((96, 64, 64), "overlap of 64 .* below the tile's 64"),
        ((96, 64, -1), "overlap of -1"),
        ((96, 16, 0), "tile of 16 pixels is smaller than the stride of 32"),
        ((100, 64, 0), "multiple of 32, not 100"),
        ((0, 64, 0), "not 0"),
        ((-32, 64, 0), "not -32"),
        ((96, 64, 0, 0), "stride must be at least 1 pixel, not 0"),
        ((96, 64, 40), "tiles of 64 pixels cannot advance by a stride of 32 and share 40; .* at least 96"),
    ],
)
def test_impossible_tiles_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        spans(*arguments)


@pytest.mark.parametrize("size", [1, 2, 32, 416, 512])
def test_weights_are_a_gaussian_of_an_eighth_of_a_tile(size):
    weight = weights(size)
    assert weight.dtype == np.float32
    assert weight.shape == (size,)
    assert (weight > 0).all()
    assert (weight <= 1).all()
    assert weight == pytest.approx(weight[::-1])
    centre = (size - 1) / 2
    assert weight[-1] == pytest.approx(np.exp(-((size - 1 - centre) ** 2) / (2 * (size / 8) ** 2)))
    assert weight[-1] > 3e-4


def test_window_is_the_outer_product():
    assert window(3, 5) == pytest.approx(weights(3)[:, None] * weights(5)[None, :])
    assert window(3, 5).dtype == np.float32
    with pytest.raises(ValueError, match="not 0"):
        window(0, 5)


def blend(image: np.ndarray, tile: int, overlap: int, stride: int) -> np.ndarray:
    """Blend the tiles of float32 ``(height, width)`` as if each had gone through an identity network."""
    rows, columns = (spans(side, tile, overlap, stride) for side in image.shape)
    total, weight = np.zeros_like(image), np.zeros_like(image)
    for (top, bottom), (left, right) in itertools.product(rows, columns):
        mask = window(bottom - top, right - left)
        total[top:bottom, left:right] += mask * image[top:bottom, left:right]
        weight[top:bottom, left:right] += mask
    return total / weight


@pytest.mark.parametrize(("tile", "overlap", "stride"), SETTINGS)
def test_blended_tiles_of_an_identity_are_the_input_bit_for_bit(tile, overlap, stride):
    rng = np.random.default_rng(7)
    for height, width in ((stride, stride), (7 * stride, 20 * stride), (tile // stride * stride, 33 * stride)):
        image = rng.integers(0, 256, (height, width), dtype=np.uint8)
        blended = blend(image.astype(np.float32) / 255 * 2 - 1, tile, overlap, stride)
        assert np.array_equal(np.rint((blended + 1) / 2 * 255).astype(np.uint8), image)


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
    rows, columns = np.mgrid[0:160, 0:200]
    waves = 128 + 90 * np.sin(rows / 5) * np.cos(columns / 7)  # alike in every tile: NAFNet averages over all it sees
    frame = np.clip(np.random.default_rng(0).normal(waves[:, :, None], 8, (160, 200, 3)), 0, 255).astype(np.uint8)

    full = engine(network, tiled=False).render(frame)
    tiled = engine(network, tiled=True, tile_size=128, overlap=64).render(frame)

    assert np.ptp(full) > 10
    assert difference(full, tiled) <= tolerance


def apart_from_edges(length, distance):
    """Return which pixels are further than ``distance`` from every edge between tiles of 96 pixels."""
    edges = {edge for span in spans(length, 96, 32) for edge in span} - {0, length}
    return np.array([all(not edge - distance <= place < edge + distance for edge in edges) for place in range(length)])


def test_tiles_are_rendered_as_the_whole_frame_where_the_network_sees_no_edge():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 3, 3, padding=1))
    frame = pixels(192, 256).astype(np.float32) / 255

    whole = engine(network, tiled=False).render(frame)
    tiled = engine(network, tiled=True, tile_size=96, overlap=32, batch=3).render(frame)

    compared = np.outer(apart_from_edges(192, 2), apart_from_edges(256, 2))  # the network sees 2 pixels far
    assert 0.5 < compared.mean() < 1
    np.testing.assert_allclose(tiled[compared], whole[compared], atol=1e-5)
    assert np.abs(tiled - whole).max() > 1e-5


def test_a_network_that_works_in_place_changes_nothing_but_its_own_tile():
    frame = pixels(200, 90)

    tiled = engine(Do(torch.neg_), tiled=True, tile_size=64, overlap=32).render(frame)

    np.testing.assert_array_equal(tiled, 255 - frame)


def test_the_size_of_tiles_is_the_one_that_is_used():
    recorder = Recorder()
    renderer = probed(recorder, multiple=64, tiles={"tiled": True, "tile_size": 32, "overlap": 0})

    renderer.render(pixels(200, 200))

    assert {tuple(each.shape[2:]) for each in recorder.given[1:]} == {(64, 64)}
    assert renderer.tile_size == 64


def test_tiles_are_no_smaller_than_the_multiple_that_was_found():
    frame = pixels(300, 520)

    renderer = probed(coarse(256), tiles={"tiled": True, "tile_size": 128, "overlap": 32})

    assert renderer.tile_size == 256
    np.testing.assert_array_equal(renderer.render(frame), frame)


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


def test_tiles_and_batches_have_their_constants():
    network = Do(lambda x: x[:, :3] + (x[:, 3:] - 0.25).nan_to_num(9))

    renderer = probed(
        network, channels=4, extra_channels=(0.25,), tiles={"tiled": True, "tile_size": 64, "overlap": 32, "batch": 3}
    )
    frame = pixels(150, 200)

    np.testing.assert_array_equal(renderer.render(frame), frame)
    assert renderer.batch == 3
