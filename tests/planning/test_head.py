"""A head node, which plans and submits: with Snakemake and MLflow's client, without torch, codecs or a GPU."""

import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY
from helpers.images import write_frame
from helpers.stores import BEST, server_shelf
from helpers.studio import environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = REPOSITORY / "envs" / "requirements-head.txt"

HEAVY = {"torch", "numpy", "OpenImageIO", "av", "PIL", "filelock", "flask"}
"""Modules that a head node does without."""

WITHOUT = """
import pkgutil, sys
from importlib.machinery import PathFinder


class OfHead(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {missing} else super().find_spec(name, path, target)


def modules(*arguments, all_modules=pkgutil.iter_modules):  # by which Snakemake finds its plugins
    return (each for each in all_modules(*arguments) if each.name not in {missing})


sys.meta_path[sys.meta_path.index(PathFinder)] = OfHead
pkgutil.iter_modules = modules
"""
"""Makes modules missing in every Python that finds this as its ``sitecustomize``."""


def installed_with(lines: Iterable[str]) -> set[str]:
    """Return the distributions that pip installs for requirements: what they require, and what that requires."""
    due = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    found: set[str] = set()
    while due:
        name = canonicalize_name(due.pop().name)
        if name not in found:
            found.add(name)
            required = map(Requirement, requires(name) or [])
            due += [each for each in required if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def missing() -> set[str]:
    """The modules of this environment that one made of ``requirements-head.txt`` would lack."""
    there = installed_with(REQUIREMENTS.read_text().splitlines())
    owners = packages_distributions()
    return {module for module, names in owners.items() if there.isdisjoint(map(canonicalize_name, names))}


@pytest.fixture
def head(tmp_path: Path, missing: set[str]) -> dict[str, str]:
    """The environment of a head node's programs."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT.format(missing=missing))
    return environment() | {"PYTHONPATH": str(tmp_path)}


@pytest.fixture
def studio(tmp_path: Path) -> Path:
    """A folder with frames and a configuration; its models are on a server."""
    root = tmp_path / "studio"
    (root / "shot").mkdir(parents=True)
    write_frame(root / "shot" / "frame_000000.png", 0)
    shelf = server_shelf(root / "store")
    shelf.run("first", BEST)
    config = {
        "mlflow_uri": shelf.uri,
        "experiment_name": shelf.client.get_experiment(shelf.experiment).name,
        "input_dir": "shot",
        "output_dir": "out",
        "device": "cuda",
    }
    (root / "config").mkdir()
    (root / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    return root


def snakemake(head: dict[str, str], studio: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "-s", REPOSITORY / "Snakefile", "--cores", "1", *arguments]
    done = subprocess.run(command, cwd=studio, env=head, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_head_node_has_none_of_the_rendering_libraries(missing: set[str]):
    assert missing >= HEAVY


def test_a_head_node_plans_and_lists(head: dict[str, str], studio: Path):
    planned = snakemake(head, studio, "-n")
    assert "checkpoint sequence" in planned
    assert "checkpoint discover" in planned
    listed = snakemake(head, studio, "list_models", "--config", "device=auto")
    assert "first" in listed
    assert BEST in listed
