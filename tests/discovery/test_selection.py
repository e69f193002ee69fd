import os
import sqlite3
from contextlib import closing

import pytest
from dailies.core.errors import StoreError
from dailies.discovery import queries, selection
from dailies.discovery.snapshot import Skipped
from dailies.state.layout import Layout
from dailies.store import tracking
from dailies.store.entities import StoredFile
from helpers.scenes import LISTING, Scene, scene_of
from helpers.stores import (
    BEST,
    configured,
    mlflow2,
    multiply,
    proxied,
    relocate,
    server_folder,
    server_shelf,
    snapshot,
    stranger,
)


def test_models_are_found_in_every_layout(shelf, scene):
    shelf.run("root", "final.pth")
    shelf.run("deep", "a/b/c/d/e/model.ckpt", "a/notes.txt")
    shelf.run("mlflow2", "model/MLmodel", "model/data/model.pth")
    logged = shelf.logged_model(shelf.run("mlflow3"), "MLmodel", "model.pth")
    both = shelf.run("both", "model/MLmodel", "weights/net.safetensors")
    beside = shelf.logged_model(both, "MLmodel")

    names = scene.look()

    assert names == ["root", "deep", "mlflow2", "mlflow3", "both"]
    assert scene.chosen() == ["final.pth", "a/b/c/d/e/model.ckpt", "model", logged, "weights/net.safetensors"]
    assert [file["path"] for file in scene.model("mlflow2")["artifact"]["files"]] == [
        "model/MLmodel",
        "model/data/model.pth",
    ]
    assert [file["path"] for file in scene.model("mlflow3")["artifact"]["files"]] == ["MLmodel", "model.pth"]
    assert scene.run("both")["not_chosen"] == [beside, "model"]


def test_only_logged_models_that_are_ready_and_hold_files_are_taken(shelf, scene):
    run_id = shelf.run("a")
    good = shelf.logged_model(run_id, "MLmodel", name="good")
    shelf.logged_model(run_id, name="empty")
    shelf.logged_model(run_id, "MLmodel", name="failed", ready=False)
    shelf.logged_model(shelf.run("b"), "MLmodel", ready=False)
    shelf.logged_model(shelf.run("c"))

    assert scene.look() == ["a"]
    assert scene.chosen() == [good]
    assert scene.reasons() == dict.fromkeys("bc", "it holds no model; its artifacts: none")


def test_a_pattern_overrides_the_choice(shelf, scene):
    shelf.run("a", BEST, "checkpoints/last.pth")
    shelf.run("b", "best.pth")
    logged = shelf.logged_model(shelf.run("c", BEST), "MLmodel")

    assert scene.look(checkpoint_pattern="last*") == ["a"]
    assert scene.chosen() == ["checkpoints/last.pth"]
    assert scene.run("a")["not_chosen"] == [BEST]
    assert scene.reasons()["b"] == "checkpoint_pattern last* matches none of best.pth"
    assert scene.look(checkpoint_pattern="m-*") == ["c"]
    assert scene.chosen() == [logged]


def test_every_skipped_run_has_a_reason(shelf, scene):
    shelf.run("empty")
    shelf.run("notes", "notes.txt", "MLmodel.txt")
    shelf.run("killed", BEST, status="KILLED")
    shelf.run("running", BEST, status=None)
    shelf.client.delete_run(shelf.run("gone", BEST))
    shelf.run("other", BEST, params={"kind": "b"})
    shelf.run("good", BEST, params={"kind": "a"})
    shelf.run("late", BEST, params={"kind": "a"})

    assert scene.look(max_runs=1) == ["other"]
    assert scene.reasons() == {
        "empty": "it holds no model; its artifacts: none",
        "notes": "it holds no model; its artifacts: MLmodel.txt, notes.txt",
        "killed": "its status is KILLED, filter_status asks for FINISHED",
        "running": "its status is RUNNING, filter_status asks for FINISHED",
        "gone": "it was deleted",
        "good": "beyond the first 1 model",
        "late": "beyond the first 1 model",
    }
    assert scene.look(filter="params.kind = 'a'", max_runs=None) == ["good", "late"]
    assert scene.reasons()["other"] == "the filter params.kind = 'a' leaves it out"
    assert scene.look(filter=None, filter_status="KILLED") == ["killed"]
    assert scene.look(filter_status=None) == ["killed", "running", "other", "good", "late"]


