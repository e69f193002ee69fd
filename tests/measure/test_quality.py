"""Metrics of single frames, checked against scikit-image, pytorch_msssim and flip-evaluator."""

import numpy as np
import pytest
import pytorch_msssim
import torch
from dailies.measure import quality
from dailies.measure.quality import Still
from helpers.pictures import KINDS, distorted, picture, wang
from skimage.metrics import peak_signal_noise_ratio


def deep(image: np.ndarray, dtype: str) -> np.ndarray:
    """Return the code values of a frame."""
    return np.rint(image * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("size", [(11, 11), (64, 97), (201, 230)])
@pytest.mark.parametrize("kind", KINDS)
def test_ssim_equals_that_of_scikit_image(kind, size):
    reference = picture(size)
    image = distorted(reference, kind)

    assert quality.ssim(image, reference) == pytest.approx(wang(image, reference, 1.0), abs=1e-6)


@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize("highlight", [2, 100, 60000])
def test_highlights_far_above_1_do_not_change_the_ssim_of_the_rest(highlight, share):
    reference = 0.3 * picture((200, 400))
    reference[:, : int(400 * share)] = highlight
    image = reference + 0.1 * (picture((200, 400), seed=1) - 0.5)

    precise = wang(image.astype(np.float64), reference.astype(np.float64), 1.0)
    assert quality.ssim(image, reference) == pytest.approx(precise, abs=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_normalised_frames_have_the_values_of_their_code_values(dtype):
    from dailies.frames.image import convert_depth

    codes, others = (deep(each, dtype) for each in (distorted(picture((40, 50)), "noise"), picture((40, 50))))
    image, reference = (convert_depth(each, "float32") for each in (codes, others))
    largest = np.iinfo(dtype).max

    assert quality.ssim(image, reference) == pytest.approx(wang(codes, others, largest), abs=1e-6)
    assert quality.psnr(image, reference) == pytest.approx(
        peak_signal_noise_ratio(others, codes, data_range=largest), abs=1e-5
    )


@pytest.mark.parametrize("size", [(161, 180), (200, 163), (353, 322)])
@pytest.mark.parametrize("kind", KINDS)
def test_ms_ssim_equals_that_of_pytorch_msssim(kind, size):
    reference = picture(size)
    image = distorted(reference, kind)
    tensors = (torch.from_numpy(each.astype(np.float64)).permute(2, 0, 1)[None] for each in (image, reference))

    assert quality.ms_ssim(image, reference) == pytest.approx(
        pytorch_msssim.ms_ssim(*tensors, data_range=1.0).item(),
        abs=5e-6,  # its window is of float32
    )


def test_a_negative_has_no_multi_scale_similarity():
    image = picture((170, 170))

    assert quality.ms_ssim(image, 1 - image) == pytest.approx(0, abs=1e-3)


def test_frames_too_small_for_the_window_have_no_similarity():
    assert quality.ssim(picture((10, 40)), picture((10, 40), seed=1)) is None
    assert quality.ms_ssim(picture((10, 40)), picture((10, 40), seed=1)) is None
    assert quality.ms_ssim(picture((160, 200)), picture((160, 200))) is None
    assert quality.similarities(picture((160, 200)), picture((160, 200)), multi_scale=True)["ssim"] == pytest.approx(1)


def test_psnr_of_an_error_of_one_code_value_and_of_identical_frames():
    image = np.full((4, 5, 3), 100 / 255, np.float32)

    assert quality.psnr(image, image + np.float32(1 / 255)) == pytest.approx(48.1308, abs=1e-3)
    assert quality.psnr(image, image) == quality.BEST_PSNR == 100


def test_several_metrics_have_the_values_that_each_has_alone():
    image, reference = distorted(picture((170, 170)), "noise"), picture((170, 170))
    names = ["ssim", "psnr", "ms_ssim"]

    values = quality.compute(image, reference, names)

    assert list(values) == names
    assert all(values[name] == getattr(quality, name)(image, reference) for name in names)


def test_blur_removes_detail_and_noise_adds_some():
    image = picture((60, 60))

    assert quality.detail(image, Still.of(image)) == 1
    assert quality.detail(distorted(image, "blur"), Still.of(image)) < 0.5
    assert quality.detail(distorted(image, "noise", 0.1), Still.of(image)) > 1.2


def test_a_source_of_one_colour_has_no_detail():
    image, least = picture((60, 60)), np.full((2160, 3840, 3), 0.4, np.float32)
    least[1000, 1000] += np.float32(1 / 255)

    assert [quality.detail(image, Still.of(np.full_like(image, code / 255))) for code in range(256)] == [None] * 256
    assert quality.detail(least, Still.of(least)) == 1


def test_detail_scales_with_contrast():
    image = picture((60, 60))

    assert quality.detail(0.25 + image / 2, Still.of(image)) == pytest.approx(0.5, abs=1e-4)


def test_clipping_counts_pixels_beyond_those_of_the_source():
    source = np.full((4, 5, 3), 0.5, np.float32)
    source[0, 0] = 1
    image = source.copy()
    image[1, :, 0], image[2, 1, 2] = 0, 1.5

    assert quality.clipping(image, Still.of(source)) == pytest.approx(100 * 6 / 20)
    assert quality.clipping(source, Still.of(image)) == pytest.approx(-100 * 6 / 20)
    assert quality.clipping(np.full_like(source, 0.5), Still.of(source)) == pytest.approx(-5)


def test_a_whole_multiple_of_a_size_is_reduced_by_averaging():
    large = picture((8, 12))

    small = quality.reduced(large, (4, 6, 3))
    np.testing.assert_allclose(small, large.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3)), atol=1e-6)
    assert quality.reduced(large, large.shape) is large
    assert quality.reduced(large, (4, 5, 3)) is None
    assert quality.reduced(large, (16, 24, 3)) is None


@pytest.mark.parametrize("colour", [None, (0, 0, 0), (1, 1, 1), (0.1, 0.2, 0.7)])
def test_identical_frames_have_no_flip_error(colour):
    image = picture((40, 50)) if colour is None else np.full((40, 50, 3), colour, np.float32)

    assert quality.flip(image, image) == 0


def test_flip_equals_that_of_its_authors_and_grows_with_the_error():
    from flip_evaluator import evaluate

    reference = picture((40, 50))
    small, large = (distorted(reference, "noise", amount) for amount in (0.02, 0.1))

    assert 0 < quality.flip(small, reference) < quality.flip(large, reference) < 1
    errors, _, _ = evaluate(reference, large, "LDR", applyMagma=False)
    assert quality.flip(large, reference) == pytest.approx(errors.mean(), rel=1e-5)


def test_flip_clamps_values_to_the_range_of_a_display():
    reference = picture((40, 50))
    beyond = reference * 3 - 1

    assert quality.flip(beyond, reference) == quality.flip(np.clip(beyond, 0, 1), reference)
