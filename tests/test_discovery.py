import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dailies import connection, discovery, store
from dailies.discovery import Standing, discover, standing, table
from dailies.errors import StoreError, StoreUnreachable
from dailies.store import StoredFile
from stores import (
    BEST,
    Shelf,
    configured,
    mlflow2,
    multiply,
    proxied,
    relocate,
    server_folder,
    server_shelf,
    snapshot,
    sqlite_shelf,
    stranger,
)

LISTING = "GET /api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture
def shelf(tmp_path):
    return sqlite_shelf(tmp_path / "store")


@dataclass
class Scene:
    """A configuration and the state that discovery keeps for it."""

    state: Path
    config: dict[str, Any]

    @property
    def index(self) -> Path:
        return self.state / "discovery.json"

    def look(self, **changes: Any) -> list[str]:
        """Do what an invocation does; give the names of the models."""
        self.config |= changes
        discover(self.config, fingerprint=self.standing().fingerprint, state=self.state, index=self.index)
        return self.read("discovery")["models"]

    def standing(self) -> Standing:
        return standing(self.config, self.state)

    def read(self, name: str) -> Any:
        return json.loads((self.state / f"{name}.json").read_text(), parse_constant=pytest.fail)

    def model(self, name: str) -> dict[str, Any]:
        return self.read(f"models/{name}")

    def run(self, name: str) -> dict[str, Any]:
        return self.read(f"runs/{name}")

    def chosen(self) -> list[str]:
        """The paths of the artifacts that were chosen, in order; for a logged model its id."""
        artifacts = (self.model(name)["artifact"] for name in self.read("discovery")["models"])
        return [artifact["path"] or artifact["uri"].split("/")[-2] for artifact in artifacts]

    def reasons(self) -> dict[str, str]:
        return {run["run_name"]: run["reason"] for run in self.read("skipped")}


def scene_of(shelf: Shelf, root: Path, **config: Any) -> Scene:
    experiment = shelf.client.get_experiment(shelf.experiment).name
    defaults = {"experiment_name": experiment, "folder_name": "{run_name}", "order_by": "start_time ASC"}
    return Scene(root / "state", configured(shelf.uri, **(defaults | config)))


@pytest.fixture
def scene(shelf, tmp_path):
    return scene_of(shelf, tmp_path)


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

    path = shelf.stored(run_id, BEST)
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
    }
    assert scene.read("discovery")["reason"] is None
    assert scene.read("skipped") == []


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


def test_every_run_passed_over_has_its_reason(shelf, scene):
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
        "good": "beyond the first 1 models",
        "late": "beyond the first 1 models",
    }
    assert scene.look(filter="params.kind = 'a'", max_runs=None) == ["good", "late"]
    assert scene.reasons()["other"] == "the filter params.kind = 'a' leaves it out"
    assert scene.look(filter=None, filter_status="KILLED") == ["killed"]
    assert scene.look(filter_status=None) == ["killed", "running", "other", "good", "late"]


def test_no_model_at_all_says_how_many_runs_were_seen_and_why(shelf, scene):
    for number in range(3):
        shelf.run(f"killed {number}", BEST, status="KILLED")
    shelf.run("empty")

    assert scene.look() == []
    reason = scene.read("discovery")["reason"]
    assert "no run with a model was found in exp of sqlite:///" in reason
    assert "4 runs were seen: 3 with another status, 1 without a model" in reason
    assert reason.endswith("Each with its reason is in .dailies/skipped.json")


def test_run_ids_render_just_those_in_their_order_whatever_their_status(shelf, scene):
    first, second = shelf.run("a", BEST), shelf.run("b", BEST, status="KILLED")
    shelf.run("c", BEST)

    assert scene.look(run_ids=[second, first]) == ["b", "a"]
    assert scene.reasons() == {}


def test_an_order_by_what_is_measured_here_takes_the_newest_first(shelf, scene):
    for name in "ab":
        shelf.run(name, BEST)

    assert scene.look(order_by="measured.psnr ASC") == scene.look(order_by="start_time DESC") == ["b", "a"]


def test_several_experiments_are_one_selection(shelf, scene):
    second = shelf.client.create_experiment("second", artifact_location=(shelf.root / "second").as_uri())
    shelf.run("a", BEST, metrics={"psnr": 1})
    shelf.run("b", BEST, metrics={"psnr": 2}, experiment=second)

    assert scene.look(experiment_name=["exp", "second"], order_by="metrics.psnr DESC") == ["b", "a"]
    assert [scene.run(name)["experiment"] for name in "ba"] == ["second", "exp"]


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
        "CON": {},
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
        f"CON_{run_ids[9][:8]}",
        "Case",
        f"cASE_{run_ids[11][:8]}",
        "漢字" * 10,
        "n" * 60,
    ]
    assert scene.run("no-params")["start_time"] is None
    assert scene.run("inf-loss")["metrics"] == {"train/loss": None, "val/loss": None}
    assert scene.run("n" * 60)["run_name"] == "n" * 200
    assert scene.read("skipped") == []
    assert all(ord(character) >= 32 for line in table(scene.index).splitlines() for character in line)


