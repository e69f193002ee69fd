import subprocess
import sys

import pytest
from dailies.core.errors import StoreError, StoreUnreachable
from dailies.discovery.discover import discover
from dailies.discovery.snapshot import SavedSnapshot
from dailies.discovery.take_snapshot import take_snapshot
from dailies.state.layout import Layout
from dailies.store import changes
from helpers import REPOSITORY
from helpers.raising import refused
from helpers.scenes import LISTING, Scene, scene_of
from helpers.stores import (
    BEST,
    configured,
    folder_shelf,
    multiply,
    proxied,
    server_folder,
    server_shelf,
    snapshot,
    sqlite_shelf,
)


def test_without_a_model_the_error_counts_runs_by_reason(shelf, scene):
    for number in range(3):
        shelf.run(f"killed {number}", BEST, status="KILLED")
    shelf.run("empty")

    assert scene.look() == []
    reason = scene.reason
    assert "no run with a model was found in exp of sqlite:///" in reason
    assert "among 4 runs: 3 with another status, 1 without a model" in reason
    assert reason.endswith("Each with its reason is in .dailies/skipped.json")


def test_discovery_changes_nothing_but_its_state(shelf, scene, tmp_path, monkeypatch):
    shelf.logged_model(shelf.run("a", BEST), "MLmodel")
    monkeypatch.chdir(tmp_path)
    before = snapshot(shelf.root)

    scene.look()

    assert snapshot(shelf.root) == before
    assert {path.name for path in tmp_path.iterdir()} == {"store", ".dailies"}


@pytest.mark.parametrize("settled", [changes.SETTLED, -(10**12)])
@pytest.mark.parametrize("made", [sqlite_shelf, folder_shelf])
def test_the_fingerprint_changes_with_whatever_discovery_would_see(made, settled, tmp_path, monkeypatch):
    """Once without the state of the store's files, which has just changed, and once with it."""
    monkeypatch.setattr(changes, "SETTLED", settled)
    shelf = made(tmp_path / "store")
    scene = scene_of(shelf, tmp_path)
    run_id = shelf.run("a", BEST, metrics={"loss": float("nan")})
    seen = [scene.take_snapshot()]

    def is_seen() -> bool:
        seen.append(scene.take_snapshot())
        return seen[-1] != seen[-2]

    assert not is_seen()
    shelf.run("b", BEST)
    assert is_seen()
    shelf.log(run_id, BEST, b"better")
    assert is_seen()
    shelf.log(run_id, "checkpoints/last.pth")
    assert is_seen()
    shelf.client.log_metric(run_id, "loss", 0.5)
    assert is_seen()
    shelf.client.set_tag(run_id, "mine", "x")
    assert is_seen()
    shelf.logged_model(run_id, "MLmodel")
    assert is_seen()
    shelf.client.delete_run(run_id)
    assert is_seen()
    scene.change(checkpoint_pattern="*best*")
    assert is_seen()
    scene.change(artifact_remap={"/old": "/new"})
    assert is_seen()
    scene.look()
    assert not is_seen()
    assert len({one.fingerprint for one in seen}) == 10
    assert not any(one.warning for one in seen)


@pytest.mark.parametrize("made", [sqlite_shelf, folder_shelf])
def test_an_unchanged_local_store_is_planned_without_mlflow(made, tmp_path, monkeypatch):
    monkeypatch.setattr(changes, "SETTLED", -(10**12))
    shelf = made(tmp_path / "store")
    run_id = shelf.run("a", BEST, metrics={"loss": float("nan")})
    shelf.logged_model(run_id, "MLmodel")
    scene = scene_of(shelf, tmp_path)
    first = scene.take_snapshot()
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dailies.discovery.take_snapshot import take_snapshot\n"
        "from dailies.planning.validation import validated\n"
        "from dailies.state.layout import Layout\n"
        "from dailies.store import changes\n"
        "changes.SETTLED = -(10**12)\n"
        f"settings = validated({scene.settings.as_config()!r}, {{}})\n"
        "found = take_snapshot(settings, Layout(Path(sys.argv[1])))\n"
        "print(found.fingerprint, 'mlflow' in sys.modules)"
    )

    def planned() -> list[str]:
        command = [sys.executable, "-c", code, str(scene.layout.output_dir)]
        answer = subprocess.run(command, cwd=REPOSITORY / "scripts", capture_output=True, text=True, check=True)
        return answer.stdout.split()

    assert planned() == [first.fingerprint, "False"]
    shelf.run("b", BEST)
    second, is_imported = planned()
    assert second != first.fingerprint
    assert is_imported == "True"
    assert planned() == [second, "False"]
    shelf.log(run_id, BEST, b"better")
    assert planned()[0] not in {first.fingerprint, second}


