"""The file of LPIPS's weights is found, told from others, and refused in words."""

import importlib.util
from pathlib import Path

import lpips
import pytest
import torch
from dailies.core import files
from dailies.core.errors import ConfigError
from dailies.measure import backbone
from dailies.measure import lpips as lpips_module
from helpers.networks import ADVICE, write_alexnet
from helpers.raising import refused


@pytest.mark.parametrize("variables", [{}, {"XDG_CACHE_HOME": "/cache"}, {"XDG_CACHE_HOME": "/c", "TORCH_HOME": "~/t"}])
def test_it_is_where_it_is_named_else_where_torch_keeps_it(monkeypatch, variables):
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert backbone.place(None) == Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    assert backbone.place(Path("here.pth")) == Path("here.pth")


def test_the_linear_weights_are_the_packages_own():
    assert backbone.linear() == Path(lpips.__file__).parent / "weights" / "v0.1" / "alex.pth"


@pytest.mark.parametrize("origin", [None, "elsewhere/lpips/__init__.py"])
def test_a_package_without_its_weights_is_refused(monkeypatch, origin):
    spec = importlib.util.spec_from_loader("lpips", None, origin=origin)
    monkeypatch.setattr(backbone, "find_spec", lambda name: spec)

    with refused(ConfigError, "measure.lpips_incomplete", "weights/v0.1/alex.pth", "pip install"):
        backbone.linear()


def test_another_file_than_the_published_one_is_said(tmp_path, monkeypatch):
    path = write_alexnet(tmp_path / "own.pth")

    assert lpips_module.checked(path) == (
        f"lpips_backbone {path} is not alexnet-owt-7be5be79.pth as it was published: "
        "values of LPIPS compare only with others that were measured with the same file"
    )
    monkeypatch.setattr(backbone, "PUBLISHED", files.sha256_of(path))
    assert lpips_module.checked(path) is None


def test_a_file_that_holds_no_backbone_is_refused_where_there_is_torch(tmp_path, monkeypatch):
    path = tmp_path / "own.pth"
    path.write_bytes(b"junk")

    with refused(ConfigError, "measure.backbone_unusable", f"lpips_backbone {path}", "'junk'", ADVICE):
        lpips_module.checked(path)
    monkeypatch.setattr(backbone, "find_spec", lambda name: None if name == "torch" else importlib.util.find_spec(name))
    assert "is not alexnet-owt-7be5be79.pth" in lpips_module.checked(path)


def test_a_file_that_cannot_be_read_is_refused():
    with refused(ConfigError, "measure.backbone_unreadable", "lpips_backbone /proc/self/mem", "Input/output error"):
        lpips_module.checked(Path("/proc/self/mem"))


def test_its_stamp_changes_when_it_is_written_again(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(b"one")
    before = backbone.stamp(path)

    assert backbone.stamp(path) == before
    path.write_bytes(b"another")
    assert backbone.stamp(path) != before
