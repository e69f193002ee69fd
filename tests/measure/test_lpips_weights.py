"""The file of LPIPS's weights: where it is looked for, and which files are refused."""

import importlib.util
from pathlib import Path

import lpips
import pytest
import torch
from dailies.core import files
from dailies.core.errors import ConfigError
from dailies.measure import lpips as lpips_metric
from dailies.measure import lpips_weights
from dailies.measure.lpips import check_backbone
from helpers.networks import write_alexnet
from helpers.raising import refused


@pytest.mark.parametrize("variables", [{}, {"XDG_CACHE_HOME": "/cache"}, {"XDG_CACHE_HOME": "/c", "TORCH_HOME": "~/t"}])
def test_the_path_is_the_one_in_the_settings_else_that_of_torch_hub(monkeypatch, variables):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert lpips_weights.path_of(None) == Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert lpips_weights.path_of(Path("here.pth")) == Path("here.pth")


def test_the_linear_weights_are_in_the_package():
    assert lpips_weights.linear_weights() == Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"


@pytest.mark.parametrize("origin", [None, "elsewhere/lpips/__init__.py"])
def test_a_package_without_its_weights_is_refused(monkeypatch, origin):
    spec = importlib.util.spec_from_loader("lpips", None, origin=origin)
    monkeypatch.setattr(lpips_weights, "find_spec", lambda name: spec)

    with refused(ConfigError, "measure.lpips_incomplete", "weights/v0.1/alex.pth", "pip install"):
        lpips_weights.linear_weights()


def test_other_weights_than_the_published_ones_are_a_warning(tmp_path, monkeypatch):
    path = write_alexnet(tmp_path / "own.pth")

    warning = check_backbone(path)
    assert str(path) in warning
    assert lpips_weights.NAME in warning
    monkeypatch.setattr(lpips_metric, "PUBLISHED", files.sha256_of(path))
    assert check_backbone(path) is None


def test_a_file_without_the_weights_is_refused_if_torch_is_installed(tmp_path, monkeypatch):
    path = tmp_path / "own.pth"
    path.write_bytes(b"junk")

    with refused(ConfigError, "measure.backbone_unusable", f"lpips_backbone {path}", "'junk'", lpips_weights.ADVICE):
        check_backbone(path)
    monkeypatch.setattr(lpips_metric, "find_spec", lambda name: None)
    assert str(path) in check_backbone(path)


def test_a_file_that_cannot_be_read_is_refused():
    with refused(ConfigError, "measure.backbone_unreadable", "lpips_backbone /proc/self/mem", "Input/output error"):
        check_backbone(Path("/proc/self/mem"))


def test_the_stamp_changes_if_the_file_is_written_again(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(b"one")
    before = lpips_weights.stamp(path)

    assert lpips_weights.stamp(path) == before
    path.write_bytes(b"another")
    assert lpips_weights.stamp(path) != before