def test_hundreds_of_known_runs_cost_a_handful_of_requests(tmp_path):
    """The requests are counted here; their time is measured by benchmarks/discovery.py."""
    shelf = server_shelf(tmp_path)
    multiply(server_folder() / "mlflow.db", shelf.run("seed", BEST), 99)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.take_snapshot()
        proxy.requests.clear()
        scene.take_snapshot()

        assert len(proxy.requests) <= 4


def test_mlflow_is_asked_once_while_an_invocation_is_planned(tmp_path):
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    deleted = ("POST /api/2.0/mlflow/runs/search", "GET /api/2.0/mlflow/experiments/get-by-name")
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)

        def asked(question) -> list[str]:
            proxy.requests.clear()
            question()
            return [request.partition("?")[0] for request in proxy.requests]

        first = asked(scene.take_snapshot)
        assert (
            len([request for request in first if request.startswith(LISTING)]) == 2
        )  # the run's folder, the one in it
        assert [first.count(request) for request in deleted] == [2, 1]
        planned = asked(scene.take_snapshot)
        assert len(planned) == 4
        assert asked(scene.look) == planned

        shelf.run("b", BEST)
        changed = scene.take_snapshot().fingerprint
        proxy.trouble = lambda method, path: "drop"
        assert asked(lambda: discover(scene.settings, fingerprint=changed, layout=scene.layout)) == []
        assert scene.read("discovery")["models"] == ["a", "b"]


def test_a_dry_run_saves_nothing_and_a_first_one_stops_at_one_model(tmp_path):
    shelf = server_shelf(tmp_path)
    for number in range(3):
        shelf.run(f"run {number}", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.take_snapshot(dry_run=True)
        assert not scene.state.exists()

        scene.look()
        before = snapshot(scene.state)
        shelf.run("new", BEST)
        assert scene.take_snapshot(dry_run=True).fingerprint != scene.read("discovery")["fingerprint"]
        assert snapshot(scene.state) == before


def test_afresh_ignores_known_listings(tmp_path):
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.look()
        proxy.requests.clear()

        assert scene.take_snapshot(afresh=True).fingerprint == scene.read("discovery")["fingerprint"]
        assert proxy.count(LISTING) == 2


def test_a_snapshot_reads_as_it_was_written(shelf, scene):
    run_id = shelf.run("a", BEST, "notes", metrics={"loss": float("nan")}, tags={"mine": "x"})
    shelf.logged_model(run_id, "MLmodel")
    shelf.register("net", f"runs:/{run_id}/{BEST}", run_id=run_id, alias="champion")
    scene.look(models=["net@champion"])

    saved = SavedSnapshot.load_if_there(scene.layout.snapshot)

    assert saved.snapshot.registered[0].version.name == "net"
    assert saved.snapshot.runs[0] == saved.snapshot.registered[0].run
    assert [*saved.snapshot.logged] == [run_id]
    saved.save(scene.layout.snapshot)
    assert SavedSnapshot.load_if_there(scene.layout.snapshot) == saved
    assert scene.take_snapshot().fingerprint == saved.fingerprint


def test_the_index_of_an_earlier_version_counts_as_known(tmp_path):
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.look()
        scene.layout.snapshot.unlink()

    gone = scene.take_snapshot()

    assert gone.fingerprint == scene.read("discovery")["fingerprint"]
    assert gone.warning.endswith("Continuing with the models already known: 1")
    with refused(StoreError, "store.no_snapshot", "snapshot.json"):
        scene.look()


def test_known_models_stay_usable_while_the_server_is_down(tmp_path):
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        with pytest.raises(StoreError):
            take_snapshot(scene.settings.model_copy(update={"experiment_name": ("missing",)}), scene.layout)
        known = scene.take_snapshot()
        assert scene.look() == ["a"]
        index = scene.layout.index.read_bytes()

    gone = scene.take_snapshot()
    assert gone.fingerprint == known.fingerprint
    assert gone.warning.endswith("Continuing with the models already known: 1")
    scene.layout.index.unlink()
    assert scene.look() == ["a"]
    assert scene.layout.index.read_bytes() == index
    with refused(StoreUnreachable, "store.unreachable"):
        take_snapshot(scene.settings.model_copy(update={"filter_status": "KILLED"}), scene.layout)


def test_a_server_that_fails_during_the_queries_leaves_the_known_models(tmp_path):
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri)
        scene.look()
        known = scene.take_snapshot()
        shelf.run("b", BEST)

        proxy.trouble = lambda method, path: (503, "sorry") if "runs/search" in path else None
        gone = scene.take_snapshot()
        assert (gone.fingerprint, scene.look()) == (known.fingerprint, ["a"])
        assert gone.warning.endswith("Continuing with the models already known: 1")

        proxy.trouble = lambda method, path: None
        assert scene.take_snapshot().fingerprint != known.fingerprint
        assert scene.look() == ["a", "b"]


