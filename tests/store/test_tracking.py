"""What a tracking store returns, and what it refuses, for each kind of store."""

import logging
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing, suppress

import pytest
from dailies.core.errors import StoreError, StoreUnreachable
from dailies.store import connection, local, tracking
from dailies.store.tracking import TrackingStore
from helpers.raising import check
from helpers.stores import (
    BEST,
    black_hole,
    folder_shelf,
    forget_start,
    free_port,
    mlflow2,
    multiply,
    proxied,
    runs_of,
    server_folder,
    server_shelf,
    snapshot,
    stranger,
)
from helpers.stores import sqlite_shelf as new_shelf

OLD_ROOT = "/tmp/dailies-mlflow2"


@pytest.fixture
def shelf(tmp_path):
    return new_shelf(tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store with one run, for tests that only ask."""
    shelf = new_shelf(tmp_path_factory.mktemp("shared"))
    shelf.run("a", BEST)
    return shelf


@pytest.fixture
def open_store(tmp_path):
    """Open a store whose private folder is outside the store."""
    return lambda uri, **remap: TrackingStore(uri, private=tmp_path / "private", artifact_remap=remap.get("remap"))


def refusal(question, kind=StoreError, code=None):
    with pytest.raises(kind) as error:
        question()
    assert code is None or error.value.code == code
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    return error.value


def test_more_runs_than_mlflow_returns_at_once_are_read_in_pages(shelf, open_store, monkeypatch):
    seed = shelf.run("seed", params={"a": "1"}, metrics={"loss": 0.5})
    known = {seed, *multiply(shelf.root / "mlflow.db", seed, 1199)}
    tracking_store = open_store(shelf.uri)

    assert {run.run_id for run in runs_of(tracking_store)} == known
    monkeypatch.setattr(tracking, "PAGE", 500)
    paged = runs_of(tracking_store)

    assert len(paged) == 1200
    assert {run.run_id for run in paged} == known
    assert {(run.params["a"], run.metrics["loss"]) for run in paged} == {("1", 0.5)}


def test_several_experiments_are_searched_as_one(shelf, open_store):
    second = shelf.client.create_experiment("second")
    shelf.client.create_experiment("third")
    shelf.run("a")
    shelf.run("b", experiment=second)

    runs = runs_of(open_store(shelf.uri), "exp", "second", order_by="attributes.run_name ASC")

    assert [(run.run_name, run.experiment) for run in runs] == [("a", "exp"), ("b", "second")]


def test_filter_and_order_are_mlflows_own(shelf, open_store):
    for name, psnr in (("low", 20), ("high", 30), ("middle", 25)):
        shelf.run(name, metrics={"val/psnr": psnr})

    question = {"filter_string": "metrics.`val/psnr` > 21", "order_by": "metrics.`val/psnr` DESC"}

    assert [run.run_name for run in runs_of(open_store(shelf.uri), **question)] == ["high", "middle"]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"filter_string": "nonsense"}, "filter nonsense"),
        ({"filter_string": "params.a > 3"}, "Expected a quoted string value"),
        ({"filter_string": "a = 'b' OR c = 'd'"}, "filter a = 'b' OR c = 'd'"),
        ({"order_by": "bogus"}, "order_by bogus"),
        ({"order_by": "metrics.a SIDEWAYS"}, "Invalid ordering key"),
    ],
)
def test_a_bad_filter_or_order_is_named(shared, open_store, question, words):
    check(refusal(lambda: runs_of(open_store(shared.uri), **question)), "store.bad_search", words)


def test_a_run_without_a_start_time_does_not_hide_the_others(shelf, tmp_path, open_store, caplog):
    remote = server_shelf(tmp_path / "remote")
    name = remote.client.get_experiment(remote.experiment).name
    for database, where in ((shelf.root / "mlflow.db", shelf), (server_folder() / "mlflow.db", remote)):
        forget_start(database, where.run("odd"))
        where.run("good")

    assert [run.run_name for run in runs_of(open_store(shelf.uri))] == ["good"]
    assert [run.run_name for run in runs_of(open_store(remote.uri), name, filter_string="params.a != 'b'")] == []
    assert [run.run_name for run in runs_of(open_store(remote.uri), name)] == ["good"]
    assert caplog.text.count("have no start time; they are skipped") == 2


def test_run_ids_come_back_in_the_order_asked_and_once(shelf, open_store):
    second = shelf.client.create_experiment("second")
    run_ids = [shelf.run("a"), shelf.run("b", experiment=second), shelf.run("c")]
    asked = [run_ids[2], run_ids[0], run_ids[1], run_ids[0]]

    runs = open_store(shelf.uri).runs_by_id(asked)

    assert [(run.run_name, run.experiment) for run in runs] == [("c", "exp"), ("a", "exp"), ("b", "second")]


@pytest.mark.parametrize("run_id", ["0" * 32, "not/a/run\n\x1b[31m", "x" * 5000])
def test_an_unknown_run_id_is_named(shared, open_store, run_id):
    error = refusal(lambda: open_store(shared.uri).runs_by_id([run_id]))

    check(error, "store.no_run", f"run {run_id[:9]}", "sqlite:///")


def test_a_deleted_run_id_is_named(shelf, open_store):
    run_id = shelf.run("gone")
    shelf.client.delete_run(run_id)

    check(refusal(lambda: open_store(shelf.uri).runs_by_id([run_id])), "store.run_deleted", f"run {run_id}")


def test_deleted_runs_are_listed_separately(shelf, open_store):
    shelf.client.delete_run(shelf.run("gone"))
    shelf.run("here")
    tracking_store = open_store(shelf.uri)

    assert [run.run_name for run in runs_of(tracking_store)] == ["here"]
    assert [run.run_name for run in runs_of(tracking_store, deleted=True)] == ["gone"]


def test_a_missing_experiment_lists_those_that_exist(shelf, open_store):
    for number in range(25):
        shelf.client.create_experiment(f"more {number:02d}")
    shelf.client.delete_experiment(shelf.client.create_experiment("old"))
    tracking_store = open_store(shelf.uri)

    error = refusal(lambda: tracking_store.experiments(["exp", "expp"]))
    check(error, "store.no_experiment", "experiment 'expp'", "Default, exp, more 00,", " and 7 more")
    check(refusal(lambda: tracking_store.experiments(["old"])), "store.no_experiment", "'old'", "(it was deleted)")
    assert "expp" not in {experiment.name for experiment in shelf.client.search_experiments()}


def test_ready_logged_models_come_newest_first_by_their_run(shelf, open_store, monkeypatch):
    first, second = shelf.run("a"), shelf.run("b")
    models = [shelf.logged_model(first, "MLmodel", name=f"m{number}") for number in range(5)]
    shelf.logged_model(first, "MLmodel", ready=False)
    other = shelf.logged_model(second, "MLmodel")
    monkeypatch.setattr(tracking, "MODELS_PAGE", 2)
    tracking_store = open_store(shelf.uri)

    found = tracking_store.logged_models([shelf.experiment])

    assert {run_id: [model.model_id for model in models] for run_id, models in found.items()} == {
        first: models[::-1],
        second: [other],
    }
    assert [file.path for file in tracking_store.files(found[second][0].artifact_uri)] == ["MLmodel"]


def test_artifacts_are_listed_at_any_depth_but_not_without_end(shelf, open_store, monkeypatch, caplog):
    run_id = shelf.run("a", "root.pth", "a/b/c/d/e/deep.pth", "a/b/c/d/e/f/g/too_deep.pth")
    shelf.stored(run_id, "a/link.pth").symlink_to("/etc/hostname")
    shelf.stored(run_id, "loop").symlink_to(shelf.stored(run_id))
    tracking_store = open_store(shelf.uri)
    uri = runs_of(tracking_store)[0].artifact_uri

    assert [(file.path, file.size) for file in tracking_store.files(uri)] == [
        ("a/b/c/d/e/deep.pth", 18),
        ("root.pth", 8),
    ]
    monkeypatch.setattr(tracking, "ENTRIES", 4)
    assert len(tracking_store.files(uri)) == 1
    assert "more than 4 artifacts" in caplog.text


def test_one_unreadable_location_does_not_break_the_others(shelf, open_store, monkeypatch):
    shelf.run("a", BEST)
    shelf.run("b", BEST)
    tracking_store = open_store(shelf.uri)
    good, bad = (run.artifact_uri for run in runs_of(tracking_store))
    scandir = tracking.os.scandir

    def refuse(folder):
        if str(folder) in bad:
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(tracking.os, "scandir", refuse)
    listed = tracking_store.listings([good, bad])

    assert [file.path for file in listed[good]] == [BEST]
    check(listed[bad], "artifact.unreadable", str(tracking_store.local_folder(bad)), "Permission denied")


def stores_that_are_none(root):
    (root / "text.db").write_text("this is not a database, but it is longer than its header would be" * 9)
    (root / "empty.db").touch()
    with closing(sqlite3.connect(root / "other.db")) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('1')")
        database.commit()
    (root / "folder").mkdir()
    return [f"sqlite:///{root / name}" for name in ("text.db", "empty.db", "other.db")] + [str(root / "folder")]


def test_what_is_not_a_store_is_refused_and_unchanged(tmp_path, open_store):
    uris = stores_that_are_none(tmp_path)
    before = snapshot(tmp_path)

    for uri in uris:
        error = refusal(lambda uri=uri: open_store(uri).experiments(["exp"]))
        check(error, "store.not_mlflow", uri.removeprefix("sqlite:///"))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("uri", ["sqlite:///{}/no.db", "sqlite+pysqlite:///{}/no.db", "{}/no/mlruns", "file://{}/no"])
def test_a_missing_store_is_refused_and_not_created(tmp_path, open_store, uri):
    check(refusal(lambda: open_store(uri.format(tmp_path))), "store.missing", f"{tmp_path}/no", "set mlflow_uri")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uri", ["http://tracker..studio:5000", "http://me:secret@[::1", f"http://{'x' * 64}.studio"])
def test_an_invalid_address_is_refused(open_store, uri):
    error = refusal(lambda: open_store(uri))

    check(error, "store.bad_address", "mlflow_uri")
    assert "secret" not in str(error)


def test_a_database_that_opening_would_change_is_refused_without_its_password(open_store):
    error = refusal(lambda: open_store("postgresql://me:secret@127.0.0.1:1/db?password=hidden"))

    check(error, "store.unsupported_uri", "postgresql://***@127.0.0.1:1/db?password=*** ")


def test_a_damaged_sqlite_file_is_refused(shelf, open_store):
    path = shelf.root / "mlflow.db"
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes(len(data) - 5000))

    assert "malformed" in str(refusal(lambda: open_store(shelf.uri).experiments(["exp"])))


def look_at_everything(tracking_store):
    experiments = tracking_store.experiments(["exp"])
    runs = tracking_store.runs(experiments) + tracking_store.runs(experiments, deleted=True)
    tracking_store.runs_by_id([run.run_id for run in tracking_store.runs(experiments)])
    models = tracking_store.logged_models([experiments[0].experiment_id])
    uris = [run.artifact_uri for run in runs] + [model.artifact_uri for of_run in models.values() for model in of_run]
    tracking_store.listings(uris)
    return runs


@pytest.mark.parametrize("name", ["mlflow.db", "a # b%20é.db"])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_reading_changes_nothing_in_a_sqlite_store(tmp_path, open_store, monkeypatch, name, journal):
    shelf = new_shelf(tmp_path / "store", name)
    shelf.logged_model(shelf.run("a", BEST), "MLmodel")
    shelf.client.delete_run(shelf.run("gone"))
    with closing(sqlite3.connect(tmp_path / "store" / name)) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
    monkeypatch.chdir(tmp_path)
    before = snapshot(tmp_path)

    runs = look_at_everything(open_store(f"sqlite:///store/{name}"))

    assert [run.run_name for run in runs] == ["a", "gone"]
    assert snapshot(tmp_path) == before


def test_runs_in_the_write_ahead_log_of_a_store_behind_a_link_are_found(tmp_path, open_store):
    shelf = new_shelf(tmp_path / "store", "mlflow.db")
    file, link = tmp_path / "store" / "mlflow.db", tmp_path / "link.db"
    link.symlink_to(file)

    with closing(sqlite3.connect(file)) as writer:  # as long as it is open, the log is not merged
        writer.execute("PRAGMA journal_mode = WAL").fetchall()
        writer.execute("SELECT * FROM runs").fetchall()
        shelf.run("a", BEST)
        assert file.with_name("mlflow.db-wal").stat().st_size > 0

        assert [run.run_name for run in runs_of(open_store(f"sqlite:///{link}"))] == ["a"]


def test_reading_changes_nothing_in_a_folder_store(tmp_path, open_store, monkeypatch):
    shelf = folder_shelf(tmp_path / "store")
    shelf.logged_model(shelf.run("a", BEST), "MLmodel")
    shelf.client.delete_run(shelf.run("gone"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    before = snapshot(tmp_path / "store")

    runs = look_at_everything(open_store("store/mlruns"))

    assert [run.run_name for run in runs] == ["a", "gone"]
    assert snapshot(tmp_path / "store") == before
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_read_only_folder_store_without_trash_names_the_missing_folder(tmp_path, open_store):
    shelf = folder_shelf(tmp_path / "store")
    shelf.run("a", BEST)
    mlruns = tmp_path / "store" / "mlruns"
    (mlruns / ".trash").rmdir()
    mlruns.chmod(0o555)

    assert str(mlruns / ".trash") in str(refusal(lambda: runs_of(open_store(shelf.uri)), code="store.no_trash"))

    mlruns.chmod(0o755)
    assert len(runs_of(open_store(shelf.uri))) == 1


def test_an_old_sqlite_store_is_read_through_an_upgraded_copy(tmp_path, open_store, monkeypatch, caplog):
    root = mlflow2(tmp_path / "store # 1%")
    monkeypatch.chdir(tmp_path)
    before = snapshot(root)
    remap = {f"{OLD_ROOT}/artifacts": str(root / "artifacts")}

    first = open_store(f"sqlite:///{root}/mlflow.db", remap=remap)
    (tmp_path / "private" / "of_an_older_state.db").parent.mkdir()
    (tmp_path / "private" / "of_an_older_state.db").touch()
    runs = runs_of(first, "old", order_by="attributes.run_name ASC")
    (copy,) = (tmp_path / "private").iterdir()
    written = copy.stat().st_mtime_ns
    again = runs_of(open_store(f"sqlite:///{root}/mlflow.db"), "old", order_by="attributes.run_name ASC")

    assert [run.run_name for run in runs] == ["pickled", "weights"]
    assert runs[1].metrics == {"train/loss": 0.25}
    assert again == runs
    assert [path.stat().st_mtime_ns for path in (tmp_path / "private").iterdir()] == [written]
    assert [record.levelno for record in caplog.records if "an older MLflow" in record.message] == [logging.WARNING]
    assert snapshot(root) == before
    assert {path.name for path in tmp_path.iterdir()} == {"private", "store # 1%"}
    assert [file.path for file in first.files(runs[1].artifact_uri)] == [
        "checkpoints/best_model_unet.pth",
        "checkpoints/last.pth",
    ]


def test_two_invocations_may_upgrade_a_copy_at_once(tmp_path, open_store, monkeypatch):
    root, upgrade, seen = mlflow2(tmp_path / "store"), local.subprocess.run, []

    def look():
        return sorted(run.run_name for run in runs_of(open_store(f"sqlite:///{root}/mlflow.db"), "old"))

    def upgrade_after_another(*command, **how):
        monkeypatch.setattr(local.subprocess, "run", upgrade)
        seen.append(look())
        (copy,) = (tmp_path / "private").glob("*.db")
        shutil.copyfile(copy, tmp_path / "private" / command[0][-1].removeprefix("sqlite:///"))
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(local.subprocess, "run", upgrade_after_another)

    assert look() == ["pickled", "weights"]
    assert seen == [["pickled", "weights"]]
    assert [path.suffix for path in (tmp_path / "private").iterdir()] == [".db"]


def test_a_store_of_a_newer_mlflow_is_refused(shelf, open_store):
    with closing(sqlite3.connect(shelf.root / "mlflow.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
        database.commit()

    error = refusal(lambda: open_store(shelf.uri).experiments(["exp"]))
    check(error, "store.newer_format", str(shelf.root / "mlflow.db"))
    assert not (shelf.root / "private").exists()


def test_a_failed_upgrade_is_reported_and_retried(tmp_path, open_store, monkeypatch):
    root = mlflow2(tmp_path)
    monkeypatch.setattr(local.sys, "executable", "false")

    for _ in range(2):
        error = refusal(lambda: open_store(f"sqlite:///{root}/mlflow.db").experiments(["old"]))
        check(error, "store.upgrade_failed", f"{root}/mlflow.db")


def test_a_moved_store_is_found_through_artifact_remap(tmp_path, open_store):
    root = mlflow2(tmp_path)
    lost = open_store(str(root / "mlruns"))
    for run in runs_of(lost, "old"):
        assert not lost.files(run.artifact_uri)
        text = lost.moved(run.artifact_uri)
        assert "set artifact_remap" in text
        assert f"{{{OLD_ROOT}/mlruns/" in text

    for remap in ({OLD_ROOT: str(root)}, {f"file://{OLD_ROOT}/mlruns/": f"{root}/mlruns/"}):
        found = open_store(str(root / "mlruns"), remap=remap)
        paths = {run.run_name: [file.path for file in found.files(run.artifact_uri)] for run in runs_of(found, "old")}
        assert paths["weights"] == ["checkpoints/best_model_unet.pth", "checkpoints/last.pth"]
        assert "model/MLmodel" in paths["pickled"]
        assert not any(found.moved(run.artifact_uri) for run in runs_of(found, "old"))


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("/old/1/run", "/new/1/run"),
        ("file:///old/1/a%20b", "/new/1/a b"),
        ("/old/special/1/run", "s3://bucket/1/run"),
        ("/older/1/run", "/older/1/run"),
        ("s3://old/1", "s3://new/1"),
        ("mlflow-artifacts:/1/run", "mlflow-artifacts:/1/run"),
    ],
)
def test_the_longest_prefix_is_remapped(shared, open_store, uri, location):
    remap = {"/old": "/new/", "/old/special/": "s3://bucket", "s3://old": "s3://new"}

    assert open_store(shared.uri, remap=remap).locations.place(uri) == location


def test_a_run_without_artifacts_is_not_taken_for_moved(shelf, open_store):
    shelf.run("a", BEST)
    run_id = shelf.run("empty")
    tracking_store = open_store(shelf.uri)
    (run,) = tracking_store.runs_by_id([run_id])

    assert tracking_store.files(run.artifact_uri) == ()
    assert tracking_store.moved(run.artifact_uri) is None


def test_a_server_returns_what_its_store_contains(tmp_path, open_store):
    shelf = server_shelf(tmp_path)
    name = shelf.client.get_experiment(shelf.experiment).name
    run_id = shelf.run("a", BEST, "root.pth", params={"a": "1"})
    model = shelf.logged_model(run_id, "MLmodel")
    tracking_store = open_store(shelf.uri)

    (run,) = runs_of(tracking_store, name)
    uris = [run.artifact_uri, tracking_store.logged_models([run.experiment_id])[run_id][0].artifact_uri]
    listed = tracking_store.listings(uris)

    assert run.artifact_uri.startswith("mlflow-artifacts:/")
    assert [[(file.path, file.size) for file in listed[uri]] for uri in uris] == [
        [(BEST, len(BEST)), ("root.pth", 8)],
        [("MLmodel", 7)],
    ]
    assert model in uris[1]
    assert [run.run_id for run in tracking_store.runs_by_id([run_id])] == [run_id]
    check(
        refusal(lambda: runs_of(tracking_store, name, filter_string="nonsense")), "store.bad_search", "filter nonsense"
    )
    check(refusal(lambda: tracking_store.runs_by_id(["0" * 32])), "store.no_run", "0" * 32, "http")


def test_a_missing_server_is_noticed_at_once(open_store):
    start = time.monotonic()
    text = str(refusal(lambda: open_store(f"http://me:secret@127.0.0.1:{free_port()}"), StoreUnreachable))

    assert "http://***@127.0.0.1" in text
    assert "does not answer: [Errno 111] Connection refused" in text
    assert "secret" not in text
    assert time.monotonic() - start < 5


def test_a_server_that_never_answers_is_given_up_within_ten_seconds(open_store, monkeypatch):
    assert connection.CONNECT_SECONDS + connection.ANSWER_SECONDS < 10
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.5)
    start = time.monotonic()
    with black_hole() as uri:
        text = str(refusal(lambda: open_store(uri), StoreUnreachable))

    assert "does not answer: " in text
    assert time.monotonic() - start < 3


def test_a_server_in_trouble_counts_as_unreachable(open_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with proxied() as proxy:
        proxy.trouble = lambda method, path: (503, "busy")
        tracking_store = open_store(proxy.uri)
        text = str(refusal(lambda: tracking_store.experiments(["exp"]), StoreUnreachable))
        assert 'answers 503: "busy"' in text

        proxy.trouble = lambda method, path: "drop"
        text = str(refusal(lambda: tracking_store.experiments(["exp"]), StoreUnreachable))
        assert "Remote end closed connection without response" in text
    text = str(refusal(lambda: tracking_store.experiments(["exp"]), StoreUnreachable))
    assert "does not answer: [Errno 111] Connection refused" in text


def test_a_server_that_does_not_answer_a_question_in_time_is_unreachable(open_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with proxied() as proxy:
        proxy.trouble = lambda method, path: None if path == "/health" else time.sleep(2)
        tracking_store = open_store(proxy.uri)
        assert "does not answer: " in str(refusal(lambda: tracking_store.experiments(["exp"]), StoreUnreachable))


def test_a_server_older_than_mlflow_3_has_no_logged_models(open_store):
    with proxied() as proxy:
        proxy.trouble = lambda method, path: (404, "not found") if "logged-models" in path else None

        assert open_store(proxy.uri).logged_models(["0"]) == {}


def test_the_users_environment_takes_precedence(shared, open_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    open_store(shared.uri)

    assert tracking.os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert tracking.os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "3"


@pytest.mark.parametrize("asked", ["search", "mlflow-artifacts", "health"])
@pytest.mark.parametrize("given", ["password", "token", "address"])
def test_a_redirect_to_another_host_carries_no_credentials(tmp_path, open_store, monkeypatch, asked, given):
    if given == "password":
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hush")
    elif given == "token":
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
    shelf = server_shelf(tmp_path)
    shelf.run("a", BEST)
    name = shelf.client.get_experiment(shelf.experiment).name
    with proxied() as proxy, stranger() as other:
        proxy.trouble = lambda method, path: (302, f"{other.uri}{path}") if asked in path else None
        uri = proxy.uri.replace("//", "//me:hush@") if given == "address" else proxy.uri
        with suppress(StoreError):
            tracking_store = open_store(uri)
            for run in runs_of(tracking_store, name):
                tracking_store.files(run.artifact_uri)

    assert other.requests
    assert not any("authorization" in headers for headers in other.headers)
    assert not any("hush" in value for headers in other.headers for value in headers.values())
    assert any("authorization" in headers for headers in proxy.headers)
