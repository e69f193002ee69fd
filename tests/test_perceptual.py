"""GMSD, HaarPSI and FLIP, equal to the implementations that others use."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from dailies.perceptual import flip, gmsd, haarpsi
from test_quality import distorted, picture


@pytest.fixture(scope="module")
def piq() -> ModuleType:
    """The package piq, which looks for networks of torchvision as soon as it is imported; no test here uses one."""
    blocks = SimpleNamespace(**{f"Inception{letter}": torch.nn.Module for letter in "ABCDE"})
    models, utils = ModuleType("torchvision.models"), ModuleType("torchvision.models.utils")
    models.inception, models.vgg16, models.vgg19, utils.load_state_dict_from_url = blocks, None, None, None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, models.__name__, models)
        patch.setitem(sys.modules, utils.__name__, utils)
        patch.setattr(torchvision, "models", models, raising=False)
        import piq

        return piq


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(90, 120), (61, 47), (33, 50)])
@pytest.mark.parametrize("kind", ["noise", "blur", "dark", "tint"])
@pytest.mark.parametrize("ours", [gmsd, haarpsi])
def test_they_are_those_of_piq(piq, ours, kind, size):
    reference = picture(size)
    image = distorted(reference, kind)
    theirs = getattr(piq, ours.__name__)(tensor(image), tensor(reference), data_range=1.0).item()

    assert ours(image, reference) == pytest.approx(theirs, abs=1e-4)


def test_equal_frames_are_the_best_there_is():
    image = picture((40, 50))

    assert gmsd(image, image) == 0
    assert haarpsi(image, image) == pytest.approx(1)
    assert flip(image, image) == 0


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (0.1, 0.2, 0.7)])
def test_equal_frames_of_one_colour_are_the_best_there_is(colour):
    image = np.full((40, 50, 3), colour, np.float32)

    assert gmsd(image, image) == 0
    assert haarpsi(image, image) == pytest.approx(1)
    assert flip(image, image) == 0


def test_small_frames_have_no_haarpsi():
    assert haarpsi(picture((15, 40)), picture((15, 40))) is None


def test_flip_is_that_of_its_makers_and_grows_with_the_error():
    from flip_evaluator import evaluate

    reference = picture((40, 50))
    small, large = (distorted(reference, "noise", amount) for amount in (0.02, 0.1))

    assert 0 < flip(small, reference) < flip(large, reference) < 1
    errors, _, _ = evaluate(reference, large, "LDR", applyMagma=False)
    assert flip(large, reference) == pytest.approx(errors.mean(), rel=1e-5)


def test_flip_takes_values_beyond_the_display_for_its_ends():
    reference = picture((40, 50))

    assert flip(reference * 3 - 1, reference) == flip(np.clip(reference * 3 - 1, 0, 1), reference)