def test_an_unreachable_server_without_known_models_is_an_error(tmp_path):
    with proxied() as proxy:
        scene = Scene(Layout(tmp_path), configured(proxy.uri))
    with refused(StoreUnreachable, "store.unreachable"):
        scene.take_snapshot()
    assert not scene.state.exists()


def test_a_password_in_the_environment_is_written_nowhere(tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG", logger="dailies")
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    shelf.run("b")
    experiment = shelf.client.get_experiment(shelf.experiment).name
    with proxied() as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri.replace("//", "//me:SECRET@"))
        settings = configured(None, experiment_name=experiment).model_copy(update={"mlflow_uri": None})
        scene = Scene(Layout(tmp_path), settings)
        scene.look(filter_status="KILLED")
        assert "http://***@127.0.0.1" in scene.reason
        scene.look(filter_status="FINISHED")
    warning = scene.take_snapshot().warning

    assert "http://***@127.0.0.1" in warning
    written = b"".join(data for data in snapshot(scene.state).values() if data)
    assert b"SECRET" not in written
    assert "SECRET" not in caplog.text + warning


def test_an_alias_that_moves_names_another_model(shelf, scene):
    first, second = shelf.run("a", BEST), shelf.run("b", BEST)
    shelf.register("net", f"runs:/{first}/{BEST}", run_id=first, alias="champion")
    shelf.register("net", f"runs:/{second}/{BEST}", run_id=second)
    scene.change(models=["net@champion"], experiment_name=None)
    assert scene.look() == ["a"]
    known = scene.take_snapshot()
    assert scene.take_snapshot() == known

    shelf.client.set_registered_model_alias("net", "champion", "2")

    assert scene.take_snapshot() != known
    assert scene.look() == ["b"]
    assert {path.stem for path in (scene.state / "models").iterdir()} == {"a", "b"}
    shelf.client.set_registered_model_alias("net", "champion", "1")
    assert scene.look() == ["a"]


def test_a_new_file_of_a_registered_model_is_seen(shelf, scene):
    run_id = shelf.run("a", BEST)
    shelf.register("net", f"runs:/{run_id}/{BEST}", run_id=run_id)
    scene.look(models=["net/1"], experiment_name=None)
    known = scene.take_snapshot()

    shelf.log(run_id, BEST, b"better")

    assert scene.take_snapshot() != known


def test_a_registered_model_that_cannot_be_found_ends_the_invocation(shelf, scene):
    shelf.run("a", BEST)
    scene.change(models=["net@champion"])
    for question in (scene.take_snapshot, scene.look):
        with refused(StoreError, "registry.no_model", "net", "sqlite:///"):
            question()


def test_without_files_the_error_names_the_registered_models(shelf, scene):
    run_id = shelf.run("a", "notes.txt")
    shelf.register("net", f"runs:/{run_id}/model", run_id=run_id)

    assert scene.look(models=["net/1"], experiment_name=None) == []
    reason = scene.reason
    assert "no run with a model was found in net/1 of sqlite:///" in reason
    assert "among 1 run: 1 without a model" in reason


def test_known_registered_models_cost_few_requests(tmp_path):
    shelf = server_shelf(tmp_path)
    run_id = shelf.run("a", "model/MLmodel")
    name = shelf.client.get_experiment(shelf.experiment).name
    shelf.register(name, f"runs:/{run_id}/model", run_id=run_id, alias="champion")
    with proxied() as proxy:
        scene = scene_of(shelf, tmp_path, mlflow_uri=proxy.uri, models=[f"{name}@champion"], experiment_name=None)
        assert scene.look() == ["a"]
        proxy.requests.clear()
        scene.take_snapshot()

        assert len(proxy.requests) <= 4
        assert proxy.count(LISTING) == 0