def test_run_ids_render_just_those_in_their_order_whatever_their_status(shelf, scene):
    first, second = shelf.run("a", BEST), shelf.run("b", BEST, status="KILLED")
    shelf.run("c", BEST)

    assert scene.look(run_ids=[second, first]) == ["b", "a"]
    assert scene.reasons() == {}


def test_an_order_by_a_measured_metric_takes_the_newest_first(shelf, scene):
    for name in "ab":
        shelf.run(name, BEST)

    assert scene.look(order_by="measured.psnr ASC") == scene.look(order_by="start_time DESC") == ["b", "a"]


def test_several_experiments_are_one_selection(shelf, scene):
    second = shelf.client.create_experiment("second", artifact_location=(shelf.root / "second").as_uri())
    shelf.run("a", BEST, metrics={"psnr": 1})
    shelf.run("b", BEST, metrics={"psnr": 2}, experiment=second)

    assert scene.look(experiment_name=["exp", "second"], order_by="metrics.psnr DESC") == ["b", "a"]
    assert [scene.run(name)["experiment"] for name in "ba"] == ["second", "exp"]


def test_a_moved_store_is_reported_and_found_through_artifact_remap(tmp_path):
    root = mlflow2(tmp_path / "store")
    scene = Scene(Layout(tmp_path), configured(str(root / "mlruns"), experiment_name="old", folder_name="{run_name}"))

    assert scene.look() == []
    reason = scene.reason
    assert "among 2 runs: 2 with missing artifacts" in reason or "among 3 runs" in reason
    assert "For the first of them, its artifacts were at /tmp/dailies-mlflow2/mlruns/" in reason
    assert "set artifact_remap, for example {/tmp/dailies-mlflow2/mlruns/" in reason
    assert scene.look(artifact_remap={"/tmp/dailies-mlflow2": str(root)}) == ["pickled", "weights"]
    assert scene.chosen() == ["model", "checkpoints/best_model_unet.pth"]
    assert (scene.run("weights")["epoch"], scene.run("weights")["train_loss"]) == (2000, 0.25)


def test_artifacts_of_runs_beyond_max_runs_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(queries, "STEP", 2)
    shelf = server_shelf(tmp_path)
    for number in range(6):
        shelf.run(f"run {number}", *([BEST] if number else []))
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri, max_runs=2)

        assert scene.look() == ["run-1", "run-2"]
        assert proxy.count(LISTING) == 1 + 3 * 2


def test_known_finished_runs_are_not_listed_again_over_http(tmp_path):
    shelf = server_shelf(tmp_path)
    finished = shelf.run("finished", BEST)
    running = shelf.run("running", BEST, status=None)
    shelf.logged_model(shelf.run("logged"), "MLmodel")
    shelf.run("empty")
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri, filter_status="none")

        def listed_by(action) -> int:
            proxy.requests.clear()
            action()
            return proxy.count(LISTING)

        running_alone = 2  # the run's folder and the one in it
        assert scene.look() == ["finished", "running", "logged"]
        assert listed_by(scene.take_snapshot) == running_alone
        assert listed_by(scene.look) == running_alone

        known = scene.take_snapshot()
        shelf.log(running, "checkpoints/last.pth")
        assert scene.take_snapshot() != known
        shelf.client.update_run(finished, status="RUNNING")
        shelf.log(finished, "checkpoints/best_of_all.pth")
        shelf.client.set_terminated(finished)
        assert listed_by(scene.look) == running_alone + 2
        assert "checkpoints/best_of_all.pth" in [*scene.chosen(), *scene.run("finished")["not_chosen"]]

        scene.change(recheck_artifacts=True)
        assert listed_by(scene.take_snapshot) > running_alone + 2


