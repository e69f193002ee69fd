"""Versions of registered models, in every kind of store."""

import os
import sqlite3
import uuid
from contextlib import chdir, closing

import pytest
from dailies.core.errors import StoreError, StoreUnreachable
from dailies.store.registry import registered
from dailies.store.tracking import TrackingStore
from helpers.raising import check
from helpers.stores import BEST, folder_shelf, proxied, relocate, server_shelf, snapshot, sqlite_shelf


@pytest.fixture(params=[sqlite_shelf, folder_shelf, server_shelf])
def shelf(request, tmp_path):
    return request.param(tmp_path / "store")


@pytest.fixture
def local(tmp_path):
    return sqlite_shelf(tmp_path / "store")


@pytest.fixture
def name():
    """A unique name: the server has one registry for all tests."""
    return f"net {uuid.uuid4().hex[:8]}"


@pytest.fixture
def find(tmp_path):
    """Find versions in a store."""
    return lambda shelf, *asked: registered(TrackingStore(shelf.uri, private=tmp_path / "private"), asked)


def refusal(question):
    with pytest.raises(StoreError) as error:
        question()
    assert len(str(error.value)) < 1500
    return error.value


def test_versions_and_aliases_are_found_in_the_order_asked(shelf, find, name):
    first, second = shelf.run("a", BEST, "model/MLmodel", params={"lr": "1"}), shelf.run("b", "model/MLmodel")
    shelf.register(name, f"runs:/{first}/model", run_id=first)
    shelf.register(name, f"runs:/{second}/model", run_id=second, alias="champion")

    two, one = find(shelf, f"{name}@champion", f"models:/{name}/01")

    assert [(item.version.version, item.version.alias, item.run.run_name) for item in (two, one)] == [
        ("2", "champion", "b"),
        ("1", None, "a"),
    ]
    assert one.run.params == {"lr": "1"}
    assert (one.uri, one.path) == (one.run.artifact_uri, "model")


def test_every_kind_of_source_leads_to_its_run_and_files(shelf, find, name, monkeypatch):
    run_id = shelf.run("a", BEST, "model/MLmodel")
    model_id = shelf.logged_model(run_id, "MLmodel")
    location = shelf.client.get_run(run_id).info.artifact_uri
    shelf.register(name, f"models:/{model_id}")
    shelf.register(name, f"runs:/{run_id}/{BEST}", run_id=run_id)
    shelf.register(name, f"{location}/model", run_id=run_id)
    shelf.register(name, location, run_id=run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shelf.uri)  # MLflow 3.17 copies a version by way of the default store
    shelf.client.copy_model_version(f"models:/{name}/1", f"{name} copy")

    found = find(shelf, *(f"{name}/{number}" for number in range(1, 5)), f"{name} copy/1")

    assert {item.run.run_id for item in found} == {run_id}
    assert [item.path for item in found] == ["", BEST, "model", "", ""]
    assert [item.uri for item in found[1:4]] == [location] * 3
    assert model_id in found[0].uri
    assert found[4].uri == found[0].uri


def test_an_error_lists_the_versions_and_models_that_exist(shelf, find, name):
    run_id = shelf.run("a", "model/MLmodel")
    for alias in ("champion", None, "last"):
        shelf.register(name, f"runs:/{run_id}/model", run_id=run_id, alias=alias)
    there = (name, ": 1, 2, 3;", "champion (version 1), last (version 3)")

    check(refusal(lambda: find(shelf, f"{name}@champ")), "registry.no_version", "alias champ", *there)
    check(refusal(lambda: find(shelf, f"{name}/9")), "registry.no_version", "version 9", *there)
    for asked in ("nobody/1", "nobody@champion"):
        error = refusal(lambda asked=asked: find(shelf, asked))
        check(error, "registry.no_model", "registered model nobody", "; registered models there: ")


def test_models_are_listed_by_a_server_without_prompts(tmp_path, find, name):
    shelf = server_shelf(tmp_path / "store")
    run_id = shelf.run("a", BEST)
    shelf.register(name, f"runs:/{run_id}/checkpoints", run_id=run_id)
    with proxied() as proxy:
        # as MLflow 2.14 does: no model has the tag that tells a prompt from a model
        proxy.trouble = lambda method, path: (200, {}) if "registered-models/search" in path and "tag" in path else None
        shelf.uri = proxy.uri
        assert name in str(refusal(lambda: find(shelf, "nobody/1"))).partition("; registered models there: ")[2]
        assert proxy.count("registered-models/search") == 1


def test_a_store_without_registered_models_lists_none(tmp_path, find):
    for make in (sqlite_shelf, folder_shelf):
        shelf = make(tmp_path / make.__name__)
        shelf.run("a", BEST)
        before = snapshot(tmp_path / make.__name__)

        check(refusal(lambda shelf=shelf: find(shelf, "net/1")), "registry.no_model", "net", "there: none")
        assert snapshot(tmp_path / make.__name__) == before


