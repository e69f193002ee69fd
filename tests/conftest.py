"""A real studio for workflow tests: an MLflow store, tiny networks whose answer is known by hand, frames, snakemake."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from dailies.layout import Layout
from hypothesis import HealthCheck, settings
from PIL import Image

if TYPE_CHECKING:
    from scenes import Scene
    from shots import Shot
    from stores import Shelf

REPOSITORY = Path(__file__).parents[1]

# a store's file is put back from a copy between tests: MLflow must not keep the old one open
os.environ["MLFLOW_SQLALCHEMYSTORE_POOLCLASS"] = "NullPool"

# the machine may be busy: time says nothing about a test
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("steady")

STAND_INS = REPOSITORY / "tests" / "stand_ins"
"""Modules that stand in for packages that cannot be had."""

LEVELS = {"dark": -0.5, "middle": 0.1, "light": 0.5}
"""The models of ``rendered``, each with the level of its grey."""

JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):\n((?:    .+\n)+)", re.MULTILINE)
"""What snakemake prints when it starts a job, or would start it."""


def write_frame(path: Path, seed: int, size: tuple[int, int] = (7, 5)) -> None:
    """Write a random 8-bit RGB frame; ``size`` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_video(
    path: Path,
    pixels: Sequence[np.ndarray],
    *,
    codec: str = "ffv1",
    kind: str = "bgr0",
    rate: int | Fraction = 24,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """Write RGB frames, of 8 bits, as a video; ``tags`` are set on its codec."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pixels[0].shape[:2]
        stream.pix_fmt = kind
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=kind)))
        container.mux(stream.encode())


def read_frame(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def grey_checkpoint(level: float, **changes) -> dict:
    """Give the checkpoint of a U-Net with zero weights: every pixel of its output is tanh(level)."""
    import torch
    from dailies.architectures import ARCHITECTURES

    config = {"in_channels": 3, "out_channels": 3, "base_channels": 1}
    state = {name: torch.zeros_like(value) for name, value in ARCHITECTURES["unet"](**config).state_dict().items()}
    state["outc.bias"].fill_(level)
    checkpoint = {
        "model_state_dict": state,
        "model_config": config,
        "architecture": "unet",
        "epoch": 10,
        "train_loss": 0.5,
    }
    return checkpoint | changes


def grey(level: float) -> int:
    """The code value that ``grey_checkpoint(level)`` renders."""
    return round((math.tanh(level) + 1) / 2 * 255)


def jobs(output: str, rule: str) -> list[str]:
    """Name the models for which ``output`` of snakemake tells a job of ``rule``, sorted; "" for a job without one.

    A job of one shard of several is named with it: ``model/2``.
    """
    found = (block for name, block in JOB.findall(output) if name == rule)
    models = (re.search(r"^    wildcards: model=(.+?)(?:, shard=(.+))?$", block, re.MULTILINE) for block in found)
    return sorted(_job_name(match) if match else "" for match in models)


def _job_name(match: re.Match[str]) -> str:
    return match[1] if match[2] in (None, "all") else f"{match[1]}/{match[2]}"


def strict_json(path: Path) -> Any:
    """Read a JSON file; fail on the NaN and Infinity that Python alone would accept."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{path} holds {constant}, which is not JSON")

    return json.loads(path.read_bytes(), parse_constant=refuse)


