"""Downloads in the workflow: beside renders, a bounded number of models on the disk, and only where one is due."""

import os
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import REPOSITORY
from helpers.studio import LEVELS, Studio, jobs
from helpers.weights import grey, grey_checkpoint

STARTED = re.compile(r"^(?:local)?rule (\w+):\n(?:    .+\n)*?    jobid: (\d+)\n", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+) ", re.MULTILINE)


def spans(output: str, rule: str) -> list[tuple[int, int]]:
    """Give where in Snakemake's output each job of a rule starts and ends, in order."""
    ends = {match[1]: match.start() for match in FINISHED.finditer(output)}
    return sorted((match.start(), ends[match[2]]) for match in STARTED.finditer(output) if match[1] == rule)


def test_a_download_runs_beside_a_render_that_has_the_only_core(studio: Studio):
    studio.add_frames(2)
    for name, level in LEVELS.items():
        studio.add_run(name, grey_checkpoint(level))

    output = studio.snakemake("--cores", "1", "--resources", "downloads=1")

    downloads, renders = spans(output, "download"), spans(output, "infer")
    assert len(downloads) == len(renders) == 3
    assert all(end <= start for (_, end), (start, _) in pairwise(downloads))
    assert all(end <= start for (_, end), (start, _) in pairwise(renders))
    assert any(start < other < end for start, end in renders for other, _ in downloads) or any(
        start < other < end for start, end in downloads for other, _ in renders
    )


@pytest.mark.scenarios
def test_no_more_models_lie_on_the_disk_than_may(studio: Studio):
    studio.add_frames(2)
    for number in range(5):
        studio.add_run(f"run{number}", grey_checkpoint(number / 10))

    output = studio.snakemake("--cores", "1", models_on_disk=2)

    assert len(jobs(output, "infer")) == 5
    waited = [path.read_text() for path in (studio.output / "logs").glob("download_*.log")]
    assert any("2 models are on the disk; waiting until one of them is rendered" in text for text in waited)
    assert not any("no frame was written" in text for text in waited)
    assert [studio.levels(run)[0] for run in studio.runs.values()] == [grey(number / 10) for number in range(5)]
    assert not list(studio.state.glob("weights/*/artifact"))


def test_weights_that_were_deleted_are_fetched_by_the_next_invocation(rendered: Studio):
    run_id = rendered.runs["dark"]
    model = rendered.folder(run_id).name
    receipt = rendered.state / "weights" / model / "download.json"
    assert not (receipt.parent / "artifact").exists()
    # as an invocation leaves it that was killed between a download and its render, after which someone made room
    shutil.rmtree(rendered.folder(run_id))
    for folder in ("renders", "attempts", "frames"):
        shutil.rmtree(rendered.state / folder / model)

    output = rendered.snakemake(expect=1)

    assert f"download_failed: {receipt.parent}/artifact was deleted; the next invocation fetches it again" in output
    output = rendered.snakemake()

    assert jobs(output, "infer") == [model]
    assert rendered.levels(run_id) == [grey(LEVELS["dark"])] * 4
    assert "Nothing to be done" in rendered.snakemake("-n")


def test_a_newer_script_of_the_download_fetches_nothing(rendered: Studio, tmp_path: Path):
    copy = tmp_path / "repository"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(".git", ".venv", "tests", ".snakemake", "output*"))
    os.utime(copy / "scripts" / "download.py")

    output = rendered.snakemake("-s", str(copy / "Snakefile"))

    assert jobs(output, "infer") == []
    for name in jobs(output, "download"):
        assert (
            "no shard is due, so nothing is downloaded"
            in (rendered.output / "logs" / f"download_{name}.log").read_text()
        )
    assert not list(rendered.state.glob("weights/*/artifact"))


@pytest.mark.scenarios
def test_the_next_file_is_rendered_where_the_first_holds_no_network(studio: Studio):
    studio.add_frames(2)
    run_id = studio.add_run("gan", {"state": {}, "param_groups": []}, path="best.pth")
    studio.log_checkpoint(run_id, grey_checkpoint(0.3), path="checkpoints/epoch_2.pth")

    output = studio.snakemake("--cores", "1")

    assert studio.levels(run_id) == [grey(0.3)] * 2
    about = studio.metadata(run_id)
    assert about["artifact"]["path"] == "checkpoints/epoch_2.pth"
    assert [each["path"] for each in about["artifact"]["tried"]] == ["best.pth"]
    assert about["not_chosen"] == ["best.pth"]
    assert f"1 model rendered from another file than the preferred one: gan ({run_id[:8]}): best.pth was" in output
    assert "Nothing to be done" in studio.snakemake("-n")
    before = studio.written(run_id)

    studio.log_checkpoint(run_id, grey_checkpoint(0.1), path="optimizer.pth")
    studio.add_frames(3)
    studio.snakemake("--cores", "1")

    assert studio.levels(run_id) == [grey(0.3)] * 3
    assert {name: studio.written(run_id)[name] for name in before} == before


def test_another_checkpoint_beside_the_rendered_one_fetches_nothing(studio: Studio):
    studio.add_frames(2)
    run_id = studio.add_run("growing", grey_checkpoint(0.3), path="best.pth")
    studio.snakemake("--cores", "1")
    before = studio.written(run_id)

    studio.log_checkpoint(run_id, grey_checkpoint(0.5), path="epoch_9.pth")
    output = studio.snakemake("--cores", "1")

    assert jobs(output, "download") == jobs(output, "infer") == []
    assert studio.written(run_id) == before
    assert studio.metadata(run_id)["not_chosen"] == ["epoch_9.pth"]
    assert "Nothing to be done" in studio.snakemake("-n")