def test_reading_a_registry_changes_nothing(tmp_path, find, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for make in (sqlite_shelf, folder_shelf):
        shelf, elsewhere = make(tmp_path / make.__name__), tmp_path / f"beside {make.__name__}"
        shelf.register("net", f"models:/{shelf.logged_model(shelf.run('a'), 'MLmodel')}", alias="champion")
        before = snapshot(tmp_path / make.__name__)
        elsewhere.mkdir()
        with chdir(elsewhere):
            find(shelf, "net@champion", "net/1")

        assert snapshot(tmp_path / make.__name__) == before
        assert not list(elsewhere.iterdir())
        assert "MLFLOW_TRACKING_URI" not in os.environ


def test_a_version_of_a_deleted_run_is_refused(shelf, find, name):
    run_id = shelf.run("a", "model/MLmodel")
    shelf.register(name, f"runs:/{run_id}/model", run_id=run_id)
    shelf.client.delete_run(run_id)

    error = refusal(lambda: find(shelf, f"{name}/1"))
    check(error, "registry.version_unusable", "version 1", name, f"run {run_id}", "deleted", "its versions: 1;")


def test_a_version_without_a_run_is_refused(local, find):
    local.register("net", "runs:/0123/model")
    local.register("net", (local.root / "files").as_uri())

    missing = ("version 1", "net", "run 0123", local.uri, "its versions: 1, 2;")
    check(refusal(lambda: find(local, "net/1")), "registry.version_unusable", *missing)
    check(refusal(lambda: find(local, "net/2")), "registry.version_unusable", "version 2", "no run")


def change(shelf, statement, *values):
    with closing(sqlite3.connect(shelf.root / "mlflow.db")) as connection:
        connection.execute(statement, values)
        connection.commit()


def test_a_version_that_is_not_ready_is_refused(local, find):
    run_id = local.run("a", "model/MLmodel")
    local.register("net", f"runs:/{run_id}/model", run_id=run_id)
    change(local, "UPDATE model_versions SET status = 'PENDING_REGISTRATION'")

    status = ("PENDING_REGISTRATION", "its versions: 1 (PENDING_REGISTRATION);")
    check(refusal(lambda: find(local, "net/1")), "registry.version_not_ready", "version 1", "net", *status)


def test_a_version_of_a_missing_logged_model_is_refused(local, find):
    model_id = local.logged_model(local.run("a"), "MLmodel")
    local.register("net", f"models:/{model_id}")
    local.client.delete_logged_model(model_id)

    error = refusal(lambda: find(local, "net/1"))
    check(error, "registry.logged_model_missing", "version 1", "net", model_id, local.uri, "its versions: 1;")


def test_a_circle_of_copies_ends(local, find):
    run_id = local.run("a", "model/MLmodel")
    local.register("net", f"runs:/{run_id}/model", run_id=run_id)
    change(local, "UPDATE model_versions SET source = 'models:/net/1'")

    (item,) = find(local, "net/1")

    assert TrackingStore(local.uri, private=local.root).locations.refusal(item.uri)


def test_names_with_special_characters_are_found(local, find):
    run_id = local.run("a", "model/MLmodel")
    for odd in ("it's", "a@b", "x \u202e y", "100%"):
        local.register(odd, f"runs:/{run_id}/model", run_id=run_id)

        assert find(local, f"{odd}/1")[0].version.name == odd
        check(refusal(lambda odd=odd: find(local, f"{odd}/7")), "registry.no_version", "version 7", ": 1; ")


def test_twenty_versions_are_listed_and_the_rest_counted(local, find):
    run_id = local.run("a", "model/MLmodel")
    local.register("net", f"runs:/{run_id}/model", run_id=run_id)
    columns = "name, creation_time, last_updated_time, current_stage, source, run_id, status, storage_location"
    for number in range(2, 24):
        copy = f"INSERT INTO model_versions (version, {columns}) SELECT {number}, {columns} FROM model_versions"
        change(local, f"{copy} WHERE version = 1")

    check(refusal(lambda: find(local, "net/99")), "registry.no_version", ": 1, 2, 3, 4, ", " and 3 more; ")


def test_a_server_that_does_not_answer_is_not_taken_for_an_empty_registry(tmp_path, find, name):
    shelf = server_shelf(tmp_path)
    with proxied() as proxy:
        proxy.trouble = lambda method, path: (503, "busy") if "model-versions" in path else None
        shelf.uri = proxy.uri

        assert type(refusal(lambda: find(shelf, f"{name}/1"))) is StoreUnreachable


def test_the_location_of_a_version_is_that_of_its_run(tmp_path, find, name):
    shelf = server_shelf(tmp_path)
    run_id = shelf.run("a", "model/MLmodel")
    shelf.register(name, f"runs:/{run_id}/model", run_id=run_id)
    relocate(run_id, "file:///etc")

    (item,) = find(shelf, f"{name}/1")

    assert (item.uri, item.path) == ("file:///etc", "model")