def test_a_name_is_given_once(shelf, scene):
    scene.config["folder_name"] = "{run_name}_loss{train_loss:.2f}"
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


def test_discovery_changes_nothing_but_its_state(shelf, scene, tmp_path, monkeypatch):
    shelf.logged_model(shelf.run("a", BEST), "MLmodel")
    monkeypatch.chdir(tmp_path)
    before = snapshot(shelf.root)

    scene.look()

    assert snapshot(shelf.root) == before
    assert {path.name for path in tmp_path.iterdir()} == {"store", "state"}


def test_the_fingerprint_changes_with_whatever_discovery_would_see(shelf, scene):
    run_id = shelf.run("a", BEST, metrics={"loss": float("nan")})
    seen = [scene.standing()]

    def changes() -> bool:
        seen.append(scene.standing())
        return seen[-1] != seen[-2]

    assert not changes()
    shelf.run("b", BEST)
    assert changes()
    shelf.log(run_id, BEST, b"better")
    assert changes()
    shelf.log(run_id, "checkpoints/last.pth")
    assert changes()
    shelf.client.log_metric(run_id, "loss", 0.5)
    assert changes()
    shelf.client.set_tag(run_id, "mine", "x")
    assert changes()
    shelf.logged_model(run_id, "MLmodel")
    assert changes()
    shelf.client.delete_run(run_id)
    assert changes()
    scene.config["checkpoint_pattern"] = "last*"
    assert changes()
    scene.config["artifact_remap"] = {"/old": "/new"}
    assert changes()
    scene.look()
    assert not changes()
    assert len({one.fingerprint for one in seen}) == 10
    assert not any(one.warning for one in seen)


def test_a_moved_store_is_said_and_found_through_artifact_remap(tmp_path):
    root = mlflow2(tmp_path / "store")
    scene = Scene(tmp_path / "state", configured(str(root / "mlruns"), experiment_name="old", folder_name="{run_name}"))

    assert scene.look() == []
    reason = scene.read("discovery")["reason"]
    assert "2 runs were seen: 2 whose artifacts are lost" in reason or "3 runs were seen" in reason
    assert "For the first of them, its artifacts were at /tmp/dailies-mlflow2/mlruns/" in reason
    assert "set artifact_remap, for example {/tmp/dailies-mlflow2/mlruns/" in reason
    assert scene.look(artifact_remap={"/tmp/dailies-mlflow2": str(root)}) == ["pickled", "weights"]
    assert scene.chosen() == ["model", "checkpoints/best_model_unet.pth"]
    assert (scene.run("weights")["epoch"], scene.run("weights")["train_loss"]) == (2000, 0.25)


def test_the_table_shows_what_would_be_rendered(shelf, scene):
    shelf.run("a", BEST, params={"arch": "unet", "epoch": "7"}, metrics={"train/loss": 0.5})
    shelf.run("b")
    scene.look()

    assert table(scene.index).splitlines() == [
        "model  architecture  epoch  train loss  val loss  artifact                         size",
        "-" * 89,
        "a      unet          7      0.5         -         checkpoints/best_model_unet.pth  0.0 MB",
    ]


def test_artifacts_of_runs_beyond_max_runs_are_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "STEP", 2)
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
        assert listed_by(scene.standing) == running_alone
        assert scene.look() == ["finished", "running", "logged"]
        assert listed_by(scene.standing) == running_alone
        assert listed_by(scene.look) == 2 * running_alone

        known = scene.standing()
        shelf.log(running, "checkpoints/last.pth")
        assert scene.standing() != known
        shelf.client.update_run(finished, status="RUNNING")
        shelf.log(finished, "checkpoints/best_of_all.pth")
        shelf.client.set_terminated(finished)
        assert listed_by(scene.look) == 2 * running_alone + 2
        assert "checkpoints/best_of_all.pth" in [*scene.chosen(), *scene.run("finished")["not_chosen"]]

        scene.config["recheck_artifacts"] = True
        assert listed_by(scene.standing) > running_alone + 2


