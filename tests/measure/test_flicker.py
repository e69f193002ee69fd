"""Flicker: a known shift is found as motion, and what moves along with it does not flicker."""

import cv2
import numpy as np
import pytest
from dailies.measure import flicker
from helpers.pictures import picture

SHIFT = (3, -2)
"""Pixels, to the right and down, by which the scene moves from one frame to the next."""


def moving(size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """Return two frames of a camera that pans over a still: the later one first."""
    scene = cv2.GaussianBlur(picture((size[0] + 20, size[1] + 20)), (0, 0), 1.5)
    dx, dy = SHIFT
    before = scene[10 : 10 + size[0], 10 : 10 + size[1]]
    frame = scene[10 - dy : 10 - dy + size[0], 10 - dx : 10 - dx + size[1]]
    return np.ascontiguousarray(frame), np.ascontiguousarray(before)


def noisy(frame: np.ndarray, amount: float, seed: int) -> np.ndarray:
    return frame + np.float32(amount) * np.random.default_rng(seed).standard_normal(frame.shape, dtype=np.float32)


def test_a_pan_is_found():
    found = flicker.flow(*moving())

    assert (found.shape, found.dtype) == ((24, 32, 2), np.float16)
    np.testing.assert_allclose(np.median(found, axis=(0, 1)), [-SHIFT[0], -SHIFT[1]], atol=0.1)


def test_pixels_that_move_with_the_scene_do_not_flicker():
    frame, before = moving()
    motion = flicker.Motion.along(flicker.flow(frame, before), frame, before)

    assert motion.source_error < 0.6  # code values; a still camera would see 8
    assert np.abs(frame - before).mean() * 255 > 5
    assert flicker.flicker(frame, before, motion) == 0
    half = np.float32(0.5)
    assert flicker.flicker(frame * half, before * half, motion) == pytest.approx(-motion.source_error / 2, abs=1e-3)


def test_flicker_is_the_change_beyond_the_source():
    frame, before = moving()
    motion = flicker.Motion.along(flicker.flow(frame, before), frame, before)
    brighter = frame + np.float32(10 / 255)

    assert flicker.flicker(brighter, before, motion) == pytest.approx(10, abs=1)
    assert flicker.flicker(brighter, before + np.float32(10 / 255), motion) == pytest.approx(0, abs=0.01)


def test_grain_of_the_source_neither_hides_the_motion_nor_counts_as_occlusion():
    clean = moving()
    grainy = tuple(noisy(each, 0.04, seed) for seed, each in enumerate(clean))
    motion = flicker.Motion.along(flicker.flow(*grainy), *grainy)

    assert motion.source_error > 8  # the grain, which does not move along
    assert flicker.flicker(*clean, motion) == pytest.approx(-motion.source_error, abs=1.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flicker, "FALLOFF", 0.0)  # every pixel that stays inside has the same weight
        unweighted = flicker.Motion.along(flicker.flow(*grainy), *grainy)
    assert motion.source_error == pytest.approx(unweighted.source_error, rel=0.03)


def test_occluded_pixels_do_not_count():
    frame, before = moving()
    frame = frame.copy()
    frame[20:60, 20:60] = 1 - frame[20:60, 20:60]
    motion = flicker.Motion.along(flicker.flow(*moving()), frame, before)
    image = frame.copy()
    image[30:50, 30:50] = np.random.default_rng(0).random((20, 20, 3))

    assert abs(flicker.flicker(image, before, motion)) < 0.3


def test_small_frames_and_frames_of_two_sizes_have_no_flow():
    assert flicker.flow(picture((31, 100)), picture((31, 100))) is None
    assert flicker.flow(picture((40, 40)), picture((40, 44))) is None
    assert flicker.flow(picture((32, 100)), picture((32, 100))).shape == (8, 25, 2)


def test_a_cut_after_which_no_pixel_is_left_has_no_error():
    frame, before = moving()
    away = np.full((24, 32, 2), 1000, np.float16)

    motion = flicker.Motion.along(away, frame, before)
    assert motion.source_error is None
    assert flicker.flicker(frame, before, motion) is None


@pytest.mark.parametrize("grain", [0.0, 0.02, 0.06])
def test_the_pixels_of_the_grid_have_the_change_of_all_pixels(monkeypatch, grain):
    def error() -> float:
        clean = moving((480, 640))
        frame, before = (noisy(each, grain, seed) for seed, each in enumerate(clean))
        return flicker.Motion.along(flicker.flow(frame, before), frame, before).source_error

    on_the_grid = error()
    monkeypatch.setattr(flicker, "GRID", 1)

    assert on_the_grid == pytest.approx(error(), rel=0.02)
