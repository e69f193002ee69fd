"""A real studio for workflow tests: an MLflow store, frames, a configuration, and snakemake."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml
from dailies.core import fork_server
from dailies.state.layout import Layout

from helpers import REPOSITORY
from helpers.images import read_frame, write_frame
from helpers.invocations import Invocation
from helpers.json_files import strict_json

STAND_INS = REPOSITORY / "tests" / "stand_ins"
"""Modules that stand in for packages that cannot be had."""

LEVELS = {"dark": -0.5, "middle": 0.1, "light": 0.5}
"""The models of ``rendered``, each with the level of its grey."""

JOB = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):\n((?:    .+\n)+)", re.MULTILINE)
"""What snakemake prints when it starts a job, or would start it."""


def jobs(output: str, rule: str) -> list[str]:
    """Name the models for which ``output`` of snakemake tells a job of ``rule``, sorted; "" for a job without one.

    A job of one shard of several is named with it: ``model/2``.
    """
    found = (block for name, block in JOB.findall(output) if name == rule)
    models = (re.search(r"^    wildcards: model=(.+?)(?:, shard=(.+))?$", block, re.MULTILINE) for block in found)
    return sorted(_job_name(match) if match else "" for match in models)


def _job_name(match: re.Match[str]) -> str:
    return match[1] if match[2] in (None, "all") else f"{match[1]}/{match[2]}"


def environment() -> dict[str, str]:
    """Give this process's environment without MLflow's settings and without GPUs, for programs that tests start."""
    # where Python keeps no compiled code, each job would compile the package anew
    left_out = ("MLFLOW_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
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
        self.verbosity: tuple[str, ...] = ("--printshellcmds",)
        """The arguments that make snakemake print the jobs, in which tests see what runs."""
        self.frames = root / "shot"
        self.runs: dict[str, str] = {}
        """Run ids by run name, in the order of logging."""
        self.environment: dict[str, str] = {}
        """What the user has set besides, such as a login."""
        self.has_fork_server = False
        """Whether invocations start one. Else the jobs are forked from the server of the tests, which exists anyway."""
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

    def start(self, *arguments: str, log: Path | None = None, **config) -> Invocation:
        """Start snakemake as the leader of a process group of its own; ``config`` changes this studio's.

        What it prints goes to the file ``log``, else into its ``stdout``.
        """
        (self.root / "config").mkdir(exist_ok=True)
        (self.root / "config" / "config.yaml").write_text(yaml.safe_dump(self.config | config))
        command = ["-s", str(REPOSITORY / "Snakefile"), *self.machine, *self.verbosity, *arguments]
        switch = {} if self.has_fork_server else {fork_server.ADDRESS: ""}
        return Invocation(command, self.root, environment() | switch | self.environment, log)

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


def kill_group(process: subprocess.Popen | Invocation) -> None:
    """Kill -9 a process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


NAMES = [f"frame_{number:06d}.png" for number in range(4)]


def only(studio: Studio, *names: str) -> list[str]:
    """The folder names of runs, sorted as ``jobs`` sorts them."""
    return sorted(studio.folder(studio.runs[name]).name for name in names)


def all_written(studio: Studio) -> dict[str, dict[str, int]]:
    return {name: studio.written(studio.runs[name]) for name in LEVELS}


def check_one_sentence(output: str, sentence: str) -> None:
    """Check that ``sentence`` is all that the workflow says, with no traceback and no failed job."""
    assert f"dailies: {sentence}\n" in output
    assert output.count("dailies: ") == 1
    assert "Traceback" not in output
    assert "Error in rule" not in output
