"""Evaluations and promotions in each kind of store: databases, folders and servers, with and without logged models."""

import uuid
from pathlib import Path

from dailies.store.registry import registered
from dailies.store.tracking import TrackingStore
from helpers.in_process import render_all
from helpers.publishing import FIGURES, again, evaluations, promoted, version
from helpers.stores import new_server_folder, proxied, served, server, snapshot
from helpers.studio import Studio
from helpers.weights import grey_checkpoint
from mlflow import MlflowClient


def log_model(studio: Studio, name: str) -> tuple[str, str]:
    """Log a run with a model as MLflow 3's pytorch flavour does, with a checkpoint as weights; return their ids."""
    import torch

    run_id = studio.add_run(name, None)
    model_id = studio.client.create_logged_model(studio.experiment, name="net", source_run_id=run_id).model_id
    folder = studio.root / "outbox" / "net"
    (folder / "data").mkdir(parents=True)
    torch.save(grey_checkpoint(0.2), folder / "data" / "model.pth")
    (folder / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n    pytorch_version: 2.13.0\n")
    studio.client.log_model_artifacts(model_id, str(folder))
    studio.client.finalize_logged_model(model_id, "READY")
    return run_id, model_id


def inputs(studio: Studio, evaluation) -> list[str]:
    """Return the ids of the logged models that an evaluation names."""
    return [each.model_id for each in studio.client.get_run(evaluation.info.run_id).inputs.model_inputs]


def test_a_logged_model_has_the_metrics_and_is_registered_as_such(studio: Studio):
    studio.add_frames(2)
    run_id, model_id = log_model(studio, "logged")

    render_all(studio)
    again(studio)

    (evaluation,) = evaluations(studio)
    found = studio.client.get_logged_model(model_id)
    assert {metric.key for metric in found.metrics} == FIGURES
    assert {metric.run_id for metric in found.metrics} == {evaluation.info.run_id}
    assert {metric.dataset_name for metric in found.metrics} == {"shot"}
    assert inputs(studio, evaluation) == [model_id]

    promoted(studio, "logged")

    assert (version(studio).source, version(studio).run_id) == (f"models:/{model_id}", run_id)
    assert "already; nothing was changed" in promoted(studio, "logged")
    assert not (studio.root / "mlruns").exists()


def test_a_folder_store_keeps_its_logged_models_unchanged(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.chdir(tmp_path)  # where MLflow would create a store
    store = tmp_path / "mlruns"
    studio = Studio(tmp_path, str(store))
    studio.add_frames(2)
    _, model_id = log_model(studio, "logged")
    run_id = studio.add_run("filed", grey_checkpoint(0.2))
    render_all(studio)
    before = studio.client.get_logged_model(model_id).to_dictionary()

    first = again(studio)
    assert again(studio) == first
    assert studio.client.get_logged_model(model_id).to_dictionary() == before
    assert {each.data.tags["dailies.source_run_name"]: inputs(studio, each) for each in evaluations(studio)} == {
        "logged": [model_id],
        "filed": [],
    }
    assert all(each.data.metrics.keys() == FIGURES for each in evaluations(studio))

    (store / "models").mkdir()
    assert promoted(studio, "filed").endswith("is now version 1 of denoiser, and @champion.")
    written = snapshot(store)
    assert "nothing was changed" in promoted(studio, "filed")
    assert snapshot(store) == written
    (item,) = registered(TrackingStore(str(store), private=tmp_path / "private"), ["denoiser@champion"])
    assert item.run.run_id == run_id
    assert not list(tmp_path.glob("*.db"))


def test_a_server_over_a_folder_keeps_its_logged_models_unchanged(tmp_path: Path):
    folder = new_server_folder()
    artifacts = ("--artifacts-destination", str(folder / "files"))
    studio = Studio(tmp_path, served(folder, *artifacts, store=str(folder / "mlruns")))
    studio.add_frames(1)
    _, model_id = log_model(studio, "logged")
    before = studio.client.get_logged_model(model_id).to_dictionary()

    render_all(studio)
    again(studio)

    (evaluation,) = evaluations(studio)
    assert evaluation.data.metrics.keys() == FIGURES
    assert inputs(studio, evaluation) == [model_id]
    assert studio.client.get_logged_model(model_id).to_dictionary() == before


def test_a_server_without_logged_models_takes_evaluations_and_versions(tmp_path: Path):
    written, experiment = r"POST .*(runs/create|log-batch|experiments/create)", f"exp_{uuid.uuid4().hex[:8]}"
    with proxied() as proxy:
        proxy.trouble = lambda method, path: (
            (404, {"error_code": "ENDPOINT_NOT_FOUND", "message": "none"}) if "logged-models" in path else None
        )
        studio = Studio(tmp_path, proxy.uri, experiment=experiment)
        studio.add_frames(2)
        run_id = studio.add_run("remote", grey_checkpoint(0.2))
        render_all(studio)
        again(studio)

        (evaluation,) = evaluations(studio, f"{experiment}_dailies")
        assert evaluation.info.artifact_uri.startswith("mlflow-artifacts:")
        posted = proxy.count(written)
        again(studio)
        assert proxy.count(written) == posted

        name = f"net {uuid.uuid4().hex[:8]}"
        assert promoted(studio, "remote", name=name).endswith(f"is now version 1 of {name}, and @champion.")
        assert "nothing was changed" in promoted(studio, "remote", name=name)
        found = version(studio, name)
        assert (found.run_id, found.source) == (run_id, f"runs:/{run_id}/checkpoints/best_model_unet.pth")
    assert MlflowClient(server()).get_registered_model(name)