def test_a_listing_that_is_remembered_leads_to_the_same_choice(shelf, scene):
    run_id = shelf.run("a", "a.pth", "b.pth")
    os.utime(shelf.stored(run_id, "b.pth"), (1, 1))

    for _ in range(2):
        assert scene.look(recheck_artifacts=False) == ["a"]
        assert scene.chosen() == ["a.pth"]


def test_a_listing_that_failed_over_http_is_tried_by_every_invocation(tmp_path):
    shelf = server_shelf(tmp_path)
    bad = shelf.run("bad", BEST)
    shelf.run("good", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        proxy.trouble = lambda method, path: (403, "no") if "mlflow-artifacts" in path and bad in path else None
        assert scene.look() == ["good"]
        assert "answers 403: " in scene.reasons()["bad"]
        assert "You may not read a run's artifacts" in scene.reasons()["bad"]
        known = scene.take_snapshot()
        assert scene.look() == ["good"]
        assert scene.take_snapshot() == known

        proxy.trouble = lambda method, path: None
        assert scene.take_snapshot() != known
        assert scene.look() == ["bad", "good"]
        proxy.requests.clear()
        assert scene.look() == ["bad", "good"]
        assert proxy.count(LISTING) == 0


def test_twelve_hundred_runs_all_become_models(shelf, scene):
    seed = shelf.run("seed", "best.pth", params={"arch": "unet"})
    location = shelf.stored(seed).parents[1]
    run_ids = multiply(shelf.root / "mlflow.db", seed, 1199)
    for run_id in run_ids:
        (location / run_id / "artifacts").mkdir(parents=True)
        (location / run_id / "artifacts" / "best.pth").touch()

    names = scene.look()

    assert names == ["seed", *(f"seed_{number}" for number in range(1, 1200))]
    assert {path.stem for path in (scene.state / "models").iterdir()} == set(names)


def test_an_odd_listing_of_one_run_does_not_stop_the_others(shelf, scene, monkeypatch):
    bad = shelf.run("bad", BEST)
    shelf.run("good", BEST)
    entries = tracking._entries

    def refuse(folder):
        if bad in str(folder):
            raise StoreError("artifact.unreadable", f"the artifacts in {folder} cannot be read: Permission denied")
        return entries(folder)

    monkeypatch.setattr(tracking, "_entries", refuse)

    assert scene.look() == ["good"]
    assert scene.reasons()["bad"].endswith("cannot be read: Permission denied")


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("{other}/api/2.0/mlflow-artifacts/artifacts/1", "another host than the store's own"),
        ("mlflow-artifacts://{netloc}/1/run/artifacts", "another host than the store's own"),
        ("http://{own}@{netloc}/api/2.0/mlflow-artifacts/artifacts/1", "which is not an address of files"),
        ("http://{netloc}\\@{own}/api/2.0/mlflow-artifacts/artifacts/1", "which is not an address of files"),
        ("ftp://{netloc}/x", "ftp is not one of allowed_artifact_schemes"),
        ("models:/m-1", "which is not an address of files"),
        ("file://{folder}", "a path on this machine"),
        ("FILE://{netloc}{folder}", "a path on this machine"),
        ("{folder}", "a path on this machine"),
    ],
)
def test_a_server_that_names_another_place_is_refused_for_that_run_alone(tmp_path, location, reason):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "best.pth").write_text("secret")
    shelf = server_shelf(tmp_path)
    bad = shelf.run("bad", BEST)
    shelf.run("good", BEST)
    with proxied() as proxy, stranger() as other:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        own, netloc = (host.uri.removeprefix("http://") for host in (proxy, other))
        relocate(bad, location.format(other=other.uri, own=own, netloc=netloc, folder=tmp_path / "secret"))

        assert scene.look() == ["good"]
        assert scene.look() == ["good"]

    assert reason in scene.reasons()["bad"]
    assert scene.reasons()["bad"].startswith(f"{proxy.uri} ")
    assert other.requests == []
    assert {headers.get("authorization") for headers in proxy.headers} == {None, "Basic bWU6aHVzaA=="}
    assert not any(b"best.pth" in data for data in snapshot(scene.state).values() if data)


