"""A sequence with a reference, and models to measure against it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dailies.core import files
from dailies.frames import scan, sequence
from dailies.measure import per_frame
from dailies.measure.job import MeasurementJob
from dailies.measure.per_frame import baseline, measure
from dailies.state.layout import SOURCE, Layout
from PIL import Image

from helpers.json_files import strict_json
from helpers.pictures import distorted, picture

COUNT = 5
NAMES = [f"f_{number}.png" for number in range(COUNT)]
EVERYTHING = ("psnr", "ssim", "ms_ssim", "flicker", "detail", "clipping")


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(np.float32) / 255


class Shot:
    """A sequence with a reference, and models whose frames are functions of the reference's."""

    def __init__(self, root: Path, size: tuple[int, int] = (40, 48)) -> None:
        self.root = root
        self.out = root / "out"
        for number, name in enumerate(NAMES):
            clean = 0.1 + 0.8 * picture(size, seed=number)
            write(root / "clean" / name, clean)
            write(root / "shot" / name, distorted(clean, "noise"))
        self.layout = Layout(self.out)
        self.scan()
        self.job = MeasurementJob(
            layout=self.layout,
            subject=SOURCE,
            shard="all",
            shard_frames=0,
            input_dir=root / "shot",
            reference_dir=root / "clean",
            metrics=EVERYTHING,
            transfer="clip",
            threads=2,
            attempt=1,
        )

    def scan(self, **options) -> None:
        found = scan.scan(self.root / "shot", on_bad_frame="error", cache=self.layout.scan, **options)
        sequence.save(found, self.layout.sequence)

    def add(self, model: str, make, status: str = "success") -> Path:
        for name in NAMES:
            write(self.out / model / name, make(read(self.root / "clean" / name)))
        files.write_json(self.record(model), {"status": status, "error": None if status == "success" else "it broke"})
        return self.out / model

    def record(self, model: str) -> Path:
        return self.layout.outcome(model, "all")

    def measures(self, subject: str, shard: str = "all") -> Path:
        return self.layout.measures(subject, shard)

    def measure(self, model: str, *, shard: str = "all", **changes) -> dict:
        job = replace(self.job, subject=model, shard=shard, **changes)
        if model == SOURCE:
            baseline(job)
        else:
            measure(job, outcomes=[self.record(model)])
        return strict_json(job.output)


def counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the name of each frame that is measured, once for each group of metrics."""
    seen = []
    original = per_frame._measure_group

    def count(inputs, plan, metrics, read):
        seen.append(plan.frame.output)
        return original(inputs, plan, metrics, read)

    monkeypatch.setattr(per_frame, "_measure_group", count)
    return seen


def blur(image: np.ndarray) -> np.ndarray:
    return distorted(image, "blur")


def doubled(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, axis=0).repeat(2, axis=1)
