"""A run's candidates: downloaded in order until one holds a network, with all files that belong to it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dailies.core import files
from dailies.core.errors import ArtifactDamaged
from dailies.discovery.artifacts import candidates
from dailies.discovery.download import download
from dailies.render import trial
from dailies.state.layout import Layout
from dailies.state.records import ModelRecord, RunRecord, loading_digest
from dailies.state.weights_folder import DownloadedArtifact, fill
from dailies.store.entities import Run
from dailies.store.tracking import TrackingStore
from helpers.program_files import onnx_model, proto
from helpers.raising import refused
from helpers.stores import configured, sqlite_shelf
from helpers.weights import LOADING, grey_checkpoint


def torch_bytes(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


NETWORK = torch_bytes(grey_checkpoint(0.5))
OPTIMIZER = torch_bytes(torch.optim.Adam(torch.nn.Linear(1, 1).parameters()).state_dict())
CUT = NETWORK[: len(NETWORK) // 2]


class Place:
    """A run's artifacts on the disk, and what a download of the first ones leaves."""

    def __init__(self, root: Path) -> None:
        self.root, self.artifacts = root, root / "run" / "artifacts"
        self.layout = Layout(root / "out")
        self.weights = self.layout.weights("model")
        self.folder = self.weights.folder
        self.store = sqlite_shelf(root / "store").uri

    def put(self, **contents: bytes) -> None:
        for name, content in contents.items():
            path = self.artifacts / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def run(self) -> Run:
        return Run("ab12", "a", "exp", "7", "FINISHED", 1, 2, str(self.artifacts))

    def opened(self) -> TrackingStore:
        return TrackingStore(self.store, private=self.root)

    def found(self) -> list:
        """The candidates, in the order of their names."""
        listing = self.opened().files(str(self.artifacts))
        return sorted(candidates(self.run(), listing), key=lambda artifact: artifact.path)

    def downloaded(self) -> DownloadedArtifact:
        """Fetch the one candidate there is."""
        (only,) = self.found()
        return fill(self.opened(), only, self.weights)

    def download(self, **config: Any) -> dict[str, Any]:
        first, *others = self.found()
        ModelRecord(run_id="ab12", experiment_id="7", artifact=first).save(self.layout.record("model"))
        RunRecord(run_id="ab12", alternatives=tuple(others)).save(self.layout.run("model"))
        files.write_json(self.layout.index, {"models": ["model"]})
        download(configured(self.store, **config), layout=self.layout, model="model", loading=LOADING)
        return files.read_json(self.weights.receipt)

    def there(self) -> list[str]:
        """The files that the download left."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def loaded(monkeypatch):
    """The names of the files that were tried; those whose content is no network's are refused, without a process."""
    names = []

    def tried(path, **about):
        names.append(path.name)
        return trial.Verdict(None if path.is_file() and path.read_bytes() == NETWORK else f"{path.name} is none")

    monkeypatch.setattr(trial, "try_candidate", tried)
    return names


def test_the_first_file_that_holds_a_network_is_taken(place):
    place.put(**{"1.pth": OPTIMIZER, "2.pth": CUT, "3.pth": NETWORK, "4.pth": NETWORK})

    receipt = place.download()

    assert (receipt["status"], receipt["path"], receipt["files"]) == ("success", "3.pth", ["3.pth"])
    assert receipt["sha256"] == files.sha256_of(place.artifacts / "3.pth")
    assert [each["path"] for each in receipt["tried"]] == ["1.pth", "2.pth"]
    assert receipt["tried"][0]["reason"].startswith("1.pth holds ")
    assert receipt["tried"][1]["reason"].startswith("2.pth is damaged in the store")
    assert place.there() == ["artifact/3.pth", "download.json"]


def test_a_single_file_is_taken_as_it_is(place, loaded):
    place.put(**{"1.pth": OPTIMIZER})

    receipt = place.download()

    assert (receipt["status"], receipt["path"]) == ("success", "1.pth")
    assert "tried" not in receipt
    assert loaded == []


