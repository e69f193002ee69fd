import pytest
from dailies import connection
from dailies.discovery import discover, standing
from dailies.errors import StoreError, StoreUnreachable
from dailies.layout import Layout
from scenes import LISTING, Scene, scene_of
from stores import BEST, configured, multiply, proxied, server_folder, server_shelf, snapshot


def test_no_model_at_all_says_how_many_runs_were_seen_and_why(shelf, scene):
    for number in range(3):
        shelf.run(f"killed {number}", BEST, status="KILLED")
    shelf.run("empty")

    assert scene.look() == []
    reason = scene.read("discovery")["reason"]
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
            standing(scene.config | {"experiment_name": ["missing"]}, scene.layout)
        known = scene.standing()
        assert scene.look() == ["a"]
        index = scene.layout.index.read_bytes()

    gone = scene.standing()
    assert gone.fingerprint == known.fingerprint
    assert gone.warning.endswith("or start the server. Going on with the models already known: 1")
    scene.layout.index.unlink()
    assert scene.look() == ["a"]
    assert scene.layout.index.read_bytes() == index
    assert "Going on with the models already known: 1" in caplog.text
    with pytest.raises(StoreUnreachable):
        standing(scene.config | {"filter_status": "KILLED"}, scene.layout)


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
        discover(scene.config, fingerprint=changed, layout=scene.layout)
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
        scene = Scene(Layout(tmp_path), configured(proxy.uri))
    with pytest.raises(StoreUnreachable, match="does not answer"):
        scene.standing()
    with pytest.raises(StoreUnreachable, match="does not answer"):
        discover(scene.config, fingerprint="x", layout=scene.layout)
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
        scene = Scene(Layout(tmp_path), config)
        scene.look(filter_status="KILLED")
        assert "http://***@127.0.0.1" in scene.read("discovery")["reason"]
        scene.look(filter_status="FINISHED")
    warning = scene.standing().warning

    assert "http://***@127.0.0.1" in warning
    written = b"".join(data for data in snapshot(scene.state).values() if data)
    assert b"SECRET" not in written
    assert "SECRET" not in caplog.text + warning


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
        scene.standing()

        assert len(proxy.requests) <= 4
        assert proxy.count(LISTING) == 0
