"""A knockout: all models render a few frames, and only the finalists all of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
from helpers.json_files import strict_json
from helpers.shows import received
from helpers.studio import Studio, jobs
from helpers.weights import grey_checkpoint
from PIL import Image

COUNT, FIRST = 14, 12
LEVELS = {"best": -0.3, "second": 0.0, "third": 0.3, "junk": None}
"""The models in the order of their PSNR against a dark reference."""


def rendered(studio: Studio) -> dict[str, int]:
    """The number of rendered frames of each model."""
    return {name: len(studio.written(run)) for name, run in studio.runs.items()}


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as file:
        return {row["run_name"]: row for row in csv.DictReader(file)}


def downloaded(studio: Studio, run: str, job: str) -> str:
    return studio.layout.log(f"{job}_{studio.folder(run).name}").read_text()


@pytest.fixture
def asked(studio: Studio) -> dict:
    """Frames, a reference, four models of which one is junk, and the settings of a knockout."""
    studio.add_frames(COUNT, size=(40, 36))
    folder = studio.root / "reference"
    folder.mkdir()
    for number in range(COUNT):
        Image.fromarray(np.full((36, 40, 3), 40 + number % 3, np.uint8)).save(folder / f"frame_{number:06d}.png")
    for name, level in LEVELS.items():
        studio.add_run(name, b"junk" if level is None else grey_checkpoint(level))
    return {"reference_dir": str(folder), "knockout_frames": FIRST, "finalists": 1, "metrics": "psnr"}


def test_only_finalists_render_all_frames_and_more_of_them_just_the_rest(studio: Studio, asked: dict):
    output = studio.snakemake(expect=1, compare=True, **asked)

    assert rendered(studio) == {"best": COUNT, "second": FIRST, "third": FIRST, "junk": 0}
    assert "knockout by PSNR on 12 frames: 1 finalist, 2 models knocked out, 1 failed; best" in output
    decision = {each["model"]: each for each in strict_json(studio.layout.knockout)["models"]}
    best, second = (studio.folder(studio.runs[name]).name for name in ("best", "second"))
    assert (decision[best]["rank"], decision[second]["rank"], decision[second]["is_finalist"]) == (1, 2, False)
    assert "rank 2 of 3 by PSNR on 12 frames" in decision[second]["reason"]
    about = studio.metadata(studio.runs["second"])
    assert (about["render"]["frames"], about["verdict"], about["rank"]) == (FIRST, "knocked out", 2)
    assert about["knocked_out"] == decision[second]["reason"]
    assert "knocked_out" not in studio.metadata(studio.runs["best"])
    table = rows(studio.layout.leaderboard)
    assert [(each["rank"], each["frames"], each["verdict"]) for each in list(table.values())[:3]] == [
        ("1", str(COUNT), "best"),
        ("2", str(FIRST), "knocked out"),
        ("3", str(FIRST), "knocked out"),
    ]
    page = received((studio.layout.page_folder / "data.js").read_bytes())
    shown = {model["name"]: model for model in page["models"]}
    assert shown["second"]["knocked_out"] == decision[second]["reason"]
    pictures = {picture["id"]: picture for picture in page["pictures"]}
    assert (len(pictures[second]["missing"]), len(pictures[best]["missing"])) == (COUNT - FIRST, 0)
    assert "the files are still on the disk" in downloaded(studio, studio.runs["best"], "download")
    assert not list(studio.state.glob("weights/*/artifact"))
    again = studio.snakemake("-n", compare=True, **asked)
    assert {*jobs(again, "infer")} == {f"{studio.folder(studio.runs['junk']).name}/knockout"}

    studio.config["run_ids"] = [run for name, run in studio.runs.items() if name != "junk"]
    before = studio.written(studio.runs["second"])
    new = studio.add_run("new", grey_checkpoint(-0.4))
    studio.config["run_ids"].append(new)
    more = asked | {"finalists": 3}
    output = studio.snakemake(compare=True, **more)
    assert rendered(studio) == {"new": COUNT, "best": COUNT, "second": COUNT, "third": FIRST, "junk": 0}
    assert studio.written(studio.runs["second"]).items() >= before.items()
    # the new model renders its first round, and then all frames, as does the model that is now a finalist
    assert jobs(output, "infer") == sorted([second, studio.folder(new).name, f"{studio.folder(new).name}/knockout"])
    assert "Nothing to be done" in studio.snakemake("-n", compare=True, **more)
    measured = studio.snakemake("-n", "metrics", "-R", "leaderboard", "collect", compare=True, **more)
    assert "<TBD>" not in measured  # a job with such an input runs without its files
