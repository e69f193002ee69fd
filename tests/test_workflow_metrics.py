"""Measuring as a part of the workflow: real snakemake over a real MLflow store, with references whose answer is known."""

import csv
import shutil
from pathlib import Path

import numpy as np
from conftest import LEVELS, Studio, grey, grey_checkpoint, jobs, read_frame, strict_json, write_frame
from PIL import Image


def add_reference(studio: Studio, level: int = 100, numbers=range(4), name: str = "frame_{:06d}.png") -> Path:
    """Write even grey frames of the studio's size as its reference."""
    folder = studio.root / "reference"
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(np.full((36, 40, 3), level, np.uint8)).save(folder / name.format(number))
    return folder


def psnr(level: float, reference: int = 100) -> float:
    """The PSNR of a model that renders an even grey."""
    return float(10 * np.log10(255**2 / (grey(level) - reference) ** 2))


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_reference_measures_every_model_and_renders_nothing(rendered: Studio):
    before = {name: rendered.written(rendered.runs[name]) for name in LEVELS}
    reference = str(add_reference(rendered))

    output = rendered.snakemake(reference_dir=reference)

    assert not jobs(output, "download")
    assert not jobs(output, "infer")
    assert {name: rendered.written(rendered.runs[name]) for name in LEVELS} == before
