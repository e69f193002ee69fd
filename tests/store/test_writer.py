"""Stores opened for writing: which ones are refused, and that opening one changes nothing."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from dailies.core.errors import StoreError, StoreUnreachable
from dailies.store.writer import WritableStore, refuse_unwritable
from helpers.raising import refused
from helpers.stores import BEST, Shelf, configured, folder_shelf, proxied, snapshot, sqlite_shelf


@pytest.fixture
def open_store(tmp_path: Path):
    """Open a store for writing; its private folder is outside the store."""
    return lambda uri: WritableStore(uri, private=tmp_path / "private")


def set_revision(shelf: Shelf, revision: str) -> None:
    with closing(sqlite3.connect(shelf.root / "mlflow.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", [revision])
        connection.commit()


@pytest.mark.parametrize("kind", [sqlite_shelf, folder_shelf])
def test_a_writable_store_is_opened_and_unchanged(tmp_path, open_store, monkeypatch, kind):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shelf = kind(tmp_path / "store")
    run_id = shelf.run("a", BEST)
    before = snapshot(tmp_path)
    store = open_store(shelf.uri)

    store.refuse_unwritable()

    assert store.is_local
    assert store.ask(lambda client: client.get_run(run_id)).info.run_name == "a"
    assert snapshot(tmp_path) == before
    assert "MLFLOW_TRACKING_URI" not in os.environ


@pytest.mark.parametrize(("kind", "name"), [(sqlite_shelf, "mlflow.db"), (folder_shelf, "mlruns")])
def test_a_read_only_store_is_refused(tmp_path, open_store, kind, name):
    shelf = kind(tmp_path / "store")
    path = shelf.root / name
    path.chmod(0o555)

    with refused(StoreError, "store.read_only", str(path)):
        open_store(shelf.uri).refuse_unwritable()
    path.chmod(0o755)


def test_a_store_of_another_mlflow_is_refused_and_not_upgraded(shelf, open_store):
    path = shelf.root / "mlflow.db"
    for revision, code in (("451aebb31d03", "store.older_format"), ("ffffffffffff", "store.newer_format")):
        set_revision(shelf, revision)
        before = path.read_bytes()

        with refused(StoreError, code, str(path)):
            open_store(shelf.uri).refuse_unwritable()
        assert path.read_bytes() == before


def test_a_folder_store_needs_a_folder_for_registered_models(tmp_path, open_store):
    shelf = folder_shelf(tmp_path)
    shelf.run("a", BEST)
    models = Path(shelf.uri) / "models"

    with refused(StoreError, "registry.unsupported", shelf.uri, str(models)):
        open_store(shelf.uri).refuse_without_registry()

    assert not models.exists()
    models.mkdir()
    open_store(shelf.uri).refuse_without_registry()


def test_a_server_without_a_registry_is_refused(open_store):
    with proxied() as proxy:
        store = open_store(proxy.uri)
        store.refuse_without_registry()

        proxy.trouble = lambda method, path: (501, {"error_code": "FEATURE_DISABLED", "message": "no"})
        with refused(StoreError, "registry.unsupported", proxy.uri, "sqlite, mysql, postgresql"):
            store.refuse_without_registry()

        proxy.trouble = lambda method, path: (503, "busy")
        with refused(StoreUnreachable, "store.unreachable", proxy.uri):
            store.refuse_without_registry()


def test_a_write_is_not_repeated_when_its_response_is_cut_short(open_store):
    with proxied() as proxy:
        store = open_store(proxy.uri)
        proxy.trouble = lambda method, path: "cut"

        with pytest.raises(StoreError):
            store.ask(lambda client: client.create_experiment("never repeated"))

        assert proxy.count("POST .*experiments/create") == 1


def test_only_a_database_accepts_metrics_of_models(tmp_path, shelf, open_store):
    folder = folder_shelf(tmp_path / "folder")

    assert open_store(shelf.uri).accepts_model_metrics("1")
    assert not open_store(folder.uri).accepts_model_metrics("1")
    assert not open_store(shelf.uri).accepts_model_metrics("1" * 18)  # the id that a server over a folder returns


def test_an_unreachable_server_is_not_refused_before_there_is_something_to_write(tmp_path):
    assert refuse_unwritable(configured("http://127.0.0.1:9"), tmp_path) is None
