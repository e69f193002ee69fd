import hashlib
import io
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from dailies.core import files
from dailies.core.errors import DownloadError, StoreError
from dailies.discovery import download as stage
from dailies.discovery.download import download
from dailies.state import weights_folder
from dailies.state.due_shards import basis
from dailies.state.layout import Layout, Weights
from dailies.state.records import ModelRecord
from dailies.store import transfer
from dailies.store.entities import Artifact, StoredFile
from dailies.store.tracking import TrackingStore
from helpers.raising import refused
from helpers.stores import BEST, configured, proxied, server_shelf, snapshot, sqlite_shelf, stranger
from hypothesis import given, settings
from hypothesis import strategies as st

FILE = "GET /api/2.0/mlflow-artifacts/artifacts/"


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.manual_seed(1)
    torch.save({"model_state_dict": torch.nn.Conv2d(1, 2, 3).state_dict(), "epoch": 3}, buffer)
    return buffer.getvalue()


WEIGHTS = torch_file()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A local store with one run that holds weights."""
    shelf = sqlite_shelf(tmp_path_factory.mktemp("store"))
    shelf.log(shelf.run("a"), BEST, WEIGHTS)
    return shelf


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A run on a server, with weights."""
    shelf = server_shelf(tmp_path_factory.mktemp("remote"))
    run_id = shelf.run("a")
    shelf.log(run_id, BEST, WEIGHTS)
    return shelf.client.get_run(run_id).info.artifact_uri


@pytest.fixture
def pauses(monkeypatch):
    """Wait for nothing between tries; the pauses that would have been are kept."""
    waited = []
    monkeypatch.setattr(stage.time, "sleep", waited.append)
    return waited


def record_of(uri: str, root: Path, *paths: str, path: str | None = None, size: int | None = None) -> Path:
    """Write a discovery record; the artifact is the one file given, or the folder ``path``."""
    layout = Layout(root)
    record = layout.record("model")
    stored = tuple(StoredFile(file, size) for file in paths)
    files.write_json(layout.index, {"models": ["model"]})
    ModelRecord(run_id="ab12", artifact=Artifact(uri, paths[0] if path is None else path, stored)).save(record)
    return record


def fetched(uri: str, artifact_uri: str, root: Path, *paths: str, path: str | None = None, **config: Any) -> dict:
    """Download as rule download does; give the receipt."""
    record_of(artifact_uri, root, *paths or [BEST], path=path)
    layout = Layout(root)
    download(configured(uri, **config), layout=layout, model="model")
    receipt = json.loads(layout.receipt("model").read_text())
    if receipt["status"] != "success":
        assert list(layout.weights("model").folder.iterdir()) == [layout.receipt("model")]
    return receipt


def local_run(shelf, root: Path, content: bytes, path: str = BEST) -> tuple[str, Path]:
    """Put an artifact on the disk; give its location and its file."""
    file = root / "run" / "artifacts" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return str(root / "run" / "artifacts"), file


def test_weights_arrive_with_their_receipt(shelf, tmp_path):
    uri, source = local_run(shelf, tmp_path, WEIGHTS)

    receipt = fetched(shelf.uri, uri, tmp_path)

    assert receipt == {
        "status": "success",
        "error": None,
        "uri": uri,
        "path": BEST,
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
        "files": [BEST],
    }
    folder = Layout(tmp_path).weights("model").folder
    assert (folder / "artifact" / BEST).read_bytes() == WEIGHTS
    assert sorted(entry.name for entry in folder.iterdir()) == ["artifact", "download.json"]
    assert source.read_bytes() == WEIGHTS


def test_weights_are_on_the_disk_before_their_receipt(shelf, tmp_path, monkeypatch):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))

    fetched(shelf.uri, uri, tmp_path)

    weights = Layout(tmp_path).weights("model")
    assert synced[-2:] == [path.stat().st_ino for path in (weights.whole / BEST, weights.receipt)]