@pytest.mark.usefixtures("credentials")
def test_a_logged_model_that_a_server_puts_elsewhere_is_refused(tmp_path):
    shelf = server_shelf(tmp_path)
    model = shelf.logged_model(shelf.run("bad"), "MLmodel")
    shelf.logged_model(shelf.run("good"), "MLmodel")
    with stranger() as other:
        with closing(sqlite3.connect(server_folder() / "mlflow.db")) as connection:
            place = [f"{other.uri}/api/2.0/mlflow-artifacts/artifacts/1", model]
            connection.execute("UPDATE logged_models SET artifact_location = ? WHERE model_id = ?", place)
            connection.commit()
        scene = scene_of(shelf, tmp_path)

        assert scene.look() == ["good"]
    assert "another host than the store's own" in scene.reasons()["bad"]
    assert other.requests == []


def test_artifact_remap_makes_a_location_readable(tmp_path):
    shelf = server_shelf(tmp_path)
    run_id = shelf.run("a")
    (tmp_path / "nas" / "run").mkdir(parents=True)
    (tmp_path / "nas" / "run" / "best.pth").write_text("weights")
    relocate(run_id, f"file://{tmp_path}/nas/run")
    scene = scene_of(shelf, tmp_path)

    assert scene.look() == []
    reason = scene.reason
    assert "among 1 run: 1 with artifacts at a location that must not be read. For the first of them, " in reason
    assert reason.endswith("if your files are there, set artifact_remap, for example {/mnt/mlruns: /mnt/mlruns}")
    assert scene.look(artifact_remap={f"{tmp_path}/nas": f"{tmp_path}/nas"}) == ["a"]


def test_a_cached_listing_does_not_outlive_its_permission(tmp_path, monkeypatch):
    shelf = server_shelf(tmp_path)
    relocate(shelf.run("a"), "s3://bucket/run")
    listed = (StoredFile("best.pth", 3),)
    monkeypatch.setattr(tracking.TrackingStore, "_remote_files", lambda self, uri: iter(listed))
    scene = scene_of(shelf, tmp_path)

    assert scene.look() == ["a"]
    assert scene.look(allowed_artifact_schemes=[]) == []
    assert "s3 is not one of allowed_artifact_schemes (none)" in scene.reasons()["a"]


def registered(scene: Scene, name: str) -> tuple[str, str, str | None]:
    version = scene.run(name)["registered_model"]
    return version["name"], version["version"], version["alias"]


def test_registered_models_alone_or_before_the_runs(shelf, scene):
    first = shelf.run("a", BEST, "model/MLmodel", status="KILLED", params={"arch": "UNet"})
    second = shelf.run("b", BEST, "model/MLmodel")
    shelf.run("c", BEST)
    shelf.register("net", f"runs:/{second}/model", run_id=second)
    shelf.register("net", f"runs:/{first}/model", run_id=first, alias="champion")

    assert scene.look(models=["net@champion", "net/1"], experiment_name=None) == ["a", "b"]
    assert [registered(scene, name) for name in "ab"] == [("net", "2", "champion"), ("net", "1", None)]
    assert scene.chosen() == ["model", "model"]
    assert (scene.run("a")["architecture"], scene.run("a")["status"]) == ("UNet", "KILLED")
    assert scene.read("skipped") == []

    names = scene.look(experiment_name=["exp"], max_runs=1)
    assert names == ["a", "b", f"b_{second[:8]}"]
    assert scene.chosen() == ["model", "model", BEST]
    assert scene.run(names[2])["registered_model"] is None
    assert scene.reasons() == {
        "a": "its status is KILLED, filter_status asks for FINISHED",
        "c": "beyond the first 1 model",
    }


def test_registered_models_beside_run_ids(shelf, scene):
    run_id, other = shelf.run("a", BEST), shelf.run("b", BEST)
    shelf.run("c", BEST)
    shelf.register("net", f"runs:/{other}/{BEST}", run_id=other)

    assert scene.look(models=["net/1"], run_ids=[run_id]) == ["b", "a"]


