"""A sequence and rendered models in folders, made without a workflow, and the page that shows them."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dailies.compare import page
from dailies.compare.layers import RenderedModel
from dailies.core import files
from dailies.frames import scan, sequence
from dailies.measure.leaderboard import LeaderboardSettings, page_metrics, tabulate
from dailies.state.collect import describe, summarize
from dailies.state.layout import Layout
from dailies.state.records import Metadata, ModelRecord
from dailies.store.entities import Artifact
from PIL import Image

from helpers.images import flat, read_frame, write_frame

RUN = {
    "experiment": "exp",
    "architecture": "unet",
    "epoch": 20,
    "train_loss": 0.5,
    "val_loss": 0.25,
    "status": "FINISHED",
    "start_time": 1701234567890,
    "params": {"lr": "1e-3"},
    "metrics": {"val/psnr": 31.5},
    "tags": {},
    "not_chosen": [],
}

RENDER = {
    "frames": 3,
    "seconds": 1.5,
    "fps": 2.0,
    "device": "cpu",
    "precision": "fp32",
    "tiled": False,
    "tile_size": None,
    "overlap": None,
    "versions": {},
}

HOSTILE = '</script><script>hacked=1</script><img src=x onerror=hacked=1>\u2028"\\\u202e'


class Show:
    """A sequence and models, in folders as the workflow writes them, and the page that shows them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.input = root / "shot"
        self.reference = root / "reference"
        self.output = root / "out"
        self.layout = Layout(self.output)
        self.page = self.layout.page
        self.state = self.layout.state
        self.models: list[Path] = []
        self.input.mkdir()

    def add_frame(self, name: str, pixels: np.ndarray) -> None:
        Image.fromarray(pixels).save(self.input / name)

    def paired(self) -> dict[str, Path]:
        """Return the files of the reference by output name; their own names match those of the frames."""
        return {f"{path.stem}.png": path for path in sorted(self.reference.iterdir())}

    def add_model(
        self,
        name: str,
        pixels: Callable[[int], np.ndarray] | None = None,
        *,
        error: str | None = None,
        scale: int = 1,
        run: Mapping[str, Any] | None = None,
    ) -> Path:
        """Write a model's folder as its render does. Without ``error``, it has ``pixels`` of each number."""
        run_id = f"{len(self.models) + 1:032x}"
        folder = self.output / f"model_{len(self.models) + 1}"
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted(self.input.iterdir())):
            if error is None:
                Image.fromarray(pixels(number)).save(folder / f"{path.stem}.png")
        outcome = {
            "status": "load_failed" if error else "success",
            "error": error,
            "attempt": 1,
            "render": RENDER,
            "model": {} if error else {"signature": {"value_range": [-1, 1], "channels": 3, "scale": scale}},
            "artifact": {"uri": "file:///store", "path": "best.pth", "sha256": "ab", "size": 3},
            "input": {"digest": "cd", "frames": 3, "skipped": 0},
        }
        about = RUN | {"run_id": run_id, "run_name": name} | (run or {})
        ModelRecord(run_id=about["run_id"], artifact=Artifact("file:///store", "best.pth", ())).save(
            self.layout.record(folder.name)
        )
        files.write_json(self.state / "run.json", about)
        files.write_json(self.state / "outcome.json", outcome)
        sequence.save(sequence.Sequence(()), self.state / "sequence.json")
        describe(
            self.state / "run.json",
            [self.state / "outcome.json"],
            sequence=self.state / "sequence.json",
            manifests=self.state / "manifests",
            folder=folder,
            output=folder / "metadata.json",
        )
        self.models.append(folder)
        return folder

    def rendered(self) -> list[RenderedModel]:
        """Return the models as ``gather`` takes them."""
        return [RenderedModel.from_metadata(folder, Metadata.load(folder / "metadata.json")) for folder in self.models]

    def build(self, **changes) -> dict[str, Any]:
        """Build the page and return its data. ``psnr`` are values by model and for ``@source``, to rank the models."""
        output_format = changes.pop("output_format", "auto")
        shot = scan.scan(
            self.input,
            on_bad_frame="error",
            cache=self.layout.scan,
            output_format=output_format,
            layer=changes.pop("layer", None),
            threads=1,
        )
        sequence.save(shot, self.state / "sequence.json")
        metadata = [folder / "metadata.json" for folder in self.models]
        if psnr := changes.pop("psnr", None):
            self.rank(psnr)
            changes |= {"ranking": self.layout.verdict, "metrics": page_metrics(self.layout.verdict)}
        summarize(metadata, output=self.output / "batch_summary.json", ranking=changes.get("ranking"))
        usual = {
            "summary": self.output / "batch_summary.json",
            "sequence": self.state / "sequence.json",
            "input_dir": self.input,
            "layout": self.layout,
            "tracking_uri": None,
            "fps": 24,
            "threads": 2,
        }
        page.build(changes.pop("metadata", metadata), **(usual | changes))
        return self.data()

    def rank(self, psnr: Mapping[str, Sequence[float]]) -> None:
        """Write the leaderboard and the summary for these values, by the folder of a model or ``@source``."""
        outputs = [f"{path.stem}.png" for path in sorted(self.input.iterdir())]
        measures, runs, outcomes = [], [], []
        for subject, values in psnr.items():
            measures.append(self.layout.measures(subject, "all"))
            frames = {name: {"psnr": value} for name, value in zip(outputs, values, strict=True)}
            files.write_json(measures[-1], {"status": "success", "frames": frames, "notes": []})
        for folder in self.models:
            about = files.read_json(folder / "metadata.json")
            runs.append(self.layout.run(folder.name))
            files.write_json(runs[-1], {key: about[key] for key in ("run_id", "run_name", "params", "tags")})
            outcomes.append(self.layout.outcome(folder.name, "all"))
            files.write_json(outcomes[-1], {key: about["render"][key] for key in ("status", "error")})
        tabulate(
            LeaderboardSettings(("psnr",), "psnr", self.input, ()),
            sequence=self.layout.sequence,
            runs=runs,
            outcomes=outcomes,
            measures=measures,
            tables=(self.layout.frame_table, self.layout.leaderboard),
            output=self.layout.verdict,
        )

    def data(self, name: str = "data.js") -> dict[str, Any]:
        return received((self.page.parent / "page" / name).read_bytes())

    def made(self, kind: str) -> dict[str, int]:
        """Return the modification times of the page's copies or thumbnails, by name."""
        folder = self.page.parent / "page" / kind
        return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in sorted(folder.glob("*/*"))}

    def copy(self, name: str) -> np.ndarray:
        return read_frame(self.page.parent / "page" / "copies" / name)


def small_show(root: Path, dark: str, light: str) -> Show:
    """Return three frames and two models with these names."""
    show = Show(root)
    for number in range(3):
        write_frame(show.input / f"frame_{number:03d}.png", number)
    show.add_model(dark, lambda number: flat(number, 0, 0))
    show.add_model(light, lambda number: flat(number, 255, 255))
    return show


def add_means(folder: Path, means: Mapping[str, float | None]) -> None:
    """Add the means over the frames that a model was not trained on to its metadata."""
    about = files.read_json(folder / "metadata.json")
    files.write_json(folder / "metadata.json", about | {"measured": {"mean_unseen": dict(means)}})


def received(data: bytes) -> Any:
    """Return the value that a browser reads from a script of the page."""
    return json.loads(json.loads(re.search(rb"JSON\.parse\((.*?)\)+;\n$", data)[1]))


BARS = np.array(
    [[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]],
    np.uint8,
)


def bars(width: int, height: int) -> np.ndarray:
    return BARS.repeat(width // 8, 0)[None].repeat(height, 0)