def test_a_model_folder_arrives_whole(shelf, tmp_path):
    uri, source = local_run(shelf, tmp_path, b"flavors: {}", "model/MLmodel")
    for name, content in (("data/model.pth", WEIGHTS), ("empty.txt", b"")):
        (source.parent / name).parent.mkdir(exist_ok=True)
        (source.parent / name).write_bytes(content)
    (source.parents[1] / "model.txt").touch()
    paths = ["model/MLmodel", "model/data/model.pth", "model/empty.txt"]

    receipt = fetched(shelf.uri, uri, tmp_path, *paths, path="model")

    artifact = Layout(tmp_path).weights("model").whole
    assert receipt["files"] == paths
    assert receipt["size"] == 11 + len(WEIGHTS)
    assert receipt["sha256"] == files.sha256_of_files(artifact, paths)
    assert sorted(str(file.relative_to(artifact)) for file in artifact.rglob("*") if file.is_file()) == paths


def test_leftovers_of_an_earlier_attempt_are_never_a_result(shelf, tmp_path):
    folder = Layout(tmp_path).weights("model").folder
    for left in ("draft/checkpoints/other.pth", "artifact/other.pth", "download.json"):
        (folder / left).parent.mkdir(parents=True, exist_ok=True)
        (folder / left).write_bytes(b"old")
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)

    fetched(shelf.uri, uri, tmp_path)

    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"download.json", f"artifact/{BEST}"}


def test_a_store_on_disk_is_not_asked_but_must_be_there(tmp_path):
    uri, _ = local_run(None, tmp_path, WEIGHTS)

    receipt = fetched(f"sqlite:///{tmp_path}/no.db", uri, tmp_path)

    assert receipt["status"] == "download_failed"
    assert "no.db does not exist; set mlflow_uri" in receipt["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "checkpoints/best_model_unet.pth is empty in the store"),
        (WEIGHTS[:-100], "is damaged in the store: it is cut short"),
        (WEIGHTS[:1000], "is damaged in the store: it is cut short"),
        (bytes(4) + WEIGHTS[4:], "is damaged in the store"),
    ],
)
def test_a_damaged_file_is_refused_at_once(shelf, tmp_path, content, words):
    uri, _ = local_run(shelf, tmp_path, content)
    start = time.monotonic()

    receipt = fetched(shelf.uri, uri, tmp_path)

    assert receipt["status"] == "download_failed"
    assert words in receipt["error"]
    assert set(receipt) == {"status", "error", "uri", "path"}
    assert time.monotonic() - start < 1


def weights_in(data: bytes) -> dict[str, list]:
    state = torch.load(io.BytesIO(data), weights_only=True)["model_state_dict"]
    return {name: tensor.tolist() for name, tensor in state.items()}


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, len(WEIGHTS) - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_that_torch_does_not_notice_is_damage(tmp_path, position, bit):
    data = bytearray(WEIGHTS)
    data[position] ^= 1 << bit
    path = tmp_path / "best.pth"
    path.write_bytes(data)

    try:
        transfer.verify(path, "best.pth")
    except DownloadError as error:
        assert error.code == "artifact.damaged"  # noqa: PT017
        return
    try:
        loaded = weights_in(bytes(data))
    except Exception:
        return
    assert loaded == weights_in(WEIGHTS)


def test_a_zip_bomb_is_not_unpacked(shelf, tmp_path):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"archive/data/{number}", bytes(2**24))
    uri, _ = local_run(shelf, tmp_path, bomb.getvalue())

    assert fetched(shelf.uri, uri, tmp_path)["error"] == (
        "checkpoints/best_model_unet.pth is damaged in the store: it declares to hold 335,544,320 bytes in "
        f"{len(bomb.getvalue()):,}, which no model does; it is not unpacked"
    )


def test_a_file_that_is_no_zip_is_taken_as_it_is(shelf, tmp_path):
    uri, _ = local_run(shelf, tmp_path, b"\x80\x02legacy pickle")

    assert fetched(shelf.uri, uri, tmp_path)["status"] == "success"


def test_a_missing_artifact_lists_the_existing_ones(shelf, tmp_path):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS, "other/last.pth")

    error = fetched(shelf.uri, uri, tmp_path)["error"]

    assert error == "checkpoints/best_model_unet.pth is no longer in the store; found there: other/last.pth"


def test_a_moved_artifact_names_artifact_remap_and_is_found_with_it(shelf, tmp_path):
    uri, _ = local_run(shelf, tmp_path / "new", WEIGHTS)
    old = uri.replace("/new/", "/old/1/")

    assert "set artifact_remap" in fetched(shelf.uri, old, tmp_path)["error"]
    remap = {f"{tmp_path}/old/1": f"{tmp_path}/new"}
    receipt = fetched(shelf.uri, old, tmp_path, artifact_remap=remap)
    assert (receipt["status"], receipt["uri"]) == ("success", old)


