"""A real studio for workflow tests: an MLflow store, tiny networks whose answer is known by hand, frames, snakemake."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

REPOSITORY = Path(__file__).parents[1]


def write_frame(path: Path, seed: int, size: tuple[int, int] = (7, 5)) -> None:
    """Write a random 8-bit RGB frame; ``size`` is (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


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


class Studio:
    """A folder with a store, frames and a configuration, and what a user does with them."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        from mlflow import MlflowClient

        self.root = root
        self.frames = root / "shot"
        self.output = root / "out"
        self.state = self.output / ".dailies"
        self.frames.mkdir(parents=True)
        self.uri = uri or f"sqlite:///{root / 'mlflow.db'}"
        self.client = MlflowClient(tracking_uri=self.uri)
        location = None if uri else (root / "artifacts").as_uri()
        self.experiment = self.client.create_experiment("exp", artifact_location=location)
        self.config = {
            "mlflow_uri": self.uri,
            "experiment_name": "exp",
            "input_dir": str(self.frames),
            "output_dir": str(self.output),
            "device": "cpu",
            "order_by": "start_time ASC",
        }

    def add_frames(self, count: int, start: int = 0) -> None:
        for number in range(start, start + count):
            write_frame(self.frames / f"frame_{number:06d}.png", number)

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
        """Log a run as a training script does; ``checkpoint`` is saved by torch, bytes and None are taken as they are."""
        run_id = self.client.create_run(self.experiment, run_name=name).info.run_id
        for key, value in ({"model.architecture": "unet"} if params is None else params).items():
            self.client.log_param(run_id, key, value)
        for key, value in ({"train/loss": 0.25} if metrics is None else metrics).items():
            self.client.log_metric(run_id, key, value)
        if checkpoint is not None:
            self.log_checkpoint(run_id, checkpoint, path)
        self.client.set_terminated(run_id, status=status)
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
        output, _ = process.communicate(timeout=300)
        assert expect is None or process.returncode == expect, output
        return output

    def start(self, *arguments: str, **config) -> subprocess.Popen:
        (self.root / "config").mkdir(exist_ok=True)
        (self.root / "config" / "config.yaml").write_text(yaml.safe_dump(self.config | config))
        command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--cores", "2", *arguments]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            stdout=subprocess.PIPE,
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


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    """An empty studio with a local sqlite store."""
    return Studio(tmp_path)
