"""Rank and verdict in the workflow: they reach every file that shows them, and nothing runs again for them."""

import csv

import numpy as np
import pytest
from helpers.shows import received
from helpers.studio import LEVELS, Studio, jobs
from helpers.weights import grey_checkpoint
from PIL import Image

COSTLY = ("download", "infer", "measure", "baseline")


@pytest.fixture
def ranked(compared: Studio) -> Studio:
    """The studio with a reference in its configuration."""
    folder = compared.root / "reference"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.full((36, 40, 3), 100, np.uint8)).save(folder / f"frame_{number:06d}.png")
    compared.config["reference_dir"] = str(folder)
    return compared


def ranks(studio: Studio) -> dict[str, int]:
    """The rank of every model by its run's name; fails where table, summary, metadata and page differ."""
    with (studio.output / "compare" / "leaderboard.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rank"]]
    found = {row["run_name"]: (int(row["rank"]), row["verdict"]) for row in rows}
    assert {line["run_name"]: (line["rank"], line["verdict"]) for line in studio.summary()} == found
    about = [studio.metadata(run_id) for run_id in studio.runs.values() if list(studio.output.glob(f"*{run_id[:8]}"))]
    assert {each["run_name"]: (each["rank"], each["verdict"]) for each in about} == found
    page = (studio.output / "compare" / "page" / "data.js").read_text()
    assert all(f'\\"rank\\":{rank},\\"verdict\\":\\"{verdict}\\"' in page for rank, verdict in found.values())
    return {name: rank for name, (rank, _) in found.items()}


def test_a_new_run_changes_the_ranks_of_all_and_only_itself_is_rendered_measured_and_collected(ranked: Studio):
    ranked.snakemake()
    assert ranks(ranked) == {"middle": 2, "dark": 1, "light": 3}
    assert "Nothing to be done" in ranked.snakemake("-n")

    new = ranked.add_run("new", grey_checkpoint(-0.2))
    output = ranked.snakemake()

    assert [jobs(output, rule) for rule in ("infer", "measure", "collect")] == [[ranked.folder(new).name]] * 3
    assert ranks(ranked) == {"new": 1, "dark": 2, "middle": 3, "light": 4}
    assert "Nothing to be done" in ranked.snakemake("-n")


def test_what_a_partial_invocation_left_is_reported_never_mixed_and_completed_without_rendering(ranked: Studio):
    ranked.snakemake()
    before = ranks(ranked)
    ranked.client.log_metric(ranked.runs["dark"], "val/loss", 0.5)

    # as if the invocation had been killed before the summary
    ranked.snakemake(str(ranked.folder(ranked.runs["dark"]) / "metadata.json"))
    assert "rank" not in ranked.metadata(ranked.runs["dark"])
    output = ranked.snakemake("metrics")
    assert not any(jobs(output, rule) for rule in (*COSTLY, "collect"))
    assert ranks(ranked) == before

    ranked.add_run("new", grey_checkpoint(-0.2))
    extras = ranked.output / "compare" / "page" / "extras.js"
    output = ranked.snakemake(str(ranked.output / "compare" / "leaderboard.csv"))
    assert "the page does not show leaderboard.csv as it is now" in output
    assert received(extras.read_bytes())["newer"] == ["leaderboard.csv"]
    output = ranked.snakemake("--report", str(ranked.root / "report.html"), expect=1)
    assert "leaderboard.csv" in output
    assert "Traceback" not in output
    assert not (ranked.root / "report.html").exists()

    output = ranked.snakemake()
    assert not any(jobs(output, rule) for rule in COSTLY)
    assert ranks(ranked).keys() == {*LEVELS, "new"}
    assert received(extras.read_bytes())["newer"] == []