def test_a_link_among_the_artifacts_is_not_followed(shelf, tmp_path):
    uri, source = local_run(shelf, tmp_path, WEIGHTS, "other.pth")
    (source.parent / "best.pth").symlink_to("/etc/hostname")

    assert "is no longer in the store" in fetched(shelf.uri, uri, tmp_path, "best.pth")["error"]


def test_a_full_disk_is_reported_and_not_retried(shelf, tmp_path, monkeypatch, pauses):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage.shutil, "copyfile", full)

    folder = Layout(tmp_path).weights("model").folder
    assert fetched(shelf.uri, uri, tmp_path)["error"] == f"No space left on device: {folder}"
    assert pauses == []


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "dailies-test", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_during_a_transfer_is_reported_and_not_retried(remote, small_disk, tmp_path, pauses):
    shelf = server_shelf(tmp_path)  # of the server that `remote` started
    run_id = shelf.run("a")
    shelf.log(run_id, BEST, bytes(2**21))

    receipt = fetched(shelf.uri, shelf.client.get_run(run_id).info.artifact_uri, small_disk)

    folder = Layout(small_disk).weights("model").folder
    assert receipt["error"] == f"No space left on device: {folder}"
    assert pauses == []


def test_an_interrupted_download_leaves_nothing(shelf, tmp_path, monkeypatch):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)
    store = TrackingStore(shelf.uri, private=tmp_path)
    artifact = Artifact(uri, BEST, (StoredFile(BEST, len(WEIGHTS)),))

    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(transfer, "verify", interrupted)
    with pytest.raises(KeyboardInterrupt):
        weights_folder.fill(store, artifact, Weights(tmp_path / "weights"))

    assert list((tmp_path / "weights").iterdir()) == []


def test_a_failure_is_reported_even_if_another_invocation_took_the_folder(shelf, tmp_path, monkeypatch):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)

    def damaged(path, name, **about):
        stage.shutil.rmtree(Layout(tmp_path).weights("model").folder)
        raise DownloadError("artifact.damaged", f"{name} is damaged")

    monkeypatch.setattr(transfer, "verify", damaged)

    assert fetched(shelf.uri, uri, tmp_path)["error"] == f"{BEST} is damaged"


def test_weights_arrive_from_a_server(remote, tmp_path):
    with proxied() as proxy:
        receipt = fetched(proxy.uri, remote, tmp_path)

    assert (receipt["status"], receipt["sha256"]) == ("success", hashlib.sha256(WEIGHTS).hexdigest())


def test_the_bytes_come_from_the_server_even_if_it_redirects_to_its_storage(remote, tmp_path):
    with proxied() as proxy:
        info = {"multipart_downloads_enabled": True}
        proxy.trouble = lambda method, path: (200, info) if path.endswith("/server-info") else None
        receipt = fetched(proxy.uri, remote, tmp_path)

    assert receipt["status"] == "success"
    assert proxy.count("presigned") == 0


@pytest.mark.parametrize("kind", ["drop", "cut", (503, "busy"), (404, "not found")])
def test_a_transfer_that_fails_is_tried_again(remote, tmp_path, pauses, kind):
    broken = iter([kind] * 3)
    with proxied() as proxy:
        proxy.trouble = lambda method, path: next(broken, None) if f"{method} {path}".startswith(FILE) else None
        receipt = fetched(proxy.uri, remote, tmp_path)

    assert receipt["status"] == "success"
    assert (Layout(tmp_path).weights("model").whole / BEST).read_bytes() == WEIGHTS
    assert 1 <= len(pauses) <= 3


def test_a_transfer_that_keeps_failing_is_given_up(remote, tmp_path, pauses):
    with proxied() as proxy:
        proxy.trouble = lambda method, path: "cut" if f"{method} {path}".startswith(FILE) else None
        receipt = fetched(proxy.uri, remote, tmp_path)

    assert receipt["status"] == "download_failed"
    assert [pause for pause in pauses if pause] == list(transfer.PAUSES)