def environment() -> dict[str, str]:
    """Give this process's environment without MLflow's settings and without GPUs, for programs that tests start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    # on a machine that others use too, threads that wait by spinning made a render 50 times slower
    return kept | {"OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(STAND_INS)}


class Studio:
    """A folder with a store, frames and a configuration, and what a user does with them."""

    def __init__(
        self,
        root: Path,
        uri: str | None = None,
        *,
        experiment: str = "exp",
        blank: Path | None = None,
        location: str | None = None,
    ) -> None:
        """Make the folder ``root`` a studio; its store is at ``uri``, else a sqlite file, which starts as ``blank``.

        ``location`` is where its experiment keeps artifacts, when the store does not decide that.
        """
        from mlflow import MlflowClient

        self.root = root
        self.machine = ("--cores", "2")
        """The arguments that tell snakemake where jobs run."""
        self.frames = root / "shot"
        self.runs: dict[str, str] = {}
        """Run ids by run name, in the order of logging."""
        self.environment: dict[str, str] = {}
        """What the user has set besides, such as a login."""
        self.frames.mkdir(parents=True)
        if blank:
            shutil.copyfile(blank, root / "mlflow.db")
        self.uri = uri or f"sqlite:///{root / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        location = location if uri else (root / "artifacts").as_uri()
        self.experiment = self.client.create_experiment(experiment, artifact_location=location)
        self.config = {
            "mlflow_uri": self.uri,
            "experiment_name": experiment,
            "input_dir": str(self.frames),
            "output_dir": str(root / "out"),
            "device": "cpu",
            "order_by": "start_time ASC",
        }

    @property
    def output(self) -> Path:
        return Path(self.config["output_dir"])

    @property
    def layout(self) -> Layout:
        return Layout(self.output)

    @property
    def state(self) -> Path:
        return self.layout.state

    def add_frames(self, count: int, start: int = 0, size: tuple[int, int] = (7, 5)) -> None:
        for number in range(start, start + count):
            write_frame(self.frames / f"frame_{number:06d}.png", number, size)

    def add_run(
        self,
        name: str,
        checkpoint: object,
        *,
        path: str = "checkpoints/best_model_unet.pth",
        status: str = "FINISHED",
        params: dict | None = None,
        metrics: dict | None = None,
    ) -> str:
        """Log a run as a training script does; ``checkpoint`` is saved by torch, or is the bytes of a file, or None."""
        run_id = self.client.create_run(self.experiment, run_name=name).info.run_id
        for key, value in ({"model.architecture": "unet"} if params is None else params).items():
            self.client.log_param(run_id, key, value)
        for key, value in ({"train/loss": 0.25} if metrics is None else metrics).items():
            self.client.log_metric(run_id, key, value)
        if checkpoint is not None:
            self.log_checkpoint(run_id, checkpoint, path)
        if status == "RUNNING":
            self.client.update_run(run_id, status=status)
        else:
            self.client.set_terminated(run_id, status=status)
        self.runs[name] = run_id
        return run_id

    def log_checkpoint(self, run_id: str, checkpoint: object, path: str = "checkpoints/best_model_unet.pth") -> None:
        import torch

        local = self.root / "outbox" / Path(path).name
        local.parent.mkdir(exist_ok=True)
        if isinstance(checkpoint, bytes):
            local.write_bytes(checkpoint)
        else:
            torch.save(checkpoint, local)
        folder = str(Path(path).parent)
        self.client.log_artifact(run_id, str(local), None if folder == "." else folder)

    def snakemake(self, *arguments: str, expect: int | None = 0, **config) -> str:
        """Run snakemake as a user does, in this studio; check its exit code and return what it printed."""
        process = self.start(*arguments, **config)
        try:
            output, _ = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            kill_group(process)
            raise
        assert expect is None or process.returncode == expect, output
        return output

    def start(self, *arguments: str, log: Path | None = None, **config) -> subprocess.Popen:
        """Start snakemake as the leader of a process group of its own; ``config`` changes this studio's.

        What it prints goes to the file ``log``, else into a pipe.
        """
        (self.root / "config").mkdir(exist_ok=True)
        (self.root / "config" / "config.yaml").write_text(yaml.safe_dump(self.config | config))
        command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), *self.machine, *arguments]
        with log.open("wb") if log else nullcontext(subprocess.PIPE) as output:
            return subprocess.Popen(
                command,
                cwd=self.root,
                env=environment() | self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def folder(self, run_id: str) -> Path:
        """The output folder of a run's model."""
        found = list(self.output.glob(f"*{run_id[:8]}"))
        assert len(found) == 1, found
        return found[0]

    def written(self, run_id: str) -> dict[str, int]:
        """The rendered frames of a run's model, with the times of their writing."""
        return {path.name: path.stat().st_mtime_ns for path in sorted(self.folder(run_id).glob("*.png"))}

    def metadata(self, run_id: str) -> dict[str, Any]:
        return strict_json(self.folder(run_id) / "metadata.json")

    def summary(self) -> list[dict[str, Any]]:
        return strict_json(self.output / "batch_summary.json")

    def levels(self, run_id: str) -> list[int]:
        """The grey of each rendered frame of a run's model; fails where one is not even, or not of its input's size."""
        found = []
        for path in sorted(self.folder(run_id).glob("*.png")):
            pixels = read_frame(path)
            assert pixels.shape == read_frame(self.frames / path.name).shape
            assert pixels.min() == pixels.max(), path
            found.append(int(pixels[0, 0, 0]))
        return found


def pytest_configure() -> None:
    """Hear Ctrl-C, and let the programs that tests start hear it, also where a shell started all in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what mostly waits begin first, then whole workflows: short files at the end keep every worker busy."""
    items.sort(key=lambda item: ("slurm" not in item.keywords, not item.path.stem.startswith("test_workflow")))


def required(what: str) -> bool:
    """Tell whether the environment variable DAILIES_REQUIRE names ``what``."""
    return what in os.environ.get("DAILIES_REQUIRE", "").split(",")


def lacking(what: str, reason: str) -> None:
    """Skip a test for want of ``what``; fail where the environment variable DAILIES_REQUIRE names it."""
    if required(what):
        pytest.fail(f"DAILIES_REQUIRE names {what}: {reason}")
    pytest.skip(f"no {what}: {reason}")


def kill_group(process: subprocess.Popen) -> None:
    """Kill -9 a process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
    from stores import sqlite_shelf

    return sqlite_shelf(tmp_path / "store")


@pytest.fixture
def scene(shelf: "Shelf", tmp_path: Path) -> "Scene":
    """That store, and what discovery makes of it."""
    from scenes import scene_of

    return scene_of(shelf, tmp_path)


@pytest.fixture
def shot(tmp_path: Path) -> "Shot":
    """A sequence with a reference, to measure models by."""
    from shots import Shot

    return Shot(tmp_path)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the frames that are measured, once for each group of metrics."""
    from shots import counting

    return counting(monkeypatch)


@pytest.fixture
def studio(tmp_path: Path, blank_store: Path) -> Studio:
    """An empty studio with a local sqlite store."""
    return Studio(tmp_path, blank=blank_store)


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

    Every test finds it as if it were the first: files, times and store are put back, at the same paths.
    """
    studio, copy = rendered_once
    shutil.rmtree(studio.root)
    shutil.copytree(copy, studio.root)
    runs = dict(studio.runs)
    yield studio
    studio.runs = runs
