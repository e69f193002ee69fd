import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from dailies.discovery.discover import discover
from dailies.discovery.report import ABOUT_ASSUMED, counts, table
from dailies.planning.config import Settings
from dailies.state.records import Outcome, RejectedFile, RenderedArtifact
from helpers.stores import BEST, snapshot


def test_a_model_is_recorded_in_two_files(shelf, scene):
    run_id = shelf.run(
        "unet_adamw",
        BEST,
        "checkpoints/last.pth",
        params={"model.architecture": "UNet", "training.epochs": "2e3"},
        metrics={"train/loss": 0.25, "val/psnr": float("inf")},
        tags={"mine": "x"},
    )
    start = shelf.client.get_run(run_id).info.start_time

    (name,) = scene.look(folder_name="{run_name}_{epoch}ep_loss{train_loss:.4f}_{run_id:.8}")

    path, last = shelf.stored(run_id, BEST), shelf.stored(run_id, "checkpoints/last.pth")
    assert name == f"unet_adamw_2000ep_loss0.2500_{run_id[:8]}"
    assert scene.model(name) == {
        "run_id": run_id,
        "experiment_id": shelf.experiment,
        "architecture": "UNet",
        "artifact": {
            "uri": path.parents[1].as_uri(),
            "path": BEST,
            "files": [{"path": BEST, "size": path.stat().st_size, "modified": path.stat().st_mtime_ns}],
        },
        "hints": {"model.architecture": "UNet"},
    }
    assert scene.run(name) == {
        "run_id": run_id,
        "run_name": "unet_adamw",
        "experiment": "exp",
        "registered_model": None,
        "architecture": "UNet",
        "epoch": 2000,
        "train_loss": 0.25,
        "val_loss": None,
        "status": "FINISHED",
        "start_time": start,
        "params": {"model.architecture": "UNet", "training.epochs": "2e3"},
        "metrics": {"train/loss": 0.25, "val/psnr": None},
        "tags": {"mine": "x"},
        "datasets": [],
        "not_chosen": ["checkpoints/last.pth"],
        "alternatives": [
            {
                "uri": path.parents[1].as_uri(),
                "path": "checkpoints/last.pth",
                "files": [
                    {"path": "checkpoints/last.pth", "size": last.stat().st_size, "modified": last.stat().st_mtime_ns}
                ],
            }
        ],
    }
    assert scene.read("skipped") == []


def test_records_are_on_the_disk_before_their_list(shelf, scene, monkeypatch):
    shelf.run("a", BEST)
    fingerprint = scene.take_snapshot().fingerprint
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))

    discover(scene.settings, fingerprint=fingerprint, layout=scene.layout)

    records = {(scene.state / kind / "a.json").stat().st_ino for kind in ("models", "runs")}
    assert records == {*synced[:2]}
    assert scene.layout.index.stat().st_ino in synced[2:]


def test_the_values_of_real_stores_break_nothing(shelf, scene):
    long = "n" * 5000
    runs = {
        "no params": {},
        "null epoch": {"params": {"training.epochs": "null"}},
        "float epoch": {"params": {"epoch": "2500.0"}},
        "infinite epoch": {"params": {"epoch": "inf"}},
        "nan loss": {"metrics": {"train/loss": float("nan")}},
        "inf loss": {"metrics": {"train/loss": float("inf"), "val/loss": float("-inf")}},
        "capitals": {"params": {"model.architecture": "NAFNet/Large\\v2"}},
        "../../escape": {},
        "line\nbreak \x1b[31mred": {},
        "Logs": {},
        "Case": {},
        "cASE": {},
        "漢字" * 300: {},
        long: {"params": {"x": "y" * 6000}, "tags": {"note": "two\nlines\x1b[0m\x7f\u202e"}},
    }
    run_ids = [shelf.run(name, "best.pth", **values) for name, values in runs.items()]
    with closing(sqlite3.connect(shelf.root / "mlflow.db")) as connection:
        connection.execute("UPDATE runs SET start_time = 0, end_time = NULL WHERE run_uuid = ?", run_ids[:1])
        connection.execute("UPDATE runs SET name = NULL WHERE run_uuid = ?", run_ids[1:2])
        connection.execute("DELETE FROM tags WHERE run_uuid = ?", run_ids[1:2])
        connection.commit()

    names = scene.look(folder_name="{run_name}_{epoch}ep_loss{train_loss:.4f}_{architecture}")

    by_run = {scene.run(name)["run_id"]: name for name in names}
    assert [by_run[run_id] for run_id in run_ids] == [
        "no-params",
        run_ids[1],
        "float-epoch_2500ep",
        "infinite-epoch",
        "nan-loss",
        "inf-loss",
        "capitals_NAFNet-Large-v2",
        "escape",
        "line-break-red",
        f"Logs_{run_ids[9][:8]}",
        "Case",
        f"cASE_{run_ids[11][:8]}",
        "漢字" * 10,
        "n" * 60,
    ]
    assert scene.run("no-params")["start_time"] is None
    assert scene.run("inf-loss")["metrics"] == {"train/loss": None, "val/loss": None}
    assert scene.run("n" * 60)["run_name"] == "n" * 200
    assert scene.read("skipped") == []
    assert all(ord(character) >= 32 for line in table(scene.layout).splitlines() for character in line)


