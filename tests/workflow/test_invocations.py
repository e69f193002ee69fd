"""The promises of the workflow, kept by real snakemake over a real MLflow store."""

import hashlib
import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from dailies.core.typed import to_json
from dailies.frames import image
from dailies.models.signature import Signature
from helpers.images import write_frame, write_video
from helpers.json_files import strict_json
from helpers.studio import LEVELS, NAMES, all_written, jobs, kill_group, only
from helpers.weights import grey, grey_checkpoint, textured_checkpoint


def contents(folder: Path) -> dict[str, bytes]:
    """Read every file of a model's folder but its metadata, hidden files too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "metadata.json"}


def test_every_model_renders_every_frame(rendered):
    for name, level in LEVELS.items():
        folder = rendered.folder(rendered.runs[name])
        assert folder.name == f"{name}_20ep_loss0.2500_{rendered.runs[name][:8]}"
        assert sorted(path.name for path in folder.iterdir()) == [*NAMES, "metadata.json"]
        assert rendered.levels(rendered.runs[name]) == [grey(level)] * 4
    assert not list(rendered.state.glob("weights/*/artifact"))
    (skipped,) = strict_json(rendered.state / "skipped.json")
    assert (skipped["run_name"], skipped["reason"]) == ("empty", "it holds no model; its artifacts: none")


def test_metadata_and_summary_are_strict_json_with_their_fields(rendered):
    run_id = rendered.runs["dark"]
    run = rendered.client.get_run(run_id)
    about = rendered.metadata(run_id)
    render, versions = about["render"], about["render"].pop("versions")
    seconds, fps = render.pop("seconds"), render.pop("fps")
    weights = next((rendered.root / "artifacts" / run_id).rglob("*.pth"))

    assert about == {
        "run_id": run_id,
        "run_name": "dark",
        "architecture": "unet",
        "epoch": 20,
        "train_loss": 0.25,
        "val_loss": 0.125,
        "checkpoint": {"epoch": 10, "train_loss": 0.5, "val_loss": None},
        "status": "FINISHED",
        "start_time": run.info.start_time,
        "experiment": "exp",
        "params": {"kind": "dark", "model.architecture": "UNet", "training.epochs": "20"},
        "metrics": {"lr/max": None, "train/loss": 0.25, "val/loss": 0.125, "val/psnr": None},
        "tags": {},
        "datasets": [],
        "measured": None,
        "not_chosen": [],
        "render": {
            "status": "success",
            "error": None,
            "attempt": 1,
            "frames": 4,
            "device": "cpu",
            "precision": "fp32",
            "parity": None,
            "tiled": False,
            "tile_size": None,
            "overlap": None,
            "compile_seconds": None,
            "autotuned": False,
            "batch": 1,
        },
        "artifact": {
            "uri": run.info.artifact_uri,
            "path": "checkpoints/best_model_unet.pth",
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "size": weights.stat().st_size,
        },
        "input": {"digest": strict_json(rendered.state / "sequence.json")["digest"], "frames": 4, "skipped": 0},
        "network": {"builder": "dailies", "notes": [], "trust_pickle": False},
        "registered_model": None,
        "signature": json.loads(json.dumps(to_json(Signature(output_channels=3, scale=1)))),
    }
    assert seconds >= 0
    assert fps > 0
    assert set(versions) == {"dailies", "torch", "python"}
    assert rendered.summary() == [
        {
            "run_id": rendered.runs[name],
            "run_name": name,
            "architecture": "unet",
            "status": "success",
            "output_dir": str(rendered.folder(rendered.runs[name])),
            "epoch": 20,
            "train_loss": 0.25,
            "val_loss": number / 8,
            "frames": 4,
            "seconds": rendered.metadata(rendered.runs[name])["render"]["seconds"],
            "fps": rendered.metadata(rendered.runs[name])["render"]["fps"],
        }
        for number, name in enumerate(LEVELS, start=1)
    ]


def test_second_invocation_has_nothing_to_do(rendered):
    assert "Nothing to be done" in rendered.snakemake("-n")


def test_a_setting_that_changes_no_pixel_renders_nothing(rendered):
    card = ("--cores", "1", "--resources", "gpu=1")

    assert "Nothing to be done" in rendered.snakemake(*card, "-n", "--config", "device=auto", "trust_code=true")


@pytest.mark.scenarios
def test_a_video_is_rendered_once_and_lost_frames_of_it_are_decoded_again(rendered):
    rendered.config["run_ids"] = rendered.runs["dark"]
    clip = rendered.root / "clip.mkv"
    write_video(clip, [np.full((6, 8, 3), number, np.uint8) for number in range(3)])
    names = [f"clip_{number:06d}.png" for number in range(3)]

    assert jobs(rendered.snakemake(input_dir=str(clip)), "infer") == only(rendered, "dark")
    assert set(names) <= set(rendered.written(rendered.runs["dark"]))
    assert "Nothing to be done" in rendered.snakemake(input_dir=str(clip))

    before = rendered.written(rendered.runs["dark"])
    (rendered.folder(rendered.runs["dark"]) / names[1]).unlink()
    shutil.rmtree(rendered.state / "video")
    rendered.snakemake(input_dir=str(clip))
    after = rendered.written(rendered.runs["dark"])
    assert [name for name in after if after[name] != before[name]] == [names[1]]


def test_another_output_format_renders_every_frame_to_it(rendered):
    rendered.snakemake(output_format="exr", run_ids=rendered.runs["dark"])

    folder = rendered.folder(rendered.runs["dark"])
    assert {path.name for path in folder.glob("*.exr")} == {name.replace(".png", ".exr") for name in NAMES}
    pixels = image.decode((folder / "frame_000000.exr").read_bytes(), "frame_000000.exr").pixels
    np.testing.assert_allclose(pixels, (math.tanh(LEVELS["dark"]) + 1) / 2, atol=1e-3)


def test_one_new_run_renders_only_that_model(rendered):
    before = all_written(rendered)
    new = rendered.add_run("new", grey_checkpoint(0.9))

    output = rendered.snakemake()

    assert jobs(output, "download") == jobs(output, "infer") == only(rendered, "new")
    assert rendered.levels(new) == [grey(0.9)] * 4
    assert [line["run_name"] for line in rendered.summary()] == [*LEVELS, "new"]
    assert all_written(rendered) == before


def test_a_changed_artifact_renders_its_model_again(rendered):
    before = all_written(rendered)
    old = rendered.metadata(rendered.runs["dark"])["artifact"]
    rendered.log_checkpoint(rendered.runs["dark"], grey_checkpoint(-0.9))
    rendered.log_checkpoint(rendered.runs["light"], grey_checkpoint(0.9), "checkpoints/best_model_v2.pth")

    output = rendered.snakemake()

    assert jobs(output, "infer") == only(rendered, "dark", "light")
    assert rendered.levels(rendered.runs["dark"]) == [grey(-0.9)] * 4
    assert rendered.levels(rendered.runs["light"]) == [grey(0.9)] * 4
    assert rendered.written(rendered.runs["middle"]) == before["middle"]
    new = rendered.metadata(rendered.runs["dark"])["artifact"]
    assert (new["size"], new["path"]) == (old["size"], old["path"])
    assert new["sha256"] != old["sha256"]
    assert rendered.metadata(rendered.runs["light"])["not_chosen"] == ["checkpoints/best_model_unet.pth"]


def test_an_unrelated_metric_or_tag_renders_nothing(rendered):
    before = all_written(rendered)
    run_id = rendered.runs["dark"]
    rendered.client.log_metric(run_id, "val/loss", 0.0625)
    rendered.client.log_metric(run_id, "train/loss", 0.125)
    rendered.client.set_tag(run_id, "note", "the director likes it")

    output = rendered.snakemake()

    assert not jobs(output, "download")
    assert not jobs(output, "infer")
    assert all_written(rendered) == before
    assert rendered.metadata(run_id)["tags"] == {"note": "the director likes it"}
    assert rendered.summary()[0]["val_loss"] == 0.0625


def test_a_run_that_left_the_selection_keeps_its_frames(rendered):
    before = all_written(rendered)
    rendered.client.delete_run(rendered.runs["dark"])

    output = rendered.snakemake(filter="params.kind != 'middle'")

    assert [line["run_name"] for line in rendered.summary()] == ["light"]
    gone = ", ".join(only(rendered, "dark", "middle"))
    assert f"No longer selected, their frames stay where they are: {gone}" in output
    reasons = {run["run_name"]: run["reason"] for run in strict_json(rendered.state / "skipped.json")}
    assert reasons["dark"] == "it was deleted"
    assert reasons["middle"] == "the filter params.kind != 'middle' leaves it out"

    rendered.client.restore_run(rendered.runs["dark"])
    output = rendered.snakemake()

    assert not jobs(output, "infer")
    assert [line["run_name"] for line in rendered.summary()] == list(LEVELS)
    assert all_written(rendered) == before


def test_nine_added_frames_and_a_changed_one_are_all_that_is_rendered(rendered):
    before = all_written(rendered)
    rendered.add_frames(9, start=4, size=(40, 36))
    write_frame(rendered.frames / NAMES[1], seed=77, size=(48, 20))
    os.utime(rendered.frames / NAMES[0])

    rendered.snakemake()

    for name, level in LEVELS.items():
        after = rendered.written(rendered.runs[name])
        assert len(after) == 13
        assert [frame for frame in NAMES if after[frame] != before[name][frame]] == [NAMES[1]]
        assert rendered.levels(rendered.runs[name]) == [grey(level)] * 13
    assert [line["frames"] for line in rendered.summary()] == [13, 13, 13]


def test_deleted_frames_and_folders_alone_are_rendered_again(rendered):
    before = all_written(rendered)
    (rendered.folder(rendered.runs["dark"]) / NAMES[2]).unlink()
    shutil.rmtree(rendered.folder(rendered.runs["light"]))

    output = rendered.snakemake()

    assert jobs(output, "infer") == only(rendered, "dark", "light")
    after = all_written(rendered)
    assert [frame for frame in NAMES if after["dark"][frame] != before["dark"][frame]] == [NAMES[2]]
    assert list(after["light"]) == NAMES
    assert after["middle"] == before["middle"]
    assert [line["frames"] for line in rendered.summary()] == [4, 4, 4]


def test_a_setting_that_changes_pixels_renders_again(rendered):
    middle, light = rendered.runs["middle"], rendered.runs["light"]
    before = all_written(rendered)
    untiled = contents(rendered.folder(middle))
    tiles = ("tiled=true", "tile_size=32", "overlap=0")

    rendered.snakemake("--config", *tiles, f"run_ids={middle},{light}", "max_runs=1")

    after = all_written(rendered)
    assert all(after["middle"][frame] > before["middle"][frame] for frame in NAMES)
    assert contents(rendered.folder(middle)) == untiled
    render = rendered.metadata(middle)["render"]
    assert (render["tiled"], render["tile_size"], render["overlap"]) == (True, 32, 0)
    assert [line["run_name"] for line in rendered.summary()] == ["middle"]
    assert (after["dark"], after["light"]) == (before["dark"], before["light"])


LOADER = """
import torch
from dailies.models.architectures.catalog import ARCHITECTURES