def test_a_transfer_shorter_than_its_listing_is_noticed(remote, tmp_path, pauses):
    listed = {"files": [{"path": "best_model_unet.pth", "is_dir": False, "file_size": len(WEIGHTS) + 1}]}
    with proxied() as proxy:
        proxy.trouble = lambda method, path: (200, listed) if "checkpoints" in path and "path=" in path else None
        receipt = fetched(proxy.uri, remote, tmp_path)

    assert receipt["error"].endswith(f"arrived with {len(WEIGHTS)} bytes instead of {len(WEIGHTS) + 1}")
    assert pauses == list(transfer.PAUSES)


@pytest.mark.parametrize("path", ["../../../escape.pth", "/etc/escape.pth", "a/../../../escape.pth", "nul\0.pth"])
def test_a_server_cannot_name_a_file_outside(tmp_path, pauses, path):
    uri = "mlflow-artifacts:/1/run/artifacts"
    listed = {"files": [{"path": path, "is_dir": False, "file_size": 3}]}
    before = snapshot(tmp_path)
    with proxied() as proxy:
        proxy.trouble = lambda method, asked: (200, listed) if "mlflow-artifacts" in asked else None
        receipt = fetched(proxy.uri, uri, tmp_path, path)

    assert receipt["status"] == "download_failed"
    assert before == {}
    assert not list(tmp_path.rglob("*escape*"))
    assert pauses == []


def test_a_server_that_is_down_is_reported_within_seconds(remote, tmp_path, pauses):
    with proxied() as proxy:
        pass
    start = time.monotonic()

    assert "does not answer" in fetched(proxy.uri, remote, tmp_path)["error"]
    assert time.monotonic() - start < 5


def test_no_password_reaches_a_receipt(remote, tmp_path, monkeypatch, pauses, caplog):
    caplog.set_level("INFO", logger="dailies")
    settings = configured("x").model_copy(update={"mlflow_uri": None})
    layout, unreachable = Layout(tmp_path), "http://me:SECRET@127.0.0.1:9/api/2.0/mlflow-artifacts/artifacts/1/x"
    receipts = []

    def receive_from(uri):
        record_of(uri, tmp_path, BEST)
        download(settings, layout=layout, model="model")
        receipts.append(files.read_json(layout.receipt("model")))

    with proxied() as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri.replace("//", "//me:SECRET@"))
        receive_from(unreachable)
        receive_from(remote)
    receive_from(unreachable)

    assert [receipt["status"] for receipt in receipts] == ["download_failed", "success", "download_failed"]
    assert "SECRET" not in json.dumps(receipts) + caplog.text


def test_a_bad_record_location_is_an_error_of_that_model_alone(shelf, tmp_path):
    receipt = fetched(shelf.uri, "bogus://nowhere/x", tmp_path)

    assert receipt["status"] == "download_failed"
    assert "bogus" in receipt["error"]
    with pytest.raises(StoreError):
        TrackingStore(shelf.uri, private=tmp_path).files("runs:/0/x")


