"""A head node, which plans and submits: with Snakemake and MLflow's client, without torch, codecs or a GPU."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from helpers import REPOSITORY
from helpers.images import write_frame
from helpers.stores import BEST, server_shelf
from helpers.studio import environment

pytestmark = pytest.mark.scenarios

REQUIREMENTS, LOCK = REPOSITORY / "envs" / "requirements-head.txt", REPOSITORY / "envs" / "lock.txt"

HEAVY = ("torch", "numpy", "OpenImageIO", "av", "PIL", "filelock", "flask")
"""What a head node does without."""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with nothing but what ``requirements-head.txt`` names."""
    folder = tmp_path_factory.mktemp("head")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    done = subprocess.run(
        [*install, "--constraint", LOCK, "--requirement", REQUIREMENTS], capture_output=True, text=True, check=False
    )
    if "No matching distribution" in done.stderr or "Failed to establish" in done.stderr:
        pytest.skip("no Python package index can be reached")
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames and a configuration; its models are on a server."""
    root = tmp_path_factory.mktemp("studio")
    (root / "shot").mkdir()
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


def snakemake(python: Path, studio: Path, *arguments: str) -> str:
    done = subprocess.run(
        [python, "-m", "snakemake", "-s", REPOSITORY / "Snakefile", "--cores", "1", *arguments],
        cwd=studio,
        env={name: value for name, value in environment().items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_head_node_has_none_of_the_rendering_libraries(head):
    program = f"import importlib.util; print([name for name in {HEAVY} if importlib.util.find_spec(name)])"
    found = subprocess.run([head, "-c", program], capture_output=True, text=True, check=True, cwd=head.parent)
    assert found.stdout.strip() == "[]"
    assert sys.executable != str(head)


def test_a_head_node_plans_lists_and_lints(head, studio):
    assert "Congratulations" in snakemake(head, studio, "--lint")
    planned = snakemake(head, studio, "-n")
    assert "checkpoint sequence" in planned
    assert "checkpoint discover" in planned
    listed = snakemake(head, studio, "list_models", "--config", "device=auto")
    assert "first" in listed
    assert BEST in listed