def test_a_file_or_a_folder_without_mlmodel_may_be_registered(shelf, scene):
    run_id = shelf.run("a", BEST, "checkpoints/last.pth", "notes.txt")
    for path in ("checkpoints", "checkpoints/last.pth", "notes.txt", "nothing"):
        shelf.register("net", f"runs:/{run_id}/{path}", run_id=run_id)

    names = scene.look(models=[f"net/{number}" for number in range(1, 5)], experiment_name=None)

    assert scene.chosen() == [BEST, "checkpoints/last.pth", "notes.txt"]
    assert names == ["a", "a_net-2", "a_net-3"]
    assert scene.reasons() == {
        "a": "version 4 of registered model net holds no model; its artifacts: "
        "checkpoints/best_model_unet.pth, checkpoints/last.pth, notes.txt"
    }


def test_the_same_files_are_rendered_once(shelf, scene):
    run_id = shelf.run("a", BEST)
    for alias in ("champion", None):
        shelf.register("net", f"runs:/{run_id}/{BEST}", run_id=run_id, alias=alias)

    assert scene.look() == ["a"]
    record = (scene.state / "models" / "a.json").stat().st_mtime_ns
    assert scene.look(models=["net/2", "net@champion"]) == ["a"]
    assert registered(scene, "a") == ("net", "2", None)
    assert scene.reasons() == {"a": "it is rendered as version 2 of registered model net"}
    assert (scene.state / "models" / "a.json").stat().st_mtime_ns == record


@pytest.mark.usefixtures("credentials")
def test_a_registered_model_that_a_server_puts_elsewhere_is_skipped(tmp_path):
    shelf = server_shelf(tmp_path)
    bad, good = shelf.run("bad", BEST), shelf.run("good", BEST)
    name = shelf.client.get_experiment(shelf.experiment).name
    for run_id in (bad, good):
        shelf.register(name, f"runs:/{run_id}/{BEST}", run_id=run_id)
    with stranger() as other:
        relocate(bad, f"{other.uri}/api/2.0/mlflow-artifacts/artifacts/1")
        scene = scene_of(shelf, tmp_path, models=[f"{name}/1", f"{name}/2"], experiment_name=None)

        assert scene.look() == ["good"]
    assert scene.reasons()["bad"].startswith(
        f"version 1 of registered model {name}: {shelf.uri} names an artifact location"
    )
    assert "another host than the store's own" in scene.reasons()["bad"]
    assert other.requests == []


def in_listing(shelf, run_id: str, *names: str, best: str = "") -> None:
    """Log checkpoints as MLFlowLogger of Lightning does, in the order of their names."""
    for name in names:
        shelf.log(run_id, f"{name}/{name}.ckpt")
        aliases = ["latest", "best"] if name in best.split() else ["latest"]
        shelf.log(run_id, f"{name}/aliases.txt", str(aliases).encode())
        shelf.log(run_id, f"{name}/metadata.yaml", b"score: 1")


def test_lightnings_aliases_mark_the_best_checkpoint(shelf, scene):
    in_listing(shelf, shelf.run("a"), "epoch=0", "epoch=1", "epoch=2", best="epoch=1")
    in_listing(shelf, shelf.run("none"), "epoch=0", "epoch=1")
    in_listing(shelf, shelf.run("every best was one"), "epoch=0", "epoch=1", "epoch=2", best="epoch=0 epoch=1")

    scene.look()

    assert scene.chosen() == ["epoch=1/epoch=1.ckpt", "epoch=1/epoch=1.ckpt", "epoch=1/epoch=1.ckpt"]
    assert scene.run("a")["not_chosen"] == ["epoch=2/epoch=2.ckpt", "epoch=0/epoch=0.ckpt"]


def test_aliases_are_read_once_from_a_server(tmp_path):
    shelf = server_shelf(tmp_path)
    in_listing(shelf, shelf.run("a"), "epoch=0", "epoch=1", best="epoch=0")
    in_listing(shelf, shelf.run("alone"), "epoch=3", best="epoch=3")
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)

        scene.look()
        assert scene.chosen() == ["epoch=0/epoch=0.ckpt", "epoch=3/epoch=3.ckpt"]
        assert proxy.count("aliases.txt") == 2
        known, before = scene.take_snapshot(), snapshot(scene.state / "models")
        proxy.requests.clear()
        scene.look()

        assert proxy.count("aliases.txt") == 0
        assert snapshot(scene.state / "models") == before
        assert scene.take_snapshot() == known