def test_a_record_of_another_host_fetches_nothing(remote, tmp_path, pauses, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hush")
    with proxied() as proxy, stranger() as other:
        receipt = fetched(proxy.uri, f"{other.uri}/api/2.0/mlflow-artifacts/artifacts/1", tmp_path, "best.pth")
        local = fetched(proxy.uri, "file:///etc", tmp_path, "hostname")

    assert receipt["status"] == local["status"] == "download_failed"
    assert "another host than the store's own" in receipt["error"]
    assert "a path on this machine" in local["error"]
    assert (other.requests, pauses) == ([], [])


def secret_store(root: Path) -> tuple[Path, str]:
    """Put a secret beside an artifact folder that links to it in every way; give the folder and the secret."""
    (root / "private").mkdir(parents=True)
    for name in ("secret.pth", "MLmodel"):
        (root / "private" / name).write_text("secret")
    artifacts = root / "run" / "artifacts"
    (artifacts / "model" / "data").mkdir(parents=True)
    (artifacts / "model" / "MLmodel").write_text("flavors: {}")
    (artifacts / "best.pth").symlink_to(root / "private" / "secret.pth")
    (artifacts / "checkpoints").symlink_to(root / "private")
    (artifacts / "model" / "data" / "model.pth").symlink_to("../../../../private/secret.pth")
    (artifacts / "model" / "more").symlink_to(root / "private", target_is_directory=True)
    (artifacts / "up").symlink_to("..")
    return artifacts, "secret"


def test_links_in_an_artifact_folder_lead_nowhere(shelf, tmp_path):
    artifacts, secret = secret_store(tmp_path)
    (tmp_path / "nas").symlink_to(tmp_path / "run")
    tracking = TrackingStore(shelf.uri, private=tmp_path)

    for root in (artifacts, tmp_path / "nas" / "artifacts"):
        assert [file.path for file in tracking.files(str(root))] == ["model/MLmodel"]
        for path in ("best.pth", "checkpoints/secret.pth", "model/data/model.pth", "up/artifacts/model/MLmodel"):
            with refused(StoreError, "artifact.symbolic_link", "artifacts"):
                tracking.fetch(str(root), path, tmp_path / "out")
    receipt = fetched(shelf.uri, str(artifacts), tmp_path / "output", "model/MLmodel", path="model")

    assert receipt["files"] == ["model/MLmodel"]
    assert "is no longer in the store" in fetched(shelf.uri, str(artifacts), tmp_path / "output", "best.pth")["error"]
    assert not any(secret.encode() == data for data in snapshot(tmp_path / "output").values())
    assert not (tmp_path / "out").exists()


def test_the_artifact_folder_itself_may_be_a_link(shelf, tmp_path):
    uri, _ = local_run(shelf, tmp_path / "disk", WEIGHTS)
    (tmp_path / "link").symlink_to(uri)

    assert fetched(shelf.uri, str(tmp_path / "link"), tmp_path)["status"] == "success"


@pytest.mark.parametrize("path", ["a\u202eb.pth", "a\x9bb.pth", "x" * 1001 + ".pth"])
def test_a_name_that_no_file_of_ours_should_have_is_refused(tmp_path, pauses, path):
    listed = {"files": [{"path": path, "is_dir": False, "file_size": 3}]}
    with proxied() as proxy:
        proxy.trouble = lambda method, asked: (200, listed) if "mlflow-artifacts" in asked else None
        error = fetched(proxy.uri, "mlflow-artifacts:/1/run/artifacts", tmp_path, path)["error"]

    assert error.startswith("the name of an artifact is too long or holds control characters: ")
    assert error.endswith("; log it under another name")
    assert error.isprintable()
    assert len(error) < 300


class Disk:
    """A place for at most two models, one of which is there; what a waiting download sees changes while it sleeps."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.layout, self.slept, self.events = root, Layout(root), [], []
        monkeypatch.setattr(stage.time, "sleep", self._sleep)

    def put(self, *models: str) -> None:
        for model in models:
            self.layout.weights(model).whole.mkdir(parents=True)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if self.events:
            self.events.pop(0)()
        assert sum(self.slept) < 4 * stage.PATIENCE

    def fetch(self, shelf: Any, uri: str, *selected: str) -> dict:
        record_of(uri, self.root, BEST)
        files.write_json(self.layout.index, {"models": ["model", *selected]})
        download(configured(shelf.uri, models_on_disk=2), layout=self.layout, model="model")
        return files.read_json(self.layout.receipt("model"))


@pytest.fixture
def disk(tmp_path, monkeypatch):
    return Disk(tmp_path, monkeypatch)


def test_a_download_waits_until_a_model_was_rendered(shelf, tmp_path, disk):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)
    disk.put("one", "two")
    there = []
    look = lambda: there.append(disk.layout.weights("model").folder.exists())  # noqa: E731
    disk.events = [look, look, disk.layout.weights("one").discard]

    receipt = disk.fetch(shelf, uri, "one", "two")

    assert receipt["status"] == "success"
    assert len(disk.slept) == 3
    assert there == [False, False]


def test_a_download_waits_for_nobody_while_there_is_room(shelf, tmp_path, disk):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)
    disk.put("one", "left the selection", "so did this")

    assert disk.fetch(shelf, uri, "one")["status"] == "success"
    assert disk.slept == []


def test_a_download_stops_waiting_when_no_render_writes_frames(shelf, tmp_path, disk):
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)
    disk.put("one", "two")
    manifest = disk.layout.manifest("one", "all")
    disk.events = [lambda: files.write_bytes(manifest, b"")] + [lambda: None] * 100
    disk.events[60] = lambda: files.write_bytes(manifest, b"a frame")

    assert disk.fetch(shelf, uri, "one", "two")["status"] == "success"

    assert sum(disk.slept[61:]) >= stage.PATIENCE == 5 * 60
    assert sum(disk.slept[62:]) < stage.PATIENCE + 4


def test_nothing_is_downloaded_if_no_shard_is_due(shelf, tmp_path):
    record, layout = record_of("nowhere", tmp_path, BEST), Layout(tmp_path)
    settings: dict = {"settings": {"tiled": True}, "loading": {"code": None}}
    artifact = {"uri": "nowhere", "path": BEST, "sha256": "ab", "size": 3}
    done = {"status": "success", "error": None, "attempt": 1, "artifact": artifact}
    done["basis"] = basis(record, "digest", **settings)
    shards = {"1": {"frames": "digest", "attempt": 1}}
    for place in (layout.attempt, layout.outcome):
        files.write_json(place("model", "1"), done)

    def receipt(shards, **changes):
        about = settings | changes
        download(configured(shelf.uri), layout=layout, model="model", shards=shards, **about)
        return files.read_json(layout.receipt("model"))

    assert receipt(shards) == {"status": "success", "error": None, **artifact}
    for due, changes in (
        ({"1": {"frames": "other", "attempt": 1}}, {}),
        ({"1": {"frames": "digest", "attempt": 2}}, {}),
        ({**shards, "2": {"frames": "more", "attempt": 1}}, {}),
        (shards, {"settings": {"tiled": False}}),
        (shards, {"loading": {"code": "edited"}}),
    ):
        assert receipt(due, **changes)["status"] == "download_failed"


@pytest.fixture
def candidates(shelf, tmp_path, disk):
    """A knockout in which the models ``one`` and ``two`` have rendered the first round; their files fill the disk."""
    uri, _ = local_run(shelf, tmp_path, WEIGHTS)
    record_of(uri, tmp_path, BEST)
    layout = disk.layout
    files.write_json(layout.index, {"models": ["model", "one", "two"]})
    disk.put("one", "two")
    for model, status in (("one", "success"), ("two", "error")):
        for time_, path in ((1, layout.candidate_receipt(model)), (2, layout.outcome(model, "knockout"))):
            files.write_json(path, {"status": status})
            os.utime(path, (time_, time_))
    return disk


def fetch_candidate(shelf: Any, disk: Disk) -> dict:
    receipt = disk.layout.candidate_receipt("model")
    download(configured(shelf.uri, models_on_disk=2), layout=disk.layout, model="model", receipt=receipt)
    return files.read_json(receipt)


def test_models_that_wait_for_a_decision_make_room_for_the_next_one_failed_ones_first(shelf, candidates):
    assert fetch_candidate(shelf, candidates)["status"] == "success"

    assert not candidates.slept
    there = [name for name in ("one", "two", "model") if candidates.layout.weights(name).are_on_disk]
    assert there == ["one", "model"]


def test_a_model_that_is_still_to_render_its_first_round_keeps_its_files(shelf, candidates):
    for name in ("one", "two"):
        os.utime(candidates.layout.candidate_receipt(name), (3, 3))  # it was downloaded anew
    candidates.events = [candidates.layout.weights("two").discard]

    assert fetch_candidate(shelf, candidates)["status"] == "success"

    assert len(candidates.slept) == 1
    assert candidates.layout.weights("one").are_on_disk


def test_a_finalist_is_rendered_from_the_files_of_its_first_round(shelf, tmp_path):
    uri, source = local_run(shelf, tmp_path, WEIGHTS)
    record, layout = record_of(uri, tmp_path, BEST), Layout(tmp_path)
    about: dict = {"settings": {"tiled": True}, "loading": {"code": None}}

    def fetch(receipt: Path | None = None) -> dict:
        download(configured(shelf.uri), layout=layout, model="model", receipt=receipt, **about)
        return files.read_json(receipt or layout.receipt("model"))

    first = fetch(layout.candidate_receipt("model"))
    outcome = {"status": "success", "artifact": {name: first[name] for name in ("uri", "path", "sha256", "size")}}
    outcome["basis"] = basis(record, "", **about)
    files.write_json(layout.attempt("model", "knockout"), outcome)
    source.unlink()

    assert fetch() == first
    assert (layout.weights("model").whole / BEST).is_file()
    about["loading"] = {"code": "edited"}
    assert fetch()["status"] == "download_failed"