def test_no_more_is_fetched_than_is_tried(place, loaded):
    place.put(**{"1.pth": NETWORK, "2.pth": OPTIMIZER})

    receipt = place.download()

    assert receipt["path"] == "1.pth"
    assert "tried" not in receipt
    assert loaded == ["1.pth"]


def test_if_no_file_holds_a_network_the_first_one_is_kept(place, loaded):
    place.put(**{"1.pth": OPTIMIZER, "2.pth": CUT, "3.pth": b"three"})

    receipt = place.download()

    assert (receipt["status"], receipt["path"]) == ("success", "1.pth")
    assert [each["path"] for each in receipt["tried"]] == ["2.pth", "3.pth"]
    assert receipt["tried"][1]["reason"] == "3.pth is none"
    assert place.there() == ["artifact/1.pth", "download.json"]


def test_if_the_first_file_is_damaged_and_no_other_loads_the_download_fails(place, loaded):
    place.put(**{"1.pth": CUT, "2.pth": OPTIMIZER})

    receipt = place.download()

    assert (receipt["status"], receipt["path"]) == ("download_failed", "1.pth")
    assert receipt["error"].startswith("1.pth is damaged in the store")
    assert receipt["tried"] == [{"path": "2.pth", "reason": "2.pth is none"}]
    assert place.there() == ["download.json"]


def test_trouble_with_the_store_is_no_reason_to_take_another_file(place, loaded, monkeypatch):
    place.put(**{"1.pth": NETWORK, "2.pth": NETWORK})

    def full(self, uri, path, folder):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(TrackingStore, "fetch", full)

    receipt = place.download()

    assert (receipt["status"], receipt["path"]) == ("download_failed", "1.pth")
    assert "tried" not in receipt


def test_a_file_that_cannot_be_tried_is_taken(place, monkeypatch, caplog):
    monkeypatch.setattr(
        trial, "try_candidate", lambda path, **about: trial.Verdict(unknown="torch is not installed here")
    )
    place.put(**{"1.pth": OPTIMIZER, "2.pth": NETWORK})

    receipt = place.download()

    assert receipt["path"] == "1.pth"
    assert "1.pth could not be tried, so it may not hold a network: torch is" in caplog.text


def test_what_was_rendered_before_is_not_tried_again(place, loaded):
    place.put(**{"1.pth": NETWORK, "2.pth": NETWORK})
    receipt = place.download()
    record = ModelRecord.load(place.layout.record("model"))
    last = {"status": "success", "model": {"architecture": "unet"}, "artifact": receipt}
    last |= {"loading": loading_digest(record, LOADING)}
    attempt = place.layout.attempt("model", "all")

    def tried_after(**changes):
        loaded.clear()
        files.write_json(attempt, last | changes)
        assert place.download()["path"] == "1.pth"
        return loaded

    assert tried_after() == []
    assert tried_after(model={}) == ["1.pth"]
    assert tried_after(loading="other") == ["1.pth"]
    assert tried_after(artifact=receipt | {"sha256": "other"}) == ["1.pth"]


def index_of(*names: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": {f"w{n}": name for n, name in enumerate(names)}}).encode()


def test_the_parts_of_a_model_come_with_its_index_whatever_they_are_called(place):
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "extra.bin")
    parts = {f"m/{name}": name.encode() for name in names}
    place.put(**parts, **{"m/model.safetensors.index.json": index_of(*names), "m/config.json": b"{}"})

    first = next(artifact for artifact in place.found() if artifact.path.endswith("index.json"))
    downloaded = fill(place.opened(), first, place.weights)

    weights = ["m/model.safetensors.index.json", *parts]
    assert sorted(downloaded.files) == sorted([*weights, "m/config.json"])
    assert downloaded.sha256 == files.sha256_of_files(place.folder / "artifact", weights)
    assert downloaded.config_sha256 == files.sha256_of(place.artifacts / "m/config.json")


