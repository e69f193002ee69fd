"""What the jobs before a render leave on the disk, and networks whose output is known."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dailies.core import files
from dailies.frames import scan, sequence
from dailies.models.signature import Signature
from dailies.render.job import Job, render
from dailies.render.network import probe_size
from dailies.state.layout import Layout
from dailies.state.records import ModelRecord, Receipt
from dailies.store.entities import Artifact
from PIL import Image
from torch import Tensor, nn

from helpers.images import read_frame, write_frame
from helpers.json_files import strict_json
from helpers.weights import LOADING

SETTINGS = {
    "precision": "fp32",
    "tiled": "auto",
    "tile_size": 64,
    "overlap": 32,
    "output_format": "auto",
    "transfer": "clip",
}
PROBE = probe_size(Signature())
NAMES = [f"frame_{number:06d}.png" for number in range(6)]


class Inverse(nn.Module):
    """The inverse; it counts its calls and can run an action before one of them."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))
        self.calls = 0
        self.before = {}
        """Actions by the number of the call."""

    def forward(self, x: Tensor) -> Any:
        if x.shape[2:] != PROBE:
            self.calls += 1
            self.before.get(self.calls, lambda: None)()
        return self.output(x)

    def output(self, x: Tensor) -> Any:
        return -x


def inverse_like(output) -> type[Inverse]:
    """A class of networks like ``Inverse`` that return ``output(x)``."""
    return type("Custom", (Inverse,), {"output": lambda _self, x: output(x)})


def fail(error: BaseException):
    """An action that raises an error."""

    def action(*_arguments, **_keywords):
        raise error

    return action


class Site:
    """Six frames, their sequence and a downloaded model in a folder, and a job to render them."""

    def __init__(self, root: Path) -> None:
        self.shot, self.layout = root / "shot", Layout(root / "out")
        self.folder, self.weights = self.layout.frames("model"), self.layout.weights("model")
        self.job = Job(
            layout=self.layout,
            model="model",
            shard="all",
            shard_frames=0,
            input_dir=self.shot,
            settings=SETTINGS,
            loading=LOADING,
            batch="auto",
            device="cpu",
            threads=1,
            attempt=1,
            trust_code=False,
        )
        self.shot.mkdir()
        for number, name in enumerate(NAMES):
            write_frame(self.shot / name, number)
        self.read_sequence()
        self.record()

    def record(self, architecture: str | None = "unet", **hints: str) -> None:
        """Write the model's discovery record."""
        ModelRecord(
            run_id="ab12",
            experiment_id="7",
            architecture=architecture,
            artifact=Artifact("store", "best.pth", ()),
            hints=hints,
        ).save(self.job.record)

    def read_sequence(self, source: Path | None = None, **options) -> None:
        found = scan.scan(source or self.shot, on_bad_frame="error", cache=self.layout.scan, **options)
        sequence.save(found, self.layout.sequence)

    def fill(self, *colours: tuple[int, ...], size: tuple[int, int] = (7, 5)) -> None:
        """Make every frame one colour; the last one serves all that are left."""
        for number, name in enumerate(NAMES):
            Image.new("RGB", size, colours[min(number, len(colours) - 1)]).save(self.shot / name)
        self.read_sequence()

    def download(self, checkpoint: Any) -> None:
        path = self.weights.whole / "best.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(checkpoint, path)
        self.receive(path)

    def receive(self, path: Path) -> None:
        """Write the receipt of a successful download."""
        receipt = Receipt(
            status="success", uri="store", path=path.name, sha256=files.sha256_of(path), size=path.stat().st_size
        )
        receipt.save(self.weights.receipt)

    def amend_receipt(self, **changes) -> None:
        files.write_json(self.weights.receipt, files.read_json(self.weights.receipt) | changes)

    def render(self, *, forced: str | None = None, **changes) -> dict:
        """Render with changes to the job, and return the outcome."""
        job = replace(self.job, **changes)
        job.outcome.unlink(missing_ok=True)
        render(job, forced=forced)
        assert job.outcome.read_bytes() == job.last_attempt.read_bytes()
        return strict_json(job.outcome)

    def render_well(self, **changes) -> dict:
        """Render, and check that it succeeds."""
        outcome = self.render(**changes)
        assert (outcome["status"], outcome["error"]) == ("success", None)
        return outcome

    def fail_to_render(self, status: str, *names: str, **changes) -> dict:
        """Render, and check how it fails and that the error holds each of ``names``."""
        outcome = self.render(**changes)
        assert outcome["status"] == status, outcome["error"]
        assert outcome["error"].isprintable()
        assert [name for name in names if name not in outcome["error"]] == [], outcome["error"]
        return outcome

    @contextmanager
    def writes(self, *names: str) -> Iterator[None]:
        """Check that exactly these frames are written in this block."""
        before = self.written()
        yield
        assert [name for name, time in self.written().items() if before.get(name) != time] == list(names)

    def written(self) -> dict[str, int]:
        """The times at which rendered frames were written, by name."""
        return {path.name: path.stat().st_mtime_ns for path in sorted(self.folder.glob("*.png"))}

    def pixels(self) -> dict[str, np.ndarray]:
        return {name: read_frame(self.folder / name) for name in self.written()}

    def check_inverted(self, names=NAMES) -> None:
        """Check that these frames, and no others, are the inverse of their sources."""
        assert list(self.written()) == list(names)
        for name, pixels in self.pixels().items():
            np.testing.assert_array_equal(pixels, 255 - read_frame(self.shot / name), err_msg=name)

    def manifest_lines(self) -> dict[str, dict]:
        return {line["output"]: line for line in map(json.loads, self.job.manifest.read_text().splitlines())}

    def drafts(self) -> list[str]:
        """Names of temporary files that were left behind."""
        return [path.name for path in self.shot.parent.rglob("*.tmp")]
