"""LPIPS, checked against its authors' package with random weights: no test downloads the published ones."""

import os
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from dailies.core.errors import ConfigError
from dailies.measure.lpips import Lpips
from dailies.measure.lpips_weights import ADVICE
from helpers.networks import write_alexnet
from helpers.pictures import KINDS, distorted, picture
from helpers.raising import refused as expect_refusal

SLICES = {0: "slice1.0", 3: "slice2.3", 6: "slice3.6", 8: "slice4.8", 10: "slice5.10"}
"""The names of AlexNet's layers in the package."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    return write_alexnet(tmp_path_factory.mktemp("backbone") / "alexnet.pth")


@pytest.fixture(scope="module")
def ours(backbone) -> Lpips:
    return Lpips(backbone)


@pytest.fixture(scope="module")
def theirs(backbone):
    """The package's LPIPS with the same backbone, as a function of two frames."""
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load(backbone)
    network.net.load_state_dict(
        {
            f"{place}.{kind}": state[f"features.{number}.{kind}"]
            for number, place in SLICES.items()
            for kind in ("weight", "bias")
        }
    )

    def distance(image: np.ndarray, reference: np.ndarray) -> float:
        tensors = (torch.from_numpy(each).permute(2, 0, 1)[None] for each in (image, reference))
        with torch.no_grad():
            return network(*tensors, normalize=True).item()

    return distance


@pytest.mark.parametrize("size", [(31, 31), (31, 150), (64, 97), (201, 230)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_equals_that_of_its_authors(ours, theirs, kind, size):
    reference = picture(size)
    image = distorted(reference, kind)

    assert ours(image, reference) == pytest.approx(theirs(image, reference), rel=1e-5)
    assert ours(image, reference) > 1e-3


def test_identical_frames_have_0_and_the_distance_grows_with_noise(ours):
    reference = picture((64, 97))
    small, large = (distorted(reference, "noise", amount) for amount in (0.02, 0.1))

    assert ours(reference, reference) == 0
    assert 0 < ours(small, reference) < ours(large, reference)


def test_frames_smaller_than_alexnet_accepts_have_none(ours, theirs):
    small = picture((30, 150))

    assert ours(small, small) is None
    with pytest.raises(RuntimeError, match="too small"):
        theirs(small, small)


def test_weights_may_have_a_prefix_and_half_precision(backbone, ours, tmp_path):
    state = {f"module.{name}": values.half() for name, values in torch.load(backbone).items()}
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    image, reference = distorted(picture((64, 97)), "noise"), picture((64, 97))

    assert Lpips(tmp_path / "other.pth")(image, reference) == pytest.approx(ours(image, reference), rel=1e-2)


class Attack:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def refused(path: Path, *names: str):
    return expect_refusal(ConfigError, "measure.backbone_unusable", f"lpips_backbone {path}", ADVICE, *names)


def test_a_file_without_the_weights_is_refused_with_the_reason(backbone, tmp_path):
    path = tmp_path / "file.pth"
    path.write_bytes(backbone.read_bytes()[:-1000])
    with refused(path, "cut short"):
        Lpips(path)

    state = torch.load(backbone)
    torch.save({"net.weight": torch.zeros(3)}, path)
    with refused(path, "10 missing (features.0.weight, ", "and 5 more", "1 unexpected (net.weight)"):
        Lpips(path)
    torch.save(state | {"features.3.weight": torch.zeros(192, 64, 3, 3)}, path)
    with refused(path, "(features.3.weight 192×64×3×3 instead of 192×64×5×5)"):
        Lpips(path)


def test_no_code_in_the_file_is_run(tmp_path):
    torch.save(Attack(tmp_path / "made"), tmp_path / "file.pth")

    with refused(tmp_path / "file.pth", "posix.mkdir"):
        Lpips(tmp_path / "file.pth")
    assert not (tmp_path / "made").exists()