@pytest.mark.parametrize(
    ("index", "code", "names"),
    [
        (index_of("model-00001-of-00002.safetensors"), "artifact.missing_parts", "model-00001-of-00002"),
        (index_of("../../secret.pth"), "artifact.missing_parts", "../../secret.pth"),
        (b'{"weight_map": {}}', "artifact.bad_index", "index.json"),
        (b'{"weight_map": 3}', "artifact.bad_index", "index.json"),
        (b"[1", "artifact.bad_index", "index.json"),
    ],
)
def test_an_index_without_its_parts_is_damaged(place, index, code, names):
    place.put(**{"model.safetensors.index.json": index})

    with refused(ArtifactDamaged, code, names):
        place.downloaded()
    assert place.there() == []


def external(location: str, number: int = 1) -> bytes:
    """A tensor of an ONNX file whose values are in another file."""
    entry = proto((1, b"location"), (2, location.encode()))
    return proto((1, 3), (2, 1), (8, b"weight%d" % number), (13, entry), (14, 1))


@pytest.mark.parametrize("name", ["weights", "net_weights.bin", "onnx__Conv_123", "w" * 200, "weights/part.1"])
def test_files_that_an_onnx_file_names_come_with_it(place, name):
    graph = proto((5, external(name)), (5, external("../best.pth", 2)), (5, external("gone", 3)))
    place.put(**{"m/net.onnx": proto((1, 8), (7, graph)), f"m/{name}": b"1234", "m/other": b"5"})

    first = next(artifact for artifact in place.found() if artifact.path == "m/net.onnx")
    downloaded = fill(place.opened(), first, place.weights)

    assert downloaded.files == ("m/net.onnx", f"m/{name}")
    assert (place.folder / "artifact" / "m" / name).read_bytes() == b"1234"


def test_the_digest_of_weights_is_the_same_with_a_config_beside_them(place):
    place.put(**{"best.pth": NETWORK, "config.json": b'{"base_channels": 1}'})

    downloaded = place.downloaded()

    assert downloaded.sha256 == files.sha256_of(place.artifacts / "best.pth")
    assert downloaded.config_sha256 == files.sha256_of(place.artifacts / "config.json")
    assert (place.folder / "artifact" / "config.json").is_file()


@pytest.mark.parametrize("name", ["best.pth", "model_best.pth.tar", "pytorch_model.bin", "checkpoint", "net.weights"])
def test_a_damaged_zip_is_noticed_whatever_it_is_called(place, name):
    place.put(**{name: NETWORK[:100] + bytes([NETWORK[100] ^ 1]) + NETWORK[101 : len(NETWORK) // 2]})

    with refused(ArtifactDamaged, "artifact.damaged", name):
        place.downloaded()


def test_an_archive_beside_a_model_is_left_alone(place):
    place.put(**{"m/MLmodel": b"flavors: {}", "m/code.zip": CUT, "m/data.npz": CUT})

    assert place.downloaded().files == ("m/MLmodel", "m/code.zip", "m/data.npz")


def test_real_onnx_files_with_external_data_arrive_whole(place, tmp_path):
    onnx = pytest.importorskip("onnx")
    path = onnx_model(tmp_path / "made.onnx", [1, 3, 8, 8])
    model = onnx.load(path)
    values = onnx.numpy_helper.from_array(np.zeros(1000, np.float32), "w")
    model.graph.initializer.append(values)
    place.artifacts.mkdir(parents=True)
    beside = {"save_as_external_data": True, "location": "all the weights", "size_threshold": 0}
    onnx.save(model, place.artifacts / "net.onnx", **beside)

    first = next(artifact for artifact in place.found() if artifact.path == "net.onnx")

    assert fill(place.opened(), first, place.weights).files == ("net.onnx", "all the weights")