def load(path):
    network = ARCHITECTURES["unet"](base_channels=1)
    for weights in network.parameters():
        weights.data.zero_()
    network.outc.bias.data.fill_({factor} * float(path.read_text()))
    return network
"""


@pytest.mark.scenarios
def test_editing_a_loaders_code_renders_its_models_alone_again(studio):
    studio.add_frames(2)
    plain = studio.add_run("plain", grey_checkpoint(0.3))
    exotic = studio.add_run("exotic", b"0.25", path="exotic.ckpt", params={})
    studio.config["python_path"] = [str(studio.root)]
    (studio.root / "loaders.py").write_text(LOADER.format(factor=1))

    studio.snakemake(expect=1)
    before = studio.written(plain)
    assert studio.metadata(exotic)["render"]["status"] == "load_failed"

    studio.config["model_loader"] = {"exotic_*": "loaders:load"}
    studio.snakemake()
    assert studio.levels(exotic) == [grey(0.25)] * 2
    about = studio.metadata(exotic)
    assert (about["network"]["builder"], about["architecture"]) == ("loaders:load", "unet")
    assert "Nothing to be done" in studio.snakemake("-n")

    (studio.root / "loaders.py").write_text(LOADER.format(factor=2))
    studio.snakemake()
    assert studio.levels(exotic) == [grey(0.5)] * 2
    assert studio.written(plain) == before


def test_broken_models_fail_alone_and_are_retried(studio):
    studio.add_frames(2)
    good = studio.add_run("good", grey_checkpoint(0.3))
    junk = studio.add_run("junk", b"junk")
    torn = studio.add_run("torn", grey_checkpoint(0.3))
    endless = studio.add_run("endless", grey_checkpoint(math.nan))
    weights = next((studio.root / "artifacts" / torn).rglob("*.pth"))
    data = bytearray(weights.read_bytes())
    data[data.index(b"\x00" * 64) + 32] ^= 1
    weights.write_bytes(data)

    output = studio.snakemake(expect=1)

    reasons = {
        "junk": ("load_failed", "best_model_unet.pth is not a checkpoint that torch wrote: it begins with 'junk'"),
        "torn": ("download_failed", "checkpoints/best_model_unet.pth is damaged"),
        "endless": ("error", "output is not finite at frame frame_000000.png"),
    }
    lines = {line["run_name"]: line for line in studio.summary()}
    assert list(lines) == ["good", "junk", "torn", "endless"]
    assert (lines["good"]["status"], lines["good"]["output_dir"]) == ("success", str(studio.folder(good)))
    for name, (status, reason) in reasons.items():
        assert lines[name]["status"] == status
        assert lines[name]["error"].startswith(reason)
        assert "output_dir" not in lines[name]
    assert studio.levels(good) == [grey(0.3)] * 2
    (told,) = [line for line in output.splitlines() if "models failed" in line]
    failed = "; ".join(
        f"{name} ({studio.runs[name][:8]}) {lines[name]['status']}: {lines[name]['error']}" for name in reasons
    )
    assert told == f"dailies: 3 of 4 models failed: {failed}. The next invocation tries them again"
    assert "Traceback" not in output

    before = studio.written(good)
    studio.log_checkpoint(junk, grey_checkpoint(0.1))
    studio.log_checkpoint(torn, grey_checkpoint(0.2))
    output = studio.snakemake(expect=1)

    assert jobs(output, "infer") == sorted(studio.folder(run).name for run in (junk, torn, endless))
    assert [line["status"] for line in studio.summary()] == ["success", "success", "success", "error"]
    assert [studio.metadata(run)["render"]["attempt"] for run in (good, endless)] == [1, 2]
    assert (studio.levels(junk), studio.levels(torn)) == ([grey(0.1)] * 2, [grey(0.2)] * 2)
    assert studio.written(good) == before
    assert "dailies: 1 of 4 models failed: endless " in output


@pytest.mark.scenarios
def test_an_alias_that_moves_renders_only_the_model_it_names_now(rendered):
    dark, middle, light = (rendered.runs[name] for name in LEVELS)
    rendered.client.create_registered_model("net")
    for run in (dark, middle):
        rendered.client.create_model_version("net", f"runs:/{run}/checkpoints/best_model_unet.pth", run_id=run)
    rendered.client.set_registered_model_alias("net", "champion", "1")
    selected = {"models": "net@champion", "run_ids": light}

    output = rendered.snakemake(**selected)
    assert jobs(output, "infer") == []
    assert [line["run_name"] for line in rendered.summary()] == ["dark", "light"]
    assert rendered.metadata(dark)["registered_model"] == {"name": "net", "version": "1", "alias": "champion"}
    assert f"No longer selected, their frames stay where they are: {rendered.folder(middle).name}" in output
    assert "Nothing to be done" in rendered.snakemake("-n", **selected)

    rendered.log_checkpoint(middle, grey_checkpoint(0.2), "registered/other.pth")
    rendered.client.create_model_version("net", f"runs:/{middle}/registered", run_id=middle)
    rendered.client.set_registered_model_alias("net", "champion", "3")
    output = rendered.snakemake(**selected)

    (new,) = jobs(output, "infer")
    assert new == f"{rendered.folder(middle).name}_net-3"
    assert [line["run_name"] for line in rendered.summary()] == ["middle", "light"]


def test_a_frame_that_was_only_touched_downloads_nothing(rendered):
    before = all_written(rendered)
    os.utime(rendered.frames / NAMES[0])

    output = rendered.snakemake()

    assert jobs(output, "sequence") == [""]
    assert jobs(output, "download") == jobs(output, "infer") == jobs(output, "collect") == []
    assert all_written(rendered) == before
    assert "Nothing to be done" in rendered.snakemake("-n")


@pytest.mark.scenarios
def test_another_split_renders_nothing_and_in_shards_just_what_is_missing_is_rendered(rendered):
    before, figures = all_written(rendered), rendered.metadata(rendered.runs["dark"])["render"]
    dark = only(rendered, "dark")[0]
    frames = contents(rendered.output / dark)

    output = rendered.snakemake(shard_frames=2)

    assert jobs(output, "infer") == [f"{name}/{shard}" for name in only(rendered, *LEVELS) for shard in "12"]
    assert all_written(rendered) == before
    assert contents(rendered.output / dark) == frames
    render = rendered.metadata(rendered.runs["dark"])["render"]
    assert (render["status"], render["attempt"], render["frames"]) == ("success", 1, figures["frames"])
    assert "Nothing to be done" in rendered.snakemake("-n", shard_frames=2)

    (rendered.output / dark / NAMES[2]).unlink()

    output = rendered.snakemake(shard_frames=2)

    assert (jobs(output, "download"), jobs(output, "infer")) == ([dark], [f"{dark}/2"])
    assert "2 frames, 1 of them to render" in (rendered.output / "logs" / f"infer_{dark}_2.log").read_text()
    assert not list(rendered.state.glob("weights/*/artifact"))
    after = all_written(rendered)
    assert [name for name in NAMES if after["dark"][name] != before["dark"][name]] == [NAMES[2]]
    assert {name: after[name] for name in ("middle", "light")} == {name: before[name] for name in ("middle", "light")}

    rendered.add_frames(1, start=4, size=(40, 36))
    write_frame(rendered.frames / NAMES[1], seed=77, size=(40, 36))

    output = rendered.snakemake(shard_frames=2)

    assert jobs(output, "infer") == [f"{name}/{shard}" for name in only(rendered, *LEVELS) for shard in "13"]
    assert [line["frames"] for line in rendered.summary()] == [5, 5, 5]
    now = rendered.written(rendered.runs["dark"])
    assert [name for name in NAMES if now[name] != after["dark"][name]] == [NAMES[1]]


def test_a_killed_shard_resumes_and_all_bytes_are_those_of_a_whole_render(studio, tmp_path_factory):
    studio.config["output_dir"] = str(tmp_path_factory.mktemp("other disk") / "results")
    studio.add_frames(120, size=(64, 48))
    killed = studio.add_run("killed", textured_checkpoint(1))

    process = studio.start(shard_frames=60)
    while len(list(studio.output.glob("*/frame_*.png"))) < 90:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    kill_group(process)
    process.stdout.close()
    manifests = list((studio.state / "frames" / studio.folder(killed).name).glob("*.jsonl"))
    lines = [line for path in manifests for line in path.read_text().splitlines()[:-1]]
    done = {json.loads(line)["output"] for line in lines}
    before = studio.written(killed)
    assert 80 < len(done) < 120
    (studio.folder(killed) / ".frame_000100.png.0123abcd.tmp").write_bytes(b"half a fra")

    studio.snakemake("--unlock")
    studio.snakemake(shard_frames=60)
    undisturbed = studio.add_run("undisturbed", textured_checkpoint(1))
    studio.snakemake()

    after = studio.written(killed)
    assert {name for name in done if after[name] != before[name]} == set()
    frames = contents(studio.folder(undisturbed))
    assert contents(studio.folder(killed)) == frames
    assert len(set(frames.values())) == 120
