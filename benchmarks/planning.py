"""Measure what planning costs: an invocation that has nothing to do, and one that has one model to add.

python benchmarks/planning.py 10 100 1000
python benchmarks/planning.py --shards 3 1000

A few models are really rendered. The others' state is made of theirs, by the functions that jobs call, and is checked
to be what a job leaves; Snakemake then takes note of it with ``--touch``.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests"), str(REPOSITORY / "tests" / "stand_ins")]

from dailies.core import files  # noqa: E402
from dailies.frames import sequence  # noqa: E402
from dailies.planning.config import loading_settings, pixel_settings  # noqa: E402
from dailies.planning.validation import validated  # noqa: E402
from dailies.state import collect, due_shards  # noqa: E402
from dailies.state.layout import Layout  # noqa: E402
from helpers.images import write_frame  # noqa: E402
from helpers.stores import BEST, multiply, sqlite_shelf  # noqa: E402
from helpers.studio import environment  # noqa: E402
from helpers.weights import grey_checkpoint  # noqa: E402

REAL, FRAMES, REPEATS = 2, 200, 3
"""Models that are really rendered, frames of the sequence, and invocations of which the median is given."""


class Site:
    """A store, a shot and an output folder."""

    def __init__(self, root: Path, shards: int) -> None:
        self.root, self.out = root, root / "out"
        self.layout = Layout(self.out)
        (root / "shot").mkdir()
        for number in range(FRAMES):
            write_frame(root / "shot" / f"frame_{number:06d}.png", number)
        torch.save(grey_checkpoint(0.1), root / "weights.pth")
        self.shelf = sqlite_shelf(root / "store")
        weights = (root / "weights.pth").read_bytes()
        self.seed = self.shelf.run("model", params={"model.architecture": "unet"})
        self.shelf.log(self.seed, BEST, weights)
        given = {
            "mlflow_uri": self.shelf.uri,
            "experiment_name": "exp",
            "input_dir": str(root / "shot"),
            "output_dir": str(self.out),
            "order_by": "start_time ASC",
            "device": "cpu",
            "compare": False,
            "shard_frames": -(-FRAMES // shards) if shards > 1 else 0,
        }
        (root / "config").mkdir()
        (root / "config" / "config.yaml").write_text(yaml.safe_dump(given))
        self.settings = validated(given, {})

    def add(self, count: int) -> None:
        """Log more runs like the first."""
        weights = (self.root / "weights.pth").read_bytes()
        for run_id in multiply(self.root / "store" / "mlflow.db", self.seed, count):
            path = self.root / "store" / "artifacts" / run_id / "artifacts" / BEST
            path.parent.mkdir(parents=True)
            path.write_bytes(weights)

    def snakemake(self, *arguments: str) -> tuple[float, str]:
        """Run it; give the seconds and what it said."""
        command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--cores", "2", *arguments]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=self.root, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return time.perf_counter() - start, done.stdout + done.stderr

    def models(self) -> list[str]:
        return files.read_json(self.layout.index)["models"]

    def pretend(self, model: str, like: str) -> None:
        """Write what the jobs of a model leave, from what those of another left."""
        layout = self.layout
        record = layout.record(model)
        artifact = files.read_json(record)["artifact"]
        receipt = files.read_json(layout.receipt(like))
        files.write_json(layout.receipt(model), receipt | {"uri": artifact["uri"]})
        (self.out / model).mkdir(exist_ok=True)
        for frame in (self.out / like).glob("*.png"):
            if not (self.out / model / frame.name).exists():
                os.link(frame, self.out / model / frame.name)
        outcomes = []
        plan = sequence.shards(layout.sequence, self.settings.shard_frames)
        for name, shard in plan.items():
            outcome = files.read_json(layout.outcome(like, name))
            outcome["artifact"]["uri"] = artifact["uri"]
            settings = pixel_settings(self.settings), loading_settings(self.settings)
            outcome["basis"] = due_shards.basis(record, shard.digest, *settings)
            outcomes.append(layout.outcome(model, name))
            for path in (outcomes[-1], layout.attempt(model, name)):
                files.write_json(path, outcome)
            lines = layout.manifest(like, name).read_bytes()
            files.write_bytes(layout.manifest(model, name), lines)
        collect.describe(
            layout.run(model),
            outcomes,
            sequence=layout.sequence,
            manifests=layout.manifests(model),
            folder=layout.frames(model),
            output=layout.metadata(model),
        )

    def left(self, model: str) -> dict[str, object]:
        """Give what the jobs of a model left, without the times that they took."""
        places = [
            self.out / model,
            *(self.layout.state / name / model for name in ("weights", "renders", "attempts", "frames")),
        ]
        found = {}
        for place in places:
            for path in sorted(place.rglob("*.*")):
                name = f"{place.relative_to(self.out).as_posix().replace(model, '')}/{path.name}"
                found[name] = (
                    path.read_bytes()
                    if path.suffix == ".png"
                    else [_timeless(json.loads(line)) for line in _documents(path)]
                )
        return found


def _documents(path: Path) -> list[str]:
    return sorted(path.read_text().splitlines()) if path.suffix == ".jsonl" else [path.read_text()]


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in {"seconds", "fps"}}
    return value


def measure(count: int, shards: int, root: Path) -> None:
    """Print seconds and ratios for so many models."""
    site = Site(root, shards)
    site.add(REAL - 1)
    first, output = site.snakemake()
    real = site.models()
    before = site.left(real[1])
    site.pretend(real[1], like=real[0])
    differing = [name for name, value in site.left(real[1]).items() if before.get(name) != value]
    if differing or before.keys() != site.left(real[1]).keys():
        sys.exit(f"the state that is made is not what jobs leave: {differing}")
    site.add(count - REAL)
    site.snakemake(str(site.layout.index))
    for model in site.models():
        if model not in real:
            site.pretend(model, like=real[0])
    paths = [site.out / model / "metadata.json" for model in site.models()]
    collect.summarize(paths, output=site.out / "batch_summary.json")
    site.snakemake("--touch")
    times = []
    for _ in range(REPEATS):
        seconds, output = site.snakemake()
        if "Nothing to be done" not in output:
            sys.exit(output)
        times.append(seconds)
    idle = statistics.median(times)
    bare = statistics.median(site.snakemake("--list")[0] for _ in range(REPEATS))
    site.add(1)
    planned, output = site.snakemake("-n")
    added, output = site.snakemake()
    split = f", {shards} shards each" if shards > 1 else ""
    print(
        f"{count} models × {FRAMES} frames{split}: nothing to do {idle:.1f} s ({idle / bare:.1f} × reading the "
        f"workflow, {(idle - bare) / count * 1000:.1f} ms a model); one more model: dry run {planned:.1f} s, "
        f"whole invocation {added:.1f} s ({added / idle:.1f} ×); the first {REAL} models took {first:.1f} s",
        flush=True,
    )


def main() -> None:
    """Measure every number of models that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("counts", nargs="*", type=int, default=[10, 100])
    parser.add_argument("--shards", type=int, default=1)
    asked = parser.parse_args()
    for count in asked.counts:
        with tempfile.TemporaryDirectory() as folder:
            measure(count, asked.shards, Path(folder))


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
