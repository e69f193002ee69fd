"""The promises of the workflow, kept by real snakemake over a real MLflow store."""

import hashlib
import json
import math
import os
import shutil
import time
from pathlib import Path

from dailies.core.typed import to_json
from dailies.models.signature import Signature
from helpers.images import write_frame
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
    seconds, fps, startup = render.pop("seconds"), render.pop("fps"), render.pop("startup_seconds")
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
    assert startup > 0
    assert set(versions) == {"dailies", "torch", "python"}
    assert rendered.summary() == [
        {
            "run_id": rendered.runs[name],
            "run_name": name,
            "architecture": "unet",
            "label": {"name": name, "params": f"kind {name}"},
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


def test_a_setting_that_changes_no_pixel_renders_nothing(rendered):
    card = ("--cores", "1", "--resources", "gpu=1")

    assert "Nothing to be done" in rendered.snakemake(*card, "-n", "--config", "device=auto", "trust_code=true")


def test_a_new_run_and_changed_artifacts_are_all_that_is_rendered(rendered):
    before = all_written(rendered)
    dark, middle, light = (rendered.runs[name] for name in LEVELS)
    old = rendered.metadata(dark)["artifact"]
    new = rendered.add_run("new", grey_checkpoint(0.9))
    rendered.log_checkpoint(dark, grey_checkpoint(-0.9))
    rendered.log_checkpoint(light, grey_checkpoint(0.9), "checkpoints/best_model_v2.pth")
    rendered.log_checkpoint(middle, grey_checkpoint(0.4), "checkpoints/epoch_9.pth")
    rendered.client.log_metric(middle, "val/loss", 0.0625)
    rendered.client.set_tag(middle, "note", "the director likes it")

    output = rendered.snakemake()

    assert jobs(output, "download") == jobs(output, "infer") == only(rendered, "dark", "light", "new")
    assert [rendered.levels(run) for run in (dark, light, new)] == [[grey(level)] * 4 for level in (-0.9, 0.9, 0.9)]
    assert [line["run_name"] for line in rendered.summary()] == [*LEVELS, "new"]
    assert rendered.written(middle) == before["middle"]
    assert rendered.metadata(middle)["tags"] == {"note": "the director likes it"}
    assert rendered.metadata(middle)["not_chosen"] == ["checkpoints/epoch_9.pth"]
    assert rendered.summary()[1]["val_loss"] == 0.0625
    about = rendered.metadata(dark)["artifact"]
    assert (about["size"], about["path"]) == (old["size"], old["path"])
    assert about["sha256"] != old["sha256"]
    assert rendered.metadata(light)["not_chosen"] == ["checkpoints/best_model_unet.pth"]


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


def test_deleted_frames_and_folders_are_rendered_again_and_frames_of_runs_that_are_left_out_stay(rendered):
    before = all_written(rendered)
    (rendered.folder(rendered.runs["dark"]) / NAMES[2]).unlink()
    shutil.rmtree(rendered.folder(rendered.runs["light"]))

    output = rendered.snakemake(filter="params.kind != 'middle'")

    assert jobs(output, "infer") == only(rendered, "dark", "light")
    after = all_written(rendered)
    assert [frame for frame in NAMES if after["dark"][frame] != before["dark"][frame]] == [NAMES[2]]
    assert list(after["light"]) == NAMES
    assert after["middle"] == before["middle"]
    assert [(line["run_name"], line["frames"]) for line in rendered.summary()] == [("dark", 4), ("light", 4)]
    gone = only(rendered, "middle")[0]
    assert f"No longer selected, their frames stay where they are: {gone}" in output


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
    (place,) = [number for number, line in enumerate(output.splitlines()) if "3 of 4 models failed" in line]
    causes = output.splitlines()[place + 1 : place + 4]
    assert causes == [f"  {name} {lines[name]['status']}: {lines[name]['error']}" for name in reasons]
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
    assert "\n  endless error: " in output[output.index("dailies: 1 of 4 models failed") :]


def test_a_frame_that_was_only_touched_downloads_nothing(rendered):
    before = all_written(rendered)
    os.utime(rendered.frames / NAMES[0])

    output = rendered.snakemake()

    assert jobs(output, "sequence") == [""]
    assert jobs(output, "download") == jobs(output, "infer") == jobs(output, "collect") == []
    assert all_written(rendered) == before


def test_another_split_renders_nothing_and_each_shard_is_rendered_and_measured_for_itself(rendered):
    rendered.config["run_ids"] = rendered.runs["dark"]
    before, figures = all_written(rendered), rendered.metadata(rendered.runs["dark"])["render"]
    dark = only(rendered, "dark")[0]
    frames = contents(rendered.output / dark)

    output = rendered.snakemake(shard_frames=2)

    assert jobs(output, "infer") == [f"{dark}/1", f"{dark}/2"]
    assert all_written(rendered) == before
    assert contents(rendered.output / dark) == frames
    render = rendered.metadata(rendered.runs["dark"])["render"]
    assert (render["status"], render["attempt"], render["frames"]) == ("success", 1, figures["frames"])

    (rendered.output / dark / NAMES[2]).unlink()
    shutil.copytree(rendered.frames, rendered.root / "clean")
    output = rendered.snakemake(shard_frames=2, reference_dir=str(rendered.root / "clean"), metrics="psnr")

    assert (jobs(output, "download"), jobs(output, "infer")) == ([dark], [f"{dark}/2"])
    assert "2 frames, 1 of them to render" in (rendered.output / "logs" / f"infer_{dark}_2.log").read_text()
    assert not list(rendered.state.glob("weights/*/artifact"))
    after = all_written(rendered)
    assert [name for name in NAMES if after["dark"][name] != before["dark"][name]] == [NAMES[2]]
    assert jobs(output, "measure") == [f"{dark}/1", f"{dark}/2"]
    assert rendered.metadata(rendered.runs["dark"])["measured"]["frames"] == 4


def test_a_killed_shard_resumes_and_all_bytes_are_those_of_a_whole_render(studio, tmp_path_factory):
    studio.config["output_dir"] = str(tmp_path_factory.mktemp("other disk") / "results")
    studio.add_frames(120, size=(64, 48))
    killed = studio.add_run("killed", textured_checkpoint(1))

    process = studio.start(shard_frames=60)
    while len(list(studio.output.glob("*/frame_*.png"))) < 65:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    kill_group(process)
    process.stdout.close()
    manifests = list((studio.state / "frames" / studio.folder(killed).name).glob("*.jsonl"))
    lines = [line for path in manifests for line in path.read_text().splitlines()[:-1]]
    done = {json.loads(line)["output"] for line in lines}
    before = studio.written(killed)
    assert 60 < len(done) < 120
    lost = next(path.name for path in sorted(studio.frames.iterdir()) if path.name not in before)
    (studio.folder(killed) / f".{lost}.0123abcd.tmp").write_bytes(b"half a fra")

    assert "it is unlocked now" in studio.snakemake(shard_frames=60)
    undisturbed = studio.add_run("undisturbed", textured_checkpoint(1))
    studio.snakemake()

    after = studio.written(killed)
    assert {name for name in done if after[name] != before[name]} == set()
    frames = contents(studio.folder(undisturbed))
    assert contents(studio.folder(killed)) == frames
    assert len(set(frames.values())) == 120
