"""Fixtures: stores, sequences and studios, as their helpers make them."""

import math
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite("helpers")

from helpers.studio import LEVELS, Studio  # noqa: E402
from helpers.weights import grey_checkpoint  # noqa: E402

if TYPE_CHECKING:
    from helpers.scenes import Scene
    from helpers.shots import Shot
    from helpers.stores import Shelf

# a store's file is put back from a copy between tests: MLflow must not keep the old one open
os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"
# threads that wait by spinning took a hundred times as long on a busy machine
os.environ.setdefault("OMP_NUM_THREADS", "1")

# the machine may be busy: time says nothing about a test
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs that tests start hear it, also where a shell started all in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start what mostly waits first, then whole workflows: short files at the end keep every worker busy."""
    items.sort(key=lambda item: ("slurm" not in item.keywords, "workflow" not in item.path.parts))


@pytest.fixture(scope="session")
def blank_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty sqlite store, which takes MLflow a second to make and no time to copy."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("blank") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def shelf(tmp_path: Path) -> "Shelf":
    """An empty sqlite store, as trainers write to it."""
    from helpers.stores import sqlite_shelf

    return sqlite_shelf(tmp_path / "store")


@pytest.fixture
def scene(shelf: "Shelf", tmp_path: Path) -> "Scene":
    """That store, and what discovery makes of it."""
    from helpers.scenes import scene_of

    return scene_of(shelf, tmp_path)


@pytest.fixture
def shot(tmp_path: Path) -> "Shot":
    """A sequence with a reference, to measure models by."""
    from helpers.shots import Shot

    return Shot(tmp_path)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the frames that are measured, once for each group of metrics."""
    from helpers.shots import counting

    return counting(monkeypatch)


@pytest.fixture
def studio(tmp_path: Path, blank_store: Path) -> Studio:
    """An empty studio with a local sqlite store, which makes no page."""
    studio = Studio(tmp_path, blank=blank_store)
    studio.config["compare"] = False
    return studio


@pytest.fixture(scope="session")
def rendered_once(tmp_path_factory: pytest.TempPathFactory, blank_store: Path) -> tuple[Studio, Path]:
    """A studio with three models, rendered, and a copy of its folder from then."""
    root = tmp_path_factory.mktemp("rendered")
    studio = Studio(root / "studio", blank=blank_store)
    studio.add_frames(4, size=(40, 36))
    for number, (name, level) in enumerate(LEVELS.items(), start=1):
        studio.add_run(
            name,
            grey_checkpoint(level),
            params={"model.architecture": "UNet", "training.epochs": "20", "kind": name},
            metrics={"train/loss": 0.25, "val/loss": number / 8, "val/psnr": math.nan, "lr/max": math.inf},
        )
    studio.add_run("empty", None)
    studio.snakemake()
    shutil.copytree(studio.root, root / "copy")
    return studio, root / "copy"


@pytest.fixture
def rendered(rendered_once: tuple[Studio, Path]) -> Iterator[Studio]:
    """A studio with the models dark, middle and light, each rendered over four frames, and a run without a model.

    Every test finds it as if it were the first: files, times and store are put back, at the same paths. Further
    invocations leave the page as it is; tests of the page use ``compared``.
    """
    studio, copy = rendered_once
    shutil.rmtree(studio.root)
    shutil.copytree(copy, studio.root)
    runs, config = dict(studio.runs), dict(studio.config)
    studio.config["compare"] = False
    yield studio
    studio.runs, studio.config = runs, config


@pytest.fixture
def compared(rendered: Studio) -> Studio:
    """The studio ``rendered``, of which further invocations make the page, too."""
    rendered.config["compare"] = True
    return rendered
