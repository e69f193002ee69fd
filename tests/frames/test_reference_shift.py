"""Detection of a shifted reference, without false positives."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from dailies.frames.reference_shift import choose_samples, estimate_shift
from PIL import Image

SIZE = (60, 96)
COUNT = 9

Picture = Callable[[int], np.ndarray]


def texture(height: int, width: int, seed: int) -> np.ndarray:
    rough = np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 3)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


WIDE, STILL = texture(60, 300, 1), texture(*SIZE, 2)


def pan(number: int) -> np.ndarray:
    return WIDE[:, 60 + 2 * number : 60 + 2 * number + 96]


def slow_pan(number: int) -> np.ndarray:
    """Move by a third of a pixel per frame."""
    moved = cv2.warpAffine(WIDE, np.float32([[1, 0, -60 - number / 3], [0, 1, 0]]), SIZE[::-1])
    return moved[:, :96]


def ball(number: int) -> np.ndarray:
    """Move a small object in front of a still background."""
    return cv2.circle(STILL.copy(), (30 + 2 * number, 30), 6, (0.9, 0.1, 0.2), -1, cv2.LINE_AA)


def noise(number: int) -> np.ndarray:
    """Return frames without anything in common."""
    return np.random.default_rng(1000 + number).random((*SIZE, 3), dtype=np.float32)


def still(number: int) -> np.ndarray:
    return STILL


def on_twos(number: int) -> np.ndarray:
    return pan(number - number % 2)


def exposed(number: int) -> np.ndarray:
    return STILL * (0.9 + 0.1 * np.sin(number))


def grainy(picture: Picture, sigma: float, seed: int = 1, grain: float = 0) -> Picture:
    def made(number: int) -> np.ndarray:
        added = np.random.default_rng([seed, number + 100]).normal(size=(*SIZE, 3)).astype(np.float32)
        added = cv2.GaussianBlur(added, (0, 0), grain) if grain else added
        return picture(number) + sigma / added.std() * added

    return made


def graded(picture: Picture) -> Picture:
    return lambda number: 0.1 + 0.6 * np.clip(picture(number), 0, 1) ** 1.8


def halved(picture: Picture) -> Picture:
    return lambda number: cv2.resize(picture(number), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


@pytest.fixture
def found(tmp_path):
    """Return a function that estimates the shift if frame n of the source is frame n + ``by`` of the reference."""

    def shift(source: Picture, reference: Picture, by: int, count: int = COUNT) -> int:
        sources, references = {}, {}
        for number in range(count):
            for kind, image in (("source", source(number)), ("reference", reference(number - by))):
                path = tmp_path / f"{kind}_{number}.png"
                Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(path, compress_level=1)
                if kind == "source":
                    sources[number] = path, (image.shape[1], image.shape[0])
                else:
                    references[number] = path
        return estimate_shift(choose_samples(sources, references), transfer="clip", threads=1)

    return shift


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        (pan, pan),
        (slow_pan, slow_pan),
        (ball, ball),
        (noise, noise),
        (on_twos, on_twos),
        (grainy(pan, 0.2), pan),
        (grainy(slow_pan, 0.1), slow_pan),
        (grainy(ball, 0.1, grain=1.5), ball),
        (graded(grainy(pan, 0.1)), pan),
        (halved(grainy(pan, 0.1)), pan),
        (grainy(pan, 0.1), grainy(pan, 0.02, seed=2)),
    ],
    ids=["pan", "slow", "ball", "noise", "twos", "grainy", "grainy-slow", "grain", "graded", "halved", "both"],
)
def test_a_shift_is_detected_with_its_direction_if_anything_moves(found, source, reference):
    assert [found(source, reference, by) for by in (-1, 0, 1)] == [-1, 0, 1]


@pytest.mark.parametrize("by", [-2, 2, 5])
def test_a_shift_by_several_frames_is_found(found, by):
    assert found(grainy(slow_pan, 0.05), slow_pan, by, count=14) == by


def test_four_frames_are_enough(found):
    assert [found(grainy(pan, 0.1), pan, by, count=4) for by in (-1, 0, 1)] == [-1, 0, 1]


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        (still, still),
        (grainy(still, 0.1), still),
        (still, grainy(still, 0.02)),
        (grainy(still, 0.1, grain=3), grainy(still, 0.01, seed=2, grain=3)),
        (exposed, exposed),
        (noise, pan),
    ],
    ids=["still", "grainy", "grainy-reference", "grain", "exposed", "unlike"],
)
@pytest.mark.parametrize("count", [4, COUNT])
def test_no_shift_is_found_if_nothing_moves_or_nothing_matches(found, source, reference, count):
    assert {found(source, reference, by, count=count) for by in (-1, 0, 1)} == {0}


def test_incomparable_frames_yield_no_shift(found, tmp_path):
    assert found(pan, lambda number: pan(number)[:, :70], 1) == 0
    assert found(pan, pan, 1, count=2) == 0
    sources = dict.fromkeys(range(5), (tmp_path / "gone.png", (7, 5)))
    assert estimate_shift(choose_samples(sources, {number: Path("gone") for number in range(5)}), transfer="clip") == 0
    assert estimate_shift([], transfer="clip") == 0


def test_samples_are_spread_and_have_neighbours():
    sources = {number: (Path(str(number)), (7, 5)) for number in range(100)}
    references = {number: Path(f"r{number}") for number in (*range(50), 70, *range(80, 100))}

    chosen = choose_samples(sources, references)

    assert [int(sample.source.name) for sample in chosen] == [0, 1, 34, 35, 98, 99]
    assert chosen[0].references == {by: Path(f"r{by}") for by in range(13)}
    assert choose_samples(sources, {1: Path("r1"), 3: Path("r3")}) == []
