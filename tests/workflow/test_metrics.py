"""Measuring as a part of the workflow: real snakemake, a real store, references whose answer is known."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from helpers.studio import LEVELS, Studio, jobs
from helpers.weights import grey, grey_checkpoint
from PIL import Image


def add_reference(studio: Studio, numbers: Iterable[int] = range(4)) -> Path:
    """Write even grey frames of the studio's size as its reference."""
    folder = studio.root / "reference"
    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(np.full((36, 40, 3), 100, np.uint8)).save(folder / f"frame_{number:06d}.png")
    return folder


def psnr(level: float) -> float:
    """The PSNR of a model that renders an even grey."""
    return float(10 * np.log10(255**2 / (grey(level) - 100) ** 2))


def lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_reference_measures_every_model_and_later_what_is_new(compared: Studio):
    before = {name: compared.written(compared.runs[name]) for name in LEVELS}
    measured = {"reference_dir": str(add_reference(compared)), "order_by": "measured.psnr DESC"}

    output = compared.snakemake(**measured)

    assert not jobs(output, "download")
    assert not jobs(output, "infer")
    assert {name: compared.written(compared.runs[name]) for name in LEVELS} == before
    assert "Nothing to be done" in compared.snakemake("-n", **measured)
    for name, level in LEVELS.items():
        about = compared.metadata(compared.runs[name])["measured"]
        assert about["mean"]["psnr"] == pytest.approx(psnr(level), abs=1e-3)
        assert about["mean"]["clipping"] < 0
    best_first = sorted(LEVELS, key=lambda name: abs(grey(LEVELS[name]) - 100))
    ranked = lines(compared.output / "compare" / "leaderboard.csv")
    assert ranked[0]["model"] == compared.folder(compared.runs[best_first[0]]).name
    assert ranked[-1]["model"] == "(source)"
    assert len(lines(compared.output / "compare" / "metrics.csv")) == 4 * 4
    assert f"\n{ranked[0]['label']} ranks first by PSNR on 4 frames: a tie" in output
    assert [(line["run_name"], line["measured"]["psnr"]) for line in compared.summary()] == [
        (name, compared.metadata(compared.runs[name])["measured"]["mean"]["psnr"]) for name in best_first
    ]
    page = compared.output / "compare" / "page"
    assert "PSNR" in (page / "metrics.js").read_text()
    data = (page / "data.js").read_text()
    assert "@reference" in data
    places = [data.index(compared.runs[name]) for name in best_first]
    assert places == sorted(places)

    new = compared.add_run("new", grey_checkpoint(-0.2))
    compared.client.set_tag(compared.runs["dark"], "dailies.training_frames", "0-1")
    output = compared.snakemake(**measured)

    assert jobs(output, "infer") == jobs(output, "measure") == [compared.folder(new).name]
    assert not jobs(output, "baseline")
    rows = {line["run_name"]: line for line in lines(compared.output / "compare" / "leaderboard.csv")}
    assert next(iter(rows)) == "new"
    assert (rows["dark"]["training_frames"], rows["dark"]["frames"]) == ("2", "2")
    about = compared.metadata(compared.runs["dark"])["measured"]
    assert (about["training_frames"], set(about["mean_training"])) == (2, set(about["mean"]))

    compared.snakemake(**measured, max_runs=2)
    assert [line["run_name"] for line in compared.summary()] == ["new", best_first[0]]


def test_some_frames_are_measured_first_and_the_others_later_without_a_render(compared: Studio):
    measured = {"reference_dir": str(add_reference(compared)), "metrics": "psnr"}
    models = sorted(compared.folder(compared.runs[name]).name for name in LEVELS)

    output = compared.snakemake(**measured, measure_frames=2)

    assert " ranks first by PSNR on 2 of 4 frames: a tie" in output
    assert len(lines(compared.output / "compare" / "metrics.csv")) == (len(models) + 1) * 2
    about = compared.metadata(compared.runs["dark"])["measured"]
    assert (about["frames"], about["of"]) == (2, 4)
    assert "2 of 4 frames" in (compared.output / "compare" / "page" / "data.js").read_text()

    output = compared.snakemake(**measured, measure_frames="all")

    assert sorted(jobs(output, "measure")) == models
    assert not jobs(output, "infer")
    assert len(lines(compared.output / "compare" / "metrics.csv")) == (len(models) + 1) * 4
    assert "of" not in compared.metadata(compared.runs["dark"])["measured"]
    assert "Nothing to be done" in compared.snakemake("-n", **measured)  # auto takes all of so few


def test_the_target_metrics_measures_without_a_reference_and_changes_nothing_else(compared: Studio):
    output = compared.snakemake("metrics")

    assert not jobs(output, "infer")
    assert not jobs(output, "collect")
    columns = lines(compared.output / "compare" / "leaderboard.csv")[0]
    assert {"flicker", "detail", "clipping"} <= columns.keys()
    assert "psnr" not in columns
    assert "Nothing to be done" in compared.snakemake("-n", "all", "metrics")


def test_a_backbone_that_is_missing_ends_the_invocation_before_anything_is_rendered(studio):
    studio.add_frames(2, size=(40, 36))
    studio.add_run("good", grey_checkpoint(0.1))
    backbone = str(studio.root / "alexnet.pth")

    output = studio.snakemake(
        expect=1, metrics="lpips", reference_dir=str(add_reference(studio)), lpips_backbone=backbone
    )

    assert "metrics lists lpips, which needs the file " in output
    assert backbone in output
    assert "set lpips_backbone to its path" in output
    assert not jobs(output, "infer")
    assert "Traceback" not in output


def test_a_reference_of_other_frames_ends_the_invocation_before_anything_is_rendered(studio):
    studio.add_frames(2, size=(40, 36))
    studio.add_run("good", grey_checkpoint(0.1))
    reference = add_reference(studio, numbers=[7, 8])

    output = studio.snakemake(expect=1, reference_dir=str(reference))

    assert f"{reference} " in output
    assert "belongs to a frame of the sequence" in output
    assert not jobs(output, "infer")
    assert "Traceback" not in output