def test_a_listing_that_failed_over_http_is_tried_by_every_invocation(tmp_path):
    shelf = server_shelf(tmp_path)
    bad = shelf.run("bad", BEST)
    shelf.run("good", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        proxy.trouble = lambda method, path: (403, "no") if "mlflow-artifacts" in path and bad in path else None
        assert scene.look() == ["good"]
        assert "does not let someone without a login read a run's artifacts" in scene.reasons()["bad"]
        known = scene.standing()
        assert scene.look() == ["good"]
        assert scene.standing() == known

        proxy.trouble = lambda method, path: None
        assert scene.standing() != known
        assert scene.look() == ["bad", "good"]
        proxy.requests.clear()
        assert scene.look() == ["bad", "good"]
        assert proxy.count(LISTING) == 0


def test_a_thousand_known_runs_cost_a_handful_of_requests(tmp_path):
    """The requests are counted here; their time is measured by benchmarks/discovery.py."""
    shelf = server_shelf(tmp_path)
    multiply(server_folder() / "mlflow.db", shelf.run("seed"), 999)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.standing()

        assert len(proxy.requests) <= 4


def test_known_models_go_on_when_the_server_is_gone(tmp_path, caplog):
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        with pytest.raises(StoreError):
            standing(scene.config | {"experiment_name": ["missing"]}, scene.state)
        known = scene.standing()
        assert scene.look() == ["a"]
        index = scene.index.read_bytes()

    gone = scene.standing()
    assert gone.fingerprint == known.fingerprint
    assert gone.warning.endswith("or start the server. Going on with the models already known: 1")
    scene.index.unlink()
    assert scene.look() == ["a"]
    assert scene.index.read_bytes() == index
    assert "Going on with the models already known: 1" in caplog.text
    with pytest.raises(StoreUnreachable):
        standing(scene.config | {"filter_status": "KILLED"}, scene.state)


def test_a_server_that_dies_before_discovery_does_not_pass_for_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "KNOCKS", ())
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.look()
        shelf.run("b", BEST)
        changed = scene.standing().fingerprint

        proxy.trouble = lambda method, path: "drop"
        discover(scene.config, fingerprint=changed, state=scene.state, index=scene.index)
        index = scene.read("discovery")
        assert len(index["models"]) == 1
        assert index["warning"].endswith("Going on with the models already known: 1")
        assert scene.standing().fingerprint == changed

        proxy.trouble = lambda method, path: None
        again = scene.standing().fingerprint
        assert again != changed
        assert scene.look() == ["a", "b"]
        assert scene.read("discovery")["warning"] is None
        assert scene.standing().fingerprint == again


def test_an_unreachable_server_of_which_nothing_is_known_is_an_error(tmp_path):
    with proxied() as proxy:
        scene = Scene(tmp_path / "state", configured(proxy.uri))
    with pytest.raises(StoreUnreachable, match="does not answer"):
        scene.standing()
    with pytest.raises(StoreUnreachable, match="does not answer"):
        discover(scene.config, fingerprint="x", state=scene.state, index=scene.index)
    assert not scene.state.exists()


def test_a_password_in_the_environment_is_written_nowhere(tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG", logger="dailies")
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    shelf.run("b")
    experiment = shelf.client.get_experiment(shelf.experiment).name
    with proxied() as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri.replace("//", "//me:SECRET@"))
        config = configured(None, experiment_name=experiment) | {"mlflow_uri": None}
        scene = Scene(tmp_path / "state", config)
        scene.look(filter_status="KILLED")
        assert "http://***@127.0.0.1" in scene.read("discovery")["reason"]
        scene.look(filter_status="FINISHED")
    warning = scene.standing().warning

    assert "http://***@127.0.0.1" in warning
    written = b"".join(data for data in snapshot(tmp_path / "state").values() if data)
    assert b"SECRET" not in written
    assert "SECRET" not in caplog.text + warning


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
    entries = store._entries

    def refuse(folder):
        if bad in str(folder):
            raise StoreError(f"the artifacts in {folder} cannot be read: Permission denied")
        return entries(folder)

    monkeypatch.setattr(store, "_entries", refuse)

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
        ("http://{own}@{netloc}/api/2.0/mlflow-artifacts/artifacts/1", "which is no address of files"),
        ("http://{netloc}\\@{own}/api/2.0/mlflow-artifacts/artifacts/1", "which is no address of files"),
        ("ftp://{netloc}/x", "ftp is not one of allowed_artifact_schemes"),
        ("models:/m-1", "which is no address of files"),
        ("file://{folder}", "a place on this machine's own disks"),
        ("FILE://{netloc}{folder}", "a place on this machine's own disks"),
        ("{folder}", "a place on this machine's own disks"),
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
    assert scene.reasons()["bad"].startswith(f"{proxy.uri} says that its artifacts are at ")
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