def test_alternatives_matter_for_rendering_only_if_the_first_file_held_no_network(shelf, scene):
    run_id = shelf.run("a", BEST, "epoch_1.pth")
    scene.look()
    before = snapshot(scene.state / "models")
    attempt = scene.state / "attempts" / "a" / "all.json"
    Outcome(status="success", artifact=RenderedArtifact(path=BEST)).save(attempt)
    shelf.log(run_id, "other.pth")

    scene.look()

    assert snapshot(scene.state / "models") == before
    assert [each["path"] for each in scene.run("a")["alternatives"]] == ["other.pth", "epoch_1.pth"]

    artifact = RenderedArtifact(path="epoch_1.pth", tried=(RejectedFile(path=BEST, reason="damaged"),))
    Outcome(status="success", artifact=artifact).save(attempt)
    scene.look()

    assert scene.model("a")["alternatives"] == scene.run("a")["alternatives"]
    assert list(scene.model("a")) == ["run_id", "experiment_id", "architecture", "artifact", "alternatives", "hints"]


def test_a_model_keeps_its_folder_name(shelf, scene):
    scene.change(folder_name="{run_name}_loss{train_loss:.2f}")
    run_id = shelf.run("a", BEST, metrics={"train/loss": 0.5})
    assert scene.look() == ["a_loss0.50"]
    record = (scene.state / "models" / "a_loss0.50.json").stat().st_mtime_ns

    shelf.client.log_metric(run_id, "train/loss", 0.25)
    shelf.run("A", BEST, metrics={"train/loss": 0.5})

    first, second = scene.look(folder_name="{run_name}_loss{train_loss:.2f}", order_by="start_time ASC")
    assert first == "a_loss0.50"
    assert second.startswith("A_loss0.50_")
    assert scene.run("a_loss0.50")["train_loss"] == 0.25
    assert (scene.state / "models" / "a_loss0.50.json").stat().st_mtime_ns == record


def test_a_run_that_comes_back_has_its_old_name(shelf, scene):
    first = shelf.run("a", BEST)
    assert scene.look() == ["a"]
    shelf.client.delete_run(first)
    second = shelf.run("a", BEST)
    (name,) = scene.look()
    shelf.client.restore_run(first)

    assert name == f"a_{second[:8]}"
    assert scene.look() == ["a", name]


def test_a_new_file_in_a_run_changes_its_record_and_no_other(shelf, scene):
    run_id = shelf.run("a", BEST)
    shelf.run("b", BEST)
    scene.look()
    before = snapshot(scene.state / "models")

    shelf.log(run_id, BEST, b"better")
    scene.look()

    changed = {Path(path).stem for path, data in snapshot(scene.state / "models").items() if before[path] != data}
    assert changed == {"a"}


def test_the_table_has_one_line_per_selected_model(shelf, scene):
    shelf.run("a", BEST, params={"arch": "unet", "epoch": "7"}, metrics={"train/loss": 0.112691104})
    shelf.run("b")
    scene.look()

    assert table(scene.layout).splitlines() == [
        "model  architecture  epoch  train loss  val loss  artifact                         size",
        "-" * 89,
        "a      unet          7      0.1127      -         checkpoints/best_model_unet.pth  0.0 kB",
    ]


