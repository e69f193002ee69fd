"""The model cache: what is served from it, and that nothing wrong with it concerns a model."""

import io
import logging
import os
import stat
import threading
from pathlib import Path

import pytest
import torch
from dailies import cache as module
from dailies import files
from dailies.cache import ModelCache
from dailies.catalog import Artifact
from dailies.download import receive
from dailies.entities import StoredFile
from dailies.errors import StoreError
from dailies.store import TrackingStore
from stores import BEST, proxied, server_shelf, sqlite_shelf

FILE = r"GET /api/2.0/mlflow-artifacts/artifacts/.*\.pth"
LOGGED = "mlflow-artifacts:/1/models/m-" + "0a" * 16 + "/artifacts"
WANTED = (StoredFile("MLmodel", 3), StoredFile("data/model.pth", 5))


def weights() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer)
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A model's files, as they were downloaded."""
    (tmp_path / "draft" / "data").mkdir(parents=True)
    (tmp_path / "draft" / "MLmodel").write_bytes(b"abc")
    (tmp_path / "draft" / "data" / "model.pth").write_bytes(b"12345")
    return tmp_path / "draft"


@pytest.fixture
def kept(tmp_path: Path, source: Path) -> ModelCache:
    """A cache with that model."""
    cache = ModelCache(tmp_path / "cache")
    cache.keep("ab12", WANTED, source)
    return cache


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def objects(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "cache" / "objects").rglob("*") if path.is_file())


def test_a_model_that_was_kept_is_served(kept, source, tmp_path, caplog):
    assert kept.fetch("ab12", WANTED, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(source)
    assert not kept.fetch("cd34", WANTED, tmp_path / "other")
    assert caplog.text == ""
    assert {path.name for path in objects(tmp_path)} == {files.sha256_of(source / file.path) for file in WANTED}


def test_a_file_that_two_models_have_is_kept_once(kept, source, tmp_path):
    before = [path.stat().st_ino for path in objects(tmp_path)]

    kept.keep("cd34", WANTED, source)

    assert [path.stat().st_ino for path in objects(tmp_path)] == before


def test_only_a_logged_model_has_a_name_for_ever():
    cache = ModelCache(Path("nowhere"))
    key = cache.key("http://a", LOGGED, WANTED)

    assert key
    assert cache.key("http://a", LOGGED, WANTED[::-1]) == key
    others = [
        cache.key("http://b", LOGGED, WANTED),
        cache.key("http://a", LOGGED.replace("0a", "0b"), WANTED),
        cache.key("http://a", LOGGED, (WANTED[0], StoredFile("data/model.pth", 6))),
        cache.key("http://a", LOGGED, WANTED[:1]),
    ]
    assert len({key, *others}) == 5
    assert cache.key("http://a", "mlflow-artifacts:/1/" + "0a" * 16 + "/artifacts", WANTED) is None
    assert cache.key("http://a", f"{LOGGED}/models/m-1/artifacts", WANTED) is None
    assert cache.key("http://a", LOGGED, (StoredFile("MLmodel", None),)) is None


@pytest.mark.parametrize("damage", [b"", b"1234", b"1234x", b"123456"], ids=["empty", "cut", "flipped", "longer"])
def test_a_damaged_file_is_taken_out_and_replaced(kept, source, tmp_path, caplog, damage):
    (whole,) = [path for path in objects(tmp_path) if path.read_bytes() == b"12345"]
    whole.chmod(0o644)
    whole.write_bytes(damage)

    assert not kept.fetch("ab12", WANTED, tmp_path / "new")
    assert f"{whole} is damaged and is fetched again" in caplog.text
    assert not whole.exists()

    kept.keep("ab12", WANTED, source)
    assert kept.fetch("ab12", WANTED, tmp_path / "again")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"MLmodel": 3}', b'{"MLmodel": "../../etc/passwd"}', b"\xff"])
def test_a_damaged_index_is_no_entry(kept, source, tmp_path, text):
    (index,) = (tmp_path / "cache" / "index").rglob("*.json")
    index.write_bytes(text)

    assert not kept.fetch("ab12", WANTED, tmp_path / "new")
    assert not index.exists()

    kept.keep("ab12", WANTED, source)
    assert kept.fetch("ab12", WANTED, tmp_path / "again")


def test_a_damaged_index_that_may_not_be_deleted_is_a_warning(kept, tmp_path, monkeypatch, caplog):
    (index,) = (tmp_path / "cache" / "index").rglob("*.json")
    index.write_bytes(b"")

    def refuse(path, **how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)

    assert not kept.fetch("ab12", WANTED, tmp_path / "new")
    assert f"{index} cannot be deleted: Permission denied; the model itself is not concerned" in caplog.text


