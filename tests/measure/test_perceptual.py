"""FLIP, equal to the implementation of its makers."""

import numpy as np
import pytest
from dailies.measure.quality import flip
from helpers.pictures import distorted, picture


@pytest.mark.parametrize("colour", [None, (0, 0, 0), (1, 1, 1), (0.1, 0.2, 0.7)])
def test_equal_frames_are_the_best_there_is(colour):
    image = picture((40, 50)) if colour is None else np.full((40, 50, 3), colour, np.float32)

    assert flip(image, image) == 0


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