@pytest.mark.parametrize(
    ("settings", "ranges"),
    [
        ({}, ["[-1, 1]", "assumed", "[0, 255]", "mean and std", "not valid"]),
        ({"model_factory": "nets:build"}, ["assumed", "assumed", "[0, 255]", "mean and std", "not valid"]),
        ({"model_factory": {"UNet": "nets:build"}}, ["assumed", "assumed", "[0, 255]", "mean and std", "not valid"]),
        (
            {"signatures": {"unet": {"value_range": [0, 1]}, "[ab]": {"value_range": [0, 0.5]}}},
            ["[0, 0.5]", "[0, 0.5]", "[0, 255]", "mean and std", "not valid"],
        ),
        ({"default_architecture": "nafnet"}, ["[-1, 1]", "assumed", "[0, 255]", "mean and std", "not valid"]),
    ],
)
def test_the_table_shows_the_range_of_values_as_far_as_it_is_known(shelf, scene, settings, ranges):
    shelf.run("a", BEST, params={"arch": "unet"})
    shelf.run("b", BEST, params={"arch": "swinir"})
    shelf.run("c", BEST, tags={"dailies.value_range": "[0, 255]"})
    shelf.run("d", BEST, params={"dailies.mean": "[0, 0, 0]", "dailies.std": "[1, 1, 1]"})
    shelf.run("e", BEST, tags={"dailies.value_range": "[1, 0]"})
    scene.look()

    head, _, *lines = table(scene.layout, Settings(**settings)).splitlines()

    assert head.endswith("  value range")
    found = {line.split()[0]: line.split("kB", 1)[1].strip() for line in lines[:5]}
    assert [found[name] for name in "abcde"] == ranges
    assert lines[5:] == ([ABOUT_ASSUMED] if "assumed" in ranges else [])


def test_models_of_one_run_keep_their_folders(shelf, scene):
    run_id = shelf.run("a", "checkpoints/last.pth", "model/MLmodel")
    shelf.register("net", f"runs:/{run_id}/model", run_id=run_id)
    assert scene.look() == ["a"]
    both = ["a_net-1", "a"]
    assert scene.look(models=["net/1"]) == both

    shelf.log(run_id, BEST)
    assert scene.look() == both
    assert scene.chosen() == ["model", BEST]
    assert scene.look(models=None) == ["a"]
    assert scene.look(models=["net/1"], experiment_name=None) == ["a_net-1"]
    assert scene.look(experiment_name=["exp"]) == both


def test_hints_are_the_params_and_tags_for_rendering(shelf, scene):
    run_id = shelf.run(
        "a",
        BEST,
        params={"model.base": "8", "dailies.scale": "2", "model": "no", "lr": "1", "dailies.long": "x" * 501},
        tags={"dailies.scale": " 4\n", "dailies.range": "0\u202e1", "model.tag": "no", "mine": "x"},
    )
    scene.look()
    hints = scene.model("a")["hints"]
    before = (scene.state / "models" / "a.json").read_bytes()

    assert hints == {"dailies.range": "0 1", "dailies.scale": "4", "model.base": "8"}
    assert list(hints) == sorted(hints)
    shelf.client.log_param(run_id, "batch", "3")
    shelf.client.set_tag(run_id, "mine", "y")
    scene.look()
    assert (scene.state / "models" / "a.json").read_bytes() == before


def test_models_and_skipped_runs_are_counted_by_reason(shelf, scene):
    shelf.run("a", BEST)
    scene.look()
    assert counts(scene.layout) == "1 model"

    shelf.run("b", BEST)
    for status in ("FAILED", "KILLED", "FAILED"):
        shelf.run(status, BEST, status=status)
    shelf.run("empty")
    shelf.client.delete_run(shelf.run("regretted", BEST))
    scene.look()
    assert counts(scene.layout) == "2 models; skipped: 2 FAILED, 1 KILLED, 1 without a model, 1 deleted"

    scene.look(max_runs=1, filter_status=None)
    assert counts(scene.layout) == "1 model; skipped: 5 beyond max_runs, 1 deleted"
