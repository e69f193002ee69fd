"""A quick look: the setting ``frames`` renders some frames of a sequence, and the others later."""

import csv
from pathlib import Path

import numpy as np
from helpers.json_files import strict_json
from helpers.shows import received
from helpers.studio import Studio, jobs
from helpers.weights import grey, grey_checkpoint
from PIL import Image


def add_reference(studio: Studio, count: int) -> str:
    folder = studio.root / "reference"
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((36, 40, 3), 100, np.uint8)).save(folder / f"frame_{number:06d}.png")
    return str(folder)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_quick_look_renders_some_frames_and_all_afterwards_only_the_rest(studio: Studio):
    studio.add_frames(9, size=(40, 36))
    run = studio.add_run("a", grey_checkpoint(0.2))
    usual = {"compare": True, "reference_dir": add_reference(studio, 9)}
    contact = ["frame_000001", "frame_000004"]

    output = studio.snakemake(**usual, frames=3, contact_frames=contact)

    chosen = [f"frame_{number:06d}.png" for number in (0, 4, 8)]
    quick = studio.written(run)
    assert list(quick) == chosen
    assert "frames is 3: 3 of 9 frames" in output
    assert "3 of 9" in output.split("fps", 1)[1]
    assert "the contact sheet lacks frame_000001" in output
    assert "flicker is measured between neighbouring frames only: none of 3" in output
    about = studio.metadata(run)
    assert (about["input"]["frames"], about["input"]["chosen_from"]) == (3, 9)
    assert (studio.summary()[0]["frames"], studio.summary()[0]["frames_chosen_from"]) == (3, 9)
    data = received((studio.layout.page_folder / "data.js").read_bytes())
    assert (data["choice"], len(data["frames"])) == ("3 of 9 frames", 3)
    assert len(strict_json(studio.layout.sequence)["frames"]) == len(strict_json(studio.layout.scan.frames)) == 3
    assert len(rows(studio.layout.frame_table)) == 2 * 3
    assert "Nothing to be done" in studio.snakemake("-n", **usual, frames=3, contact_frames=contact)

    output = studio.snakemake(**usual)

    everything = studio.written(run)
    assert len(everything) == 9
    assert {name: everything[name] for name in chosen} == quick
    assert studio.levels(run) == [grey(0.2)] * 9
    log = studio.layout.log(f"measure_{studio.folder(run).name}_all").read_text()
    assert "8 of 9 frames to measure" in log  # two of the three lack their flicker only
    assert "chosen_from" not in studio.metadata(run)["input"]
    assert {row["flicker"] != "" for row in rows(studio.layout.frame_table)[1:9]} == {True}

    studio.snakemake(**usual, frames="0:9:2")

    folder = studio.folder(run).name
    assert studio.written(run) == everything
    assert "all frames are in place, so nothing is downloaded" in studio.layout.log(f"download_{folder}").read_text()
    assert "0 of 5 frames to measure" in studio.layout.log(f"measure_{folder}_all").read_text()
    assert studio.metadata(run)["render"]["frames"] == 5


def test_an_empty_slice_is_one_sentence_before_anything_is_rendered(studio: Studio):
    studio.add_frames(3)
    studio.add_run("a", grey_checkpoint(0.2))

    output = studio.snakemake(expect=1, frames="5:9")

    assert "frames is 5:9, which chooses none of the 3 frames of the sequence" in output
    assert not jobs(output, "download")
    assert "Traceback" not in output
