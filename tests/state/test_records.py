"""Records: what is read is written again with the same bytes, and files of other versions can be read."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from dailies.core import files
from dailies.core.typed import NotTheRecord, load_all, save_all
from dailies.models.signature import Signature
from dailies.state.records import (
    Attempt,
    DiscoveryIndex,
    Figures,
    Leaderboard,
    LoadedModel,
    Measures,
    Metadata,
    ModelRecord,
    Network,
    Outcome,
    Receipt,
    RejectedFile,
    RenderedArtifact,
    RunRecord,
    SummaryLine,
    candidates,
    is_same_artifact,
    merged,
    rendered_artifact,
)
from dailies.store.entities import Artifact, StoredFile
from helpers import REPOSITORY

KINDS = {
    "models/*.json": ModelRecord,
    "runs/*.json": RunRecord,
    "discovery.json": DiscoveryIndex,
    "known.json": DiscoveryIndex,
    "weights/*/download.json": Receipt,
    "attempts/*/*.json": Outcome,
    "renders/*/*.json": Outcome,
    "measures/[!@]*/*.json": Measures,
    "measures/@source/*.json": Measures,
    "measured/*/*.json": Attempt,
    "metrics.json": Leaderboard,
    "../*/metadata.json": Metadata,
}
"""The records by where they are below the workflow's own state."""

OUTCOME = {"status": "success", "error": None, "attempt": 1}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder that ``golden/make.py`` packed."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(REPOSITORY / "tests" / "golden" / "golden.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "out"


def written(record, folder: Path) -> bytes:
    record.save(folder / "written.json")
    return (folder / "written.json").read_bytes()


@pytest.mark.parametrize(("pattern", "kind"), KINDS.items())
def test_a_record_that_is_read_is_written_with_the_same_bytes(golden, tmp_path, pattern, kind):
    paths = sorted((golden / ".dailies").glob(pattern))

    assert paths
    for path in paths:
        assert written(kind.load(path), tmp_path) == path.read_bytes(), path


def test_a_summary_that_is_read_is_written_with_the_same_bytes(golden, tmp_path):
    path = golden / "batch_summary.json"

    save_all(load_all(SummaryLine, path), tmp_path / "written.json")

    assert (tmp_path / "written.json").read_bytes() == path.read_bytes()


RARE = [
    (
        ModelRecord,
        {
            "run_id": "r",
            "experiment_id": "1",
            "architecture": None,
            "artifact": {"uri": "u", "path": "a.pth", "files": [{"path": "a.pth", "size": None, "modified": None}]},
            "alternatives": [{"uri": "u", "path": "b.pth", "files": []}],
            "hints": {},
        },
    ),
    (Receipt, {"status": "download_failed", "error": "gone", "uri": "u", "path": "p"}),
    (
        Receipt,
        {
            **{"status": "success", "error": None, "uri": "u", "path": "p", "sha256": "s", "size": 1, "files": ["p"]},
            **{"config_sha256": "c", "tried": [{"path": "q", "reason": "no network"}]},
        },
    ),
    (Measures, {"status": "error", "error": "broken"}),
    (Measures, {"status": "success", "error": None, "frames": {}, "notes": ["not rendered"]}),
]
"""Records with keys that few of their kind have, or without those that most have."""


@pytest.mark.parametrize(("kind", "value"), RARE)
def test_rare_keys_stay_and_absent_ones_stay_away(tmp_path, kind, value):
    files.write_json(tmp_path / "read.json", value)

    assert written(kind.load(tmp_path / "read.json"), tmp_path) == (tmp_path / "read.json").read_bytes()


def test_a_model_that_was_not_loaded_is_an_empty_object(tmp_path):
    outcome = Outcome(status="load_failed", error="damaged", attempt=1)

    assert json.loads(written(outcome, tmp_path))["model"] == {}
    assert Outcome.load(tmp_path / "written.json") == outcome


def test_an_outcome_with_all_it_may_hold_comes_back_equal(tmp_path):
    signature = Signature(channels=4, mean=(0.5,), std=(0.25,), most=(None, 64), extra_channels=(0.06,), output="final")
    network = Network(builder="dailies", config="c", precision="fp16", compiled=True, autotuned=True)
    model = LoadedModel(architecture="unet", epoch=3, network=network, signature=signature, told_multiple=32)
    outcome = Outcome(status="success", attempt=2, model=model, forced="token")

    written(outcome, tmp_path)

    assert Outcome.load(tmp_path / "written.json") == outcome


def test_non_finite_numbers_are_written_as_null(tmp_path):
    written(RunRecord(run_id="r", metrics={"loss": float("nan")}), tmp_path)

    assert RunRecord.load(tmp_path / "written.json").metrics == {"loss": None}


def test_unknown_keys_are_ignored_and_missing_ones_have_defaults(tmp_path):
    files.write_json(tmp_path / "old.json", OUTCOME | {"render": {"frames": 3, "cache": "hit"}, "future": {"a": 1}})

    outcome = Outcome.load(tmp_path / "old.json")

    assert outcome.render == Figures(frames=3)
    assert (outcome.model, outcome.basis, outcome.artifact.sha256, outcome.input.digest) == (None, None, None, "")


def test_an_attempt_is_read_from_an_outcome(tmp_path):
    files.write_json(tmp_path / "all.json", OUTCOME | {"basis": "b", "forced": "f", "model": {}})

    assert Attempt.load(tmp_path / "all.json") == Attempt(status="success", attempt=1, basis="b", forced="f")


@pytest.mark.parametrize("value", [[], "text", None, {}, {"run_id": "r"}, {"run_id": "r", "render": []}])
def test_another_value_is_not_a_record(tmp_path, value):
    files.write_json(tmp_path / "metadata.json", value)

    with pytest.raises(NotTheRecord):
        Metadata.load(tmp_path / "metadata.json")


def test_artifacts_are_the_same_if_weights_and_configuration_are():
    one = Receipt(status="success", path="a", sha256="s", tried=(RejectedFile(path="b", reason="no network"),))

    assert is_same_artifact(one, Receipt(status="success", path="c", sha256="s").artifact)
    assert not is_same_artifact(one, Receipt(status="success", path="a", sha256="s", config_sha256="c"))
    assert one.artifact.receipt == one


def test_the_outcome_of_a_model_is_that_of_all_its_shards():
    loaded = LoadedModel(architecture="unet")
    shards = [
        Outcome(status="success", attempt=1, render=Figures(frames=4, seconds=1.0, device="cpu"), model=loaded),
        Outcome(status="error", error="broken", attempt=3, render=Figures(frames=2, seconds=2.0, tiled=True)),
    ]

    found = merged(shards)

    assert (found.status, found.error, found.attempt, found.model) == ("error", "broken", 3, loaded)
    assert found.render == Figures(frames=6, seconds=3.0, fps=2.0, tiled=True)


def test_the_rendered_artifact_is_found_again_in_the_records():
    first, second = (Artifact("s3://me:secret@bucket/1", path, (StoredFile(path, 1),)) for path in ("a.pth", "b.pth"))
    record = ModelRecord(run_id="r", artifact=first)
    about = RunRecord(run_id="r", alternatives=(second,))

    assert candidates(record, None) == [first]
    assert candidates(record, about) == [first, second]
    assert rendered_artifact(record, about, RenderedArtifact(uri="s3://***@bucket/1", path="b.pth")) == second
    assert rendered_artifact(record, about, RenderedArtifact()) == first
    assert candidates(replace(record, alternatives=(second, second)), about) == [first, second, second]
