"""Quality, equal to the definitions: scikit-image and pytorch_msssim are the oracles."""

import numpy as np
import pytest
import pytorch_msssim
import torch
from dailies.measure import quality
from helpers.pictures import KINDS, distorted, picture, wang
from skimage.metrics import peak_signal_noise_ratio


def deep(image: np.ndarray, dtype: str) -> np.ndarray:
    """The code values of a frame."""
    return np.rint(image * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("size", [(11, 11), (64, 97), (201, 230)])
@pytest.mark.parametrize("kind", KINDS)
def test_ssim_is_scikit_images_with_wangs_arguments(kind, size):
    reference = picture(size)
    image = distorted(reference, kind)

    assert quality.ssim(image, reference) == pytest.approx(wang(image, reference, 1.0), abs=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_over_their_largest_measure_as_the_code_values_do(dtype):
    from dailies.frames import image

    codes, others = (deep(each, dtype) for each in (distorted(picture((40, 50)), "noise"), picture((40, 50))))
    image, reference = (image.convert_depth(each, "float32") for each in (codes, others))
    largest = np.iinfo(dtype).max

    assert quality.ssim(image, reference) == pytest.approx(wang(codes, others, largest), abs=1e-6)
    assert quality.psnr(image, reference) == pytest.approx(
        peak_signal_noise_ratio(others, codes, data_range=largest), abs=1e-5
    )


@pytest.mark.parametrize("size", [(161, 180), (200, 163), (353, 322)])
@pytest.mark.parametrize("kind", KINDS)
def test_ms_ssim_is_that_of_pytorch_msssim(kind, size):
    reference = picture(size)
    image = distorted(reference, kind)
    tensors = (torch.from_numpy(each.astype(np.float64)).permute(2, 0, 1)[None] for each in (image, reference))

    assert quality.ms_ssim(image, reference) == pytest.approx(
        pytorch_msssim.ms_ssim(*tensors, data_range=1.0).item(),
        abs=5e-6,  # its window is of float32
    )


def test_opposite_frames_have_no_similarity_left_at_any_scale():
    image = picture((170, 170))

    assert quality.ms_ssim(image, 1 - image) == pytest.approx(0, abs=1e-3)


def test_frames_too_small_for_the_window_have_none():
    assert quality.ssim(picture((10, 40)), picture((10, 40), seed=1)) is None
    assert quality.ms_ssim(picture((10, 40)), picture((10, 40), seed=1)) is None
    assert quality.ms_ssim(picture((160, 200)), picture((160, 200))) is None
    assert quality.structure(picture((160, 200)), picture((160, 200)), scales=5)["ssim"] == pytest.approx(1)


def test_psnr_of_one_code_value_and_of_none():
    image = np.full((4, 5, 3), 100 / 255, np.float32)

    assert quality.psnr(image, image + np.float32(1 / 255)) == pytest.approx(48.1308, abs=1e-3)
    assert quality.psnr(image, image) == quality.BEST_PSNR == 100


def test_only_what_is_asked_for_is_measured():
    image = picture((30, 30))

    assert list(quality.compared(image, image, ["ssim", "psnr"])) == ["ssim", "psnr"]
    assert quality.compared(image, image, ["psnr"]) == {"psnr": 100}


def test_blur_loses_detail_and_noise_adds_some():
    image = picture((60, 60))

    assert quality.detail(image, image) == 1
    assert quality.detail(distorted(image, "blur"), image) < 0.5
    assert quality.detail(distorted(image, "noise", 0.1), image) > 1.2


def test_a_source_of_one_colour_has_no_detail_to_compare_with():
    image, least = picture((60, 60)), np.full((2160, 3840, 3), 0.4, np.float32)
    least[1000, 1000] += np.float32(1 / 255)

    assert [quality.detail(image, np.full_like(image, code / 255)) for code in range(256)] == [None] * 256
    assert quality.detail(least, least) == 1


def test_detail_is_a_share_of_contrast():
    image = picture((60, 60))

    assert quality.detail(0.25 + image / 2, image) == pytest.approx(0.5, abs=1e-4)


def test_clipping_counts_pixels_beyond_those_of_the_source():
    source = np.full((4, 5, 3), 0.5, np.float32)
    source[0, 0] = 1
    image = source.copy()
    image[1, :, 0], image[2, 1, 2] = 0, 1.5

    assert quality.clipping(image, source) == pytest.approx(100 * 6 / 20)
    assert quality.clipping(source, image) == pytest.approx(-100 * 6 / 20)
    assert quality.clipping(np.full_like(source, 0.5), source) == pytest.approx(-5)


def test_larger_frames_are_brought_to_a_size_by_means():
    large = picture((8, 12))

    small = quality.fitted(large, (4, 6, 3))
    np.testing.assert_allclose(small, large.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3)), atol=1e-6)
    assert quality.fitted(large, large.shape) is large
    assert quality.fitted(large, (4, 5, 3)) is None
    assert quality.fitted(large, (16, 24, 3)) is None