def test_an_index_that_names_a_file_outside_neither_reads_nor_deletes_it(kept, source, tmp_path):
    (index,) = (tmp_path / "cache" / "index").rglob("*.json")
    outside = tmp_path / "private"
    outside.write_bytes(b"abc")
    files.write_json(index, {"MLmodel": str(outside), "data/model.pth": str(outside)})

    assert not kept.fetch("ab12", WANTED, tmp_path / "new")
    assert outside.read_bytes() == b"abc"
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("mode", [0o2775, 0o2770, 0o755, 0o700])
def test_what_is_in_it_has_the_rights_of_the_folder(source, tmp_path, mode):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    before = os.umask(0o077)
    try:
        ModelCache(tmp_path / "cache").keep("ab12", WANTED, source)
    finally:
        os.umask(before)

    for path in (tmp_path / "cache").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (mode if path.is_dir() else mode & 0o666), path


def test_a_folder_that_another_user_has_just_made_is_used(source, tmp_path, monkeypatch):
    chmod = Path.chmod

    def refuse(path, mode):
        if path.is_dir():
            raise PermissionError(1, "Operation not permitted")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", refuse)
    cache = ModelCache(tmp_path / "cache")
    cache.keep("ab12", WANTED, source)

    assert cache.fetch("ab12", WANTED, tmp_path / "new")


def test_many_jobs_keep_and_fetch_at_once(source, tmp_path):
    cache, served = ModelCache(tmp_path / "cache"), []

    def work(number: int) -> None:
        for round_ in range(10):
            cache.keep("ab12", WANTED, source)
            target = tmp_path / "jobs" / f"{number}-{round_}"
            served.append(cache.fetch("ab12", WANTED, target) and contents(target) == contents(source))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert served == [True] * 80
    assert not list((tmp_path / "cache").rglob("*.tmp"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_cache_that_cannot_be_written_is_a_warning(source, tmp_path, monkeypatch, caplog, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(module, "_copy", fail)
    ModelCache(tmp_path / "cache").keep("ab12", WANTED, source)

    told = f"model cache {tmp_path}/cache: a model was not kept: {error.strerror}; the model itself is not concerned"
    assert told in caplog.text
    assert not contents(tmp_path / "cache")


def test_a_cache_that_is_no_folder_is_a_warning(source, tmp_path, caplog):
    (tmp_path / "cache").touch()
    cache = ModelCache(tmp_path / "cache")

    assert not cache.fetch("ab12", WANTED, tmp_path / "new")
    cache.keep("ab12", WANTED, source)

    assert caplog.text.count("the model itself is not concerned") == 2


def test_a_logged_model_comes_over_the_network_once_and_a_runs_artifact_each_time(tmp_path):
    shelf = server_shelf(tmp_path / "shelf")
    run_id = shelf.run("a")
    (tmp_path / "net.pth").write_bytes(weights())
    model = shelf.client.create_logged_model(shelf.experiment, name="net", source_run_id=run_id)
    shelf.client.log_model_artifact(model.model_id, str(tmp_path / "net.pth"))
    shelf.client.finalize_logged_model(model.model_id, "READY")
    shelf.log(run_id, BEST, weights())
    places = {
        shelf.client.get_logged_model(model.model_id).artifact_location: "net.pth",
        shelf.client.get_run(run_id).info.artifact_uri: BEST,
    }
    cache = ModelCache(tmp_path / "cache")
    with proxied() as proxy:
        for number, (uri, path) in enumerate(places.items()):
            artifact = Artifact(uri, path, (StoredFile(path, None),))
            for user in ("one", "two"):
                store = TrackingStore(proxy.uri, private=tmp_path / "private")
                receipt = receive(store, artifact, tmp_path / f"{user}{number}", cache)
                assert receipt["sha256"] == files.sha256_of(tmp_path / "net.pth") or path == BEST
                assert (tmp_path / f"{user}{number}" / "artifact" / path).stat().st_size == receipt["size"]
            assert proxy.count(FILE) == (1, 3)[number]
        proxy.trouble = lambda method, path: (403, {"error_code": "PERMISSION_DENIED", "message": "not yours"})
        uri = next(iter(places))
        with pytest.raises(StoreError):
            receive(
                TrackingStore(proxy.uri, private=tmp_path / "private"),
                Artifact(uri, "net.pth", (StoredFile("net.pth", None),)),
                tmp_path / "three",
                cache,
            )


def test_a_store_on_disk_does_without(tmp_path, caplog):
    shelf = sqlite_shelf(tmp_path / "store")
    run_id = shelf.run("a")
    model_id = shelf.logged_model(run_id, BEST.replace(".pth", ".txt"))
    uri = shelf.client.get_logged_model(model_id).artifact_location
    name = Path(BEST).name.replace(".pth", ".txt")
    with caplog.at_level(logging.INFO):
        receive(
            TrackingStore(shelf.uri, private=tmp_path / "private"),
            Artifact(uri, name, (StoredFile(name, None),)),
            tmp_path / "weights",
            ModelCache(tmp_path / "cache"),
        )
    assert not (tmp_path / "cache").exists()