def test_files_without_an_ending_are_models_if_their_content_shows_it(shelf, scene):
    run_id = shelf.run("a", "notes", "checkpoints/words")
    shelf.log(run_id, "checkpoints/epoch_12", b"PK\x03\x04 and so on")
    shelf.run("b", "notes", "checkpoints/words")

    assert scene.look() == ["a"]
    assert scene.chosen() == ["checkpoints/epoch_12"]
    assert scene.reasons()["b"] == "it holds no model; its artifacts: checkpoints/words, notes"


def test_a_pattern_finds_files_in_model_folders_and_in_logged_models_and_of_any_ending(shelf, scene):
    shelf.run("folder", "model/MLmodel", "model/data/model.pth", "model/artifacts/net.json")
    older = shelf.logged_model(run_id := shelf.run("logged"), "MLmodel", "net.json", name="older")
    shelf.logged_model(run_id, "MLmodel", name="newer")
    shelf.run("root", "best.pth", "net.json")

    assert scene.look(checkpoint_pattern="net.json") == ["folder", "logged", "root"]
    assert scene.chosen() == ["model/artifacts/net.json", "net.json", "net.json"]
    assert older in scene.model("logged")["artifact"]["uri"]
    assert scene.look(checkpoint_pattern="model.pth") == ["folder"]
    assert scene.chosen() == ["model/data/model.pth"]


def test_a_record_lists_the_alternatives(shelf, scene):
    run_id = shelf.run("a", BEST, "checkpoints/last.pth", "model/MLmodel", "model/artifacts/net.pth", "optimizer.pt")
    logged = shelf.logged_model(run_id, "MLmodel", "inner.ckpt")

    scene.look()

    found = [(each["uri"].split("/")[-2], each["path"]) for each in scene.run("a")["alternatives"]]
    assert found == [
        (run_id, "checkpoints/last.pth"),
        (logged, ""),
        (run_id, "model"),
        (logged, "inner.ckpt"),
        (run_id, "model/artifacts/net.pth"),
        (run_id, "optimizer.pt"),
    ]
    assert scene.look(checkpoint_pattern="*.ckpt") == ["a"]
    assert "alternatives" not in scene.run("a")


def test_a_registered_folder_has_alternatives_inside(shelf, scene):
    run_id = shelf.run("a", "model/MLmodel", "model/artifacts/net.pth", BEST)
    shelf.register("net", f"runs:/{run_id}/model", run_id=run_id)
    shelf.register("net", f"runs:/{run_id}/checkpoints", run_id=run_id)

    assert scene.look(models=["net/1", "net/2"], experiment_name=None) == ["a", "a_net-2"]
    assert scene.chosen() == ["model", BEST]
    assert [each["path"] for each in scene.run("a")["alternatives"]] == ["model/artifacts/net.pth"]


def test_a_logged_model_that_is_refused_does_not_hide_the_runs_own_files(tmp_path):
    shelf = server_shelf(tmp_path)
    run_id = shelf.run("a", BEST)
    model = shelf.logged_model(run_id, "MLmodel")
    with closing(sqlite3.connect(server_folder() / "mlflow.db")) as connection:
        connection.execute("UPDATE logged_models SET artifact_location = 'ftp://x/y' WHERE model_id = ?", [model])
        connection.commit()
    scene = scene_of(shelf, tmp_path)

    assert scene.look() == ["a"]
    assert scene.chosen() == [BEST]
    assert "alternatives" not in scene.run("a")


def test_the_terminal_shows_both_ends_of_a_long_reason():
    skipped = Skipped("a1", "run", "FINISHED", f"the server says: {'x' * 900}; set artifact_remap", selection.UNREAD)

    shown = selection.first_reason([skipped])

    assert len(shown) <= 450
    assert shown.startswith("the server says: ")
    assert shown.endswith("; set artifact_remap")
