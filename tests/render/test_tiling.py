"""Tiles: where they lie, that they cover, and that blending them changes nothing by itself."""

import itertools

import numpy as np
import pytest
from dailies.render.tiling import spans, weights, window

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
