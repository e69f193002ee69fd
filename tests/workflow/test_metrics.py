"""Measuring as a part of the workflow: real snakemake, a real store, references whose answer is known."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.images import write_video
from helpers.networks import write_alexnet
from helpers.studio import LEVELS, Studio, jobs
from helpers.weights import grey, grey_checkpoint
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


def test_a_reference_measures_every_model_and_renders_nothing(compared: Studio):
    before = {name: compared.written(compared.runs[name]) for name in LEVELS}
    reference = str(add_reference(compared))

    output = compared.snakemake(reference_dir=reference)

    assert not jobs(output, "download")
    assert not jobs(output, "infer")
    assert {name: compared.written(compared.runs[name]) for name in LEVELS} == before
    assert "Nothing to be done" in compared.snakemake("-n", reference_dir=reference)
    for name, level in LEVELS.items():
        measured = compared.metadata(compared.runs[name])["measured"]
        assert measured["mean"]["psnr"] == pytest.approx(psnr(level), abs=1e-3)
        assert measured["mean"]["clipping"] < 0
    best = min(LEVELS, key=lambda name: abs(grey(LEVELS[name]) - 100))
    ranked = lines(compared.output / "compare" / "leaderboard.csv")
    assert ranked[0]["model"] == compared.folder(compared.runs[best]).name
    assert ranked[-1]["model"] == "(source)"
    assert len(lines(compared.output / "compare" / "metrics.csv")) == 4 * 4
    assert f"{ranked[0]['label']} ({ranked[0]['params']}) ranks first by PSNR on 4 frames: a tie" in output
    assert [line["measured"]["psnr"] for line in compared.summary()] == [
        compared.metadata(compared.runs[name])["measured"]["mean"]["psnr"] for name in LEVELS
    ]
    page = compared.output / "compare" / "page"
    assert "PSNR" in (page / "metrics.js").read_text()
    assert "@reference" in (page / "data.js").read_text()

    output = compared.snakemake()
    assert not jobs(output, "infer")
    assert compared.metadata(compared.runs["dark"])["measured"] is None
    assert "PSNR" not in (page / "metrics.js").read_text()


@pytest.mark.scenarios
def test_models_are_listed_in_the_order_of_a_metric_that_was_measured(compared: Studio):
    reference = str(add_reference(compared))
    ordered = {"reference_dir": reference, "order_by": "measured.psnr DESC"}

    output = compared.snakemake(**ordered)

    assert not jobs(output, "infer")
    best_first = sorted(LEVELS, key=lambda name: abs(grey(LEVELS[name]) - 100))
    assert [line["run_name"] for line in compared.summary()] == best_first
    page = (compared.output / "compare" / "page" / "data.js").read_text()
    places = [page.index(compared.runs[name]) for name in best_first]
    assert places == sorted(places)
    assert "Nothing to be done" in compared.snakemake("-n", **ordered)

    output = compared.snakemake(**ordered | {"order_by": "measured.psnr"})
    assert not jobs(output, "measure")
    assert [line["run_name"] for line in compared.summary()] == best_first[::-1]

    compared.snakemake(**ordered, max_runs=2)
    assert [line["run_name"] for line in compared.summary()] == best_first[:2]
    assert "Nothing to be done" in compared.snakemake("-n", **ordered, max_runs=2)


def test_only_what_is_new_is_measured(compared: Studio):
    reference = str(add_reference(compared))
    compared.snakemake(reference_dir=reference)

    new = compared.add_run("new", grey_checkpoint(-0.2))
    compared.client.set_tag(compared.runs["dark"], "dailies.training_frames", "0-1")
    output = compared.snakemake(reference_dir=reference)
    assert jobs(output, "infer") == jobs(output, "measure") == [compared.folder(new).name]
    assert not jobs(output, "baseline")
    rows = {line["run_name"]: line for line in lines(compared.output / "compare" / "leaderboard.csv")}
    assert next(iter(rows)) == "new"
    assert (rows["dark"]["training_frames"], rows["dark"]["frames"]) == ("2", "2")
    measured = compared.metadata(compared.runs["dark"])["measured"]
    assert (measured["training_frames"], set(measured["mean_training"])) == (2, set(measured["mean"]))

    add_reference(compared, level=120, numbers=[3])
    output = compared.snakemake(reference_dir=reference)
    assert not jobs(output, "infer")
    assert len(jobs(output, "measure")) == 4
    frames = [line for line in lines(compared.output / "compare" / "metrics.csv") if line["model"].startswith("dark")]
    expected = [psnr(LEVELS["dark"], level) for level in (100, 100, 100, 120)]
    assert [float(line["psnr"]) for line in frames] == pytest.approx(expected, abs=1e-3)


def measured_last(studio: Studio) -> list[str]:
    """How many of the four frames of each model the last job has measured."""
    logs = [log.read_text() for log in sorted((studio.output / "logs").glob("measure_*.log"))]
    return [count for log in logs for count in re.findall(r"(\d) of 4 frames to measure", log)]


@pytest.mark.scenarios
def test_another_pairing_measures_just_the_frames_whose_reference_changes(compared: Studio):
    for number, level in enumerate((100, 100, 100, 100, 130)):
        reference = str(add_reference(compared, level, [number]))
    output = compared.snakemake(reference_dir=reference)
    assert "reference: 4 frames paired by name" in output
    assert "1 frame of the reference not used: frame_000004.png" in output
    assert measured_last(compared) == ["4"] * 3

    output = compared.snakemake(reference_dir=reference, reference_offset=1)

    assert "reference: 4 frames paired by name, with reference_offset 1" in output
    assert not jobs(output, "infer")
    assert measured_last(compared) == ["1"] * 3
    frames = [line for line in lines(compared.output / "compare" / "metrics.csv") if line["model"].startswith("dark")]
    expected = [psnr(LEVELS["dark"], level) for level in (100, 100, 100, 130)]
    assert [float(line["psnr"]) for line in frames] == pytest.approx(expected, abs=1e-3)
    assert compared.metadata(compared.runs["dark"])["measured"]["reference"] == [
        "reference: 4 frames paired by name, with reference_offset 1",
        "1 frame of the reference not used: frame_000000.png",
    ]
    assert "with reference_offset 1" in (compared.output / "compare" / "page" / "data.js").read_text()
    assert "Nothing to be done" in compared.snakemake("-n", reference_dir=reference, reference_offset=1)


@pytest.mark.scenarios
def test_a_reference_may_be_a_video_and_a_template_may_name_its_files(compared: Studio):
    clip = compared.root / "clean.mkv"
    write_video(clip, [np.full((36, 40, 3), level, np.uint8) for level in (100, 110, 120, 130)])

    output = compared.snakemake("all", "metrics", reference_dir=str(clip), compare=False)

    assert "reference: 4 frames paired by number" in output
    assert not jobs(output, "infer")
    frames = [line for line in lines(compared.output / "compare" / "metrics.csv") if line["model"].startswith("dark")]
    expected = [psnr(LEVELS["dark"], level) for level in (100, 110, 120, 130)]
    assert [float(line["psnr"]) for line in frames] == pytest.approx(expected, abs=1e-3)
    assert "Nothing to be done" in compared.snakemake("-n", "all", "metrics", reference_dir=str(clip), compare=False)

    reference = str(add_reference(compared, 130, numbers=range(3), name="{}_gt.png"))
    asked = {"reference_dir": reference, "reference_name": "{number}_gt", "compare": False}
    output = compared.snakemake("all", "metrics", **asked)
    assert "reference: 3 of 4 frames paired by reference_name" in output
    assert measured_last(compared) == ["3"] * 3
    assert not (compared.state / "reference").exists()

    output = compared.snakemake(expect=1, **asked | {"reference_name": "{stem}_gt"})
    assert "the names would be frame_000000_gt.*, frame_000001_gt.*, frame_000002_gt.* and 1 more; correct" in output
    assert "Traceback" not in output


@pytest.mark.scenarios
def test_a_reference_or_a_metric_that_is_left_out_once_is_not_measured_again(compared: Studio):
    reference, table = str(add_reference(compared)), compared.output / "compare" / "metrics.csv"
    compared.snakemake("metrics", reference_dir=reference)
    assert measured_last(compared) == ["4"] * 3
    before = table.read_text()

    for left_out in ({"reference_dir": None}, {"reference_dir": reference, "metrics": ["clipping"]}):
        compared.snakemake("metrics", **left_out)
        assert "psnr" not in lines(table)[0]
        assert measured_last(compared) == ["0"] * 3

    output = compared.snakemake("metrics", reference_dir=reference)
    assert len(jobs(output, "measure")) == 3
    assert measured_last(compared) == ["0"] * 3
    assert table.read_text() == before


@pytest.mark.scenarios
def test_shards_are_measured_as_jobs_of_their_own_and_a_failed_model_is_left_out(studio: Studio):
    studio.add_frames(5, size=(40, 36))
    good, junk = studio.add_run("good", grey_checkpoint(0.1)), studio.add_run("junk", b"junk")
    reference = str(add_reference(studio, numbers=range(4), name="clean.{:04d}.png"))

    output = studio.snakemake(expect=1, compare=True, shard_frames=2, reference_dir=reference)

    folder = studio.folder(good).name
    assert [job for job in jobs(output, "measure") if job.startswith(folder)] == [f"{folder}/{n}" for n in "123"]
    assert "1 frame without a reference, not compared with one: frame_000004.png" in output
    assert "1 of 2 models failed: junk " in output
    ranked, broken, source = lines(studio.output / "compare" / "leaderboard.csv")
    assert (ranked["run_name"], ranked["rank"], ranked["frames"]) == ("good", "1", "4")
    assert (broken["run_name"], broken["rank"], broken["status"]) == ("junk", "", "load_failed")
    assert source["model"] == "(source)"
    assert studio.metadata(junk)["measured"]["notes"][0].startswith("not rendered: load_failed: ")
    assert len(studio.written(good)) == 5


def test_the_target_metrics_measures_without_a_reference_and_changes_nothing_else(compared: Studio):
    output = compared.snakemake("metrics")

    assert not jobs(output, "infer")
    assert not jobs(output, "collect")
    columns = lines(compared.output / "compare" / "leaderboard.csv")[0]
    assert {"flicker", "detail", "clipping"} <= columns.keys()
    assert "psnr" not in columns
    assert "Nothing to be done" in compared.snakemake("-n", "all", "metrics")


@pytest.mark.scenarios
def test_a_model_whose_measuring_fails_keeps_its_render_and_is_tried_again(compared: Studio):
    reference = str(add_reference(compared))
    damaged = compared.folder(compared.runs["light"]) / "frame_000002.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"x" * len(whole))

    output = compared.snakemake(reference_dir=reference)

    folder = damaged.parent.name
    assert f"{folder}: frame frame_000002.png cannot be read" in output
    measured = compared.metadata(compared.runs["light"])["measured"]
    assert (measured["frames"], measured["mean"]) == (0, {})
    assert len(lines(compared.output / "compare" / "leaderboard.csv")) == 4

    damaged.write_bytes(whole)
    output = compared.snakemake(reference_dir=reference)
    assert jobs(output, "measure") == [folder]
    assert not jobs(output, "infer")
    assert compared.metadata(compared.runs["light"])["measured"]["frames"] == 4


@pytest.mark.scenarios
def test_lpips_is_measured_with_the_backbone_that_is_named_and_again_with_another(compared: Studio):
    asked = {"metrics": ["auto", "lpips"], "rank_by": "lpips", "reference_dir": str(add_reference(compared))}
    backbone = write_alexnet(compared.root / "alexnet.pth")

    output = compared.snakemake(lpips_backbone=str(backbone), **asked)

    assert f"dailies: lpips_backbone {backbone} differs from the published alexnet-owt-7be5be79.pth: " in output
    assert "ranks first by LPIPS on 4 frames" in output
    assert not jobs(output, "infer")
    first = lines(compared.output / "compare" / "leaderboard.csv")
    assert [float(line["lpips"]) for line in first[:3]] == sorted(float(line["lpips"]) for line in first[:3])
    assert "Nothing to be done" in compared.snakemake("-n", lpips_backbone=str(backbone), **asked)

    write_alexnet(backbone, seed=1)
    output = compared.snakemake(lpips_backbone=str(backbone), **asked)
    assert len(jobs(output, "measure")) == 3
    assert not jobs(output, "infer")
    second = {line["model"]: line for line in lines(compared.output / "compare" / "leaderboard.csv")}
    assert all(second[line["model"]]["lpips"] != line["lpips"] for line in first)
    assert all(second[line["model"]]["psnr"] == line["psnr"] for line in first)


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (0, "metrics lists lpips, which needs the file "),
        (1000, "is damaged: it is cut short"),
    ],
)
def test_a_backbone_that_cannot_be_used_ends_the_invocation_before_anything_is_rendered(studio, kept, reason):
    studio.add_frames(2, size=(40, 36))
    studio.add_run("good", grey_checkpoint(0.1))
    backbone = write_alexnet(studio.root / "alexnet.pth")
    backbone.write_bytes(backbone.read_bytes()[:kept])
    if not kept:
        backbone.unlink()

    output = studio.snakemake(
        expect=1, compare=True, metrics="lpips", reference_dir=str(add_reference(studio)), lpips_backbone=str(backbone)
    )

    assert reason in output
    assert str(backbone) in output
    assert "set lpips_backbone to its path" in output
    assert not jobs(output, "infer")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("place", "reason"),
    [("gone", "does not exist; set reference_dir to"), ("reference", "belongs to a frame of the sequence")],
)
def test_a_reference_that_cannot_be_used_ends_the_invocation_before_anything_is_rendered(studio, place, reason):
    studio.add_frames(2, size=(40, 36))
    studio.add_run("good", grey_checkpoint(0.1))
    add_reference(studio, numbers=[7, 8])

    output = studio.snakemake(expect=1, compare=True, reference_dir=str(studio.root / place))

    assert f"{studio.root / place} " in output
    assert reason in output
    assert not jobs(output, "infer")
    assert "Traceback" not in output