def test_the_users_own_word_makes_a_place_readable(tmp_path):
    shelf = server_shelf(tmp_path)
    run_id = shelf.run("a")
    (tmp_path / "nas" / "run").mkdir(parents=True)
    (tmp_path / "nas" / "run" / "best.pth").write_text("weights")
    relocate(run_id, f"file://{tmp_path}/nas/run")
    scene = scene_of(shelf, tmp_path)

    assert scene.look() == []
    reason = scene.read("discovery")["reason"]
    assert "1 runs were seen: 1 whose artifacts are at a place that is not asked. For the first of them, " in reason
    assert reason.endswith("if your files are there, set artifact_remap, for example {/mnt/mlruns: /mnt/mlruns}")
    assert scene.look(artifact_remap={f"{tmp_path}/nas": f"{tmp_path}/nas"}) == ["a"]


def test_what_is_remembered_of_a_place_does_not_outlive_its_permission(tmp_path, monkeypatch):
    shelf = server_shelf(tmp_path)
    relocate(shelf.run("a"), "s3://bucket/run")
    listed = (StoredFile("best.pth", 3),)
    monkeypatch.setattr(store.TrackingStore, "_remote_files", lambda self, uri: iter(listed))
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
        "c": "beyond the first 1 models",
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


def test_an_alias_that_moves_names_another_model(shelf, scene):
    first, second = shelf.run("a", BEST), shelf.run("b", BEST)
    shelf.register("net", f"runs:/{first}/{BEST}", run_id=first, alias="champion")
    shelf.register("net", f"runs:/{second}/{BEST}", run_id=second)
    scene.config |= {"models": ["net@champion"], "experiment_name": None}
    assert scene.look() == ["a"]
    known = scene.standing()
    assert scene.standing() == known

    shelf.client.set_registered_model_alias("net", "champion", "2")

    assert scene.standing() != known
    assert scene.look() == ["b"]
    assert {path.stem for path in (scene.state / "models").iterdir()} == {"a", "b"}
    shelf.client.set_registered_model_alias("net", "champion", "1")
    assert scene.look() == ["a"]


def test_a_new_file_of_a_registered_model_is_seen(shelf, scene):
    run_id = shelf.run("a", BEST)
    shelf.register("net", f"runs:/{run_id}/{BEST}", run_id=run_id)
    scene.look(models=["net/1"], experiment_name=None)
    known = scene.standing()

    shelf.log(run_id, BEST, b"better")

    assert scene.standing() != known


def test_a_registered_model_that_cannot_be_found_ends_the_invocation(shelf, scene):
    shelf.run("a", BEST)
    scene.config["models"] = ["net@champion"]
    for question in (scene.standing, scene.look):
        with pytest.raises(StoreError, match="registered model net does not exist in sqlite:///"):
            question()


def test_no_registered_model_with_files_says_which_were_asked(shelf, scene):
    run_id = shelf.run("a", "notes.txt")
    shelf.register("net", f"runs:/{run_id}/model", run_id=run_id)

    assert scene.look(models=["net/1"], experiment_name=None) == []
    reason = scene.read("discovery")["reason"]
    assert "no run with a model was found in net/1 of sqlite:///" in reason
    assert "1 runs were seen: 1 without a model" in reason


@pytest.mark.usefixtures("credentials")
def test_a_registered_model_that_a_server_puts_elsewhere_is_passed_over(tmp_path):
    shelf = server_shelf(tmp_path)
    bad, good = shelf.run("bad", BEST), shelf.run("good", BEST)
    name = shelf.client.get_experiment(shelf.experiment).name
    for run_id in (bad, good):
        shelf.register(name, f"runs:/{run_id}/{BEST}", run_id=run_id)
    with stranger() as other:
        relocate(bad, f"{other.uri}/api/2.0/mlflow-artifacts/artifacts/1")
        scene = scene_of(shelf, tmp_path, models=[f"{name}/1", f"{name}/2"], experiment_name=None)

        assert scene.look() == ["good"]
    assert scene.reasons()["bad"].startswith(f"version 1 of registered model {name}: {shelf.uri} says that its artif")
    assert "another host than the store's own" in scene.reasons()["bad"]
    assert other.requests == []


def test_known_registered_models_cost_few_requests(tmp_path):
    shelf = server_shelf(tmp_path)
    run_id = shelf.run("a", "model/MLmodel")
    name = shelf.client.get_experiment(shelf.experiment).name
    shelf.register(name, f"runs:/{run_id}/model", run_id=run_id, alias="champion")
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri, models=[f"{name}@champion"], experiment_name=None)
        assert scene.look() == ["a"]
        proxy.requests.clear()
        scene.standing()

        assert len(proxy.requests) <= 4
        assert proxy.count(LISTING) == 0


def test_hints_are_what_a_run_says_for_rendering(shelf, scene):
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
