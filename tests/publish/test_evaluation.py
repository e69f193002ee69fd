"""Evaluations: what is written to MLflow, that nothing is written twice, and that discovery ignores it."""

import shutil
from dataclasses import replace
from pathlib import Path

from dailies.core import files
from dailies.core.errors import StoreError
from dailies.discovery.selection import Selection
from dailies.planning.validation import validated
from dailies.publish.evaluation import mean_values, model_tags
from dailies.state.records import Means, Metadata, RenderReport
from dailies.store.tracking import TrackingStore
from helpers.in_process import render_all
from helpers.json_files import strict_json
from helpers.publishing import FIGURES, again, evaluations, measure
from helpers.raising import refused
from helpers.stores import folder_shelf
from helpers.studio import Studio, jobs
from helpers.weights import grey_checkpoint


def test_snakemake_writes_every_model_back_once(rendered: Studio):
    def logged() -> str:  # as text, because NaN is not equal to NaN
        return repr([rendered.client.get_run(run_id).to_dictionary() for run_id in rendered.runs.values()])

    before = logged()
    assert not evaluations(rendered)
    measure(rendered, "dark")

    first = rendered.snakemake(write_back=True)

    assert jobs(first, "write_back") == [""]
    assert not jobs(first, "infer")
    record = strict_json(rendered.state / "evaluations.json")
    runs = {run.info.run_id: run for run in evaluations(rendered)}
    assert [each["run_id"] for each in record] == [rendered.runs[name] for name in ("dark", "middle", "light")]
    assert [each["evaluation"] for each in record if each["evaluation"] not in runs] == []
    assert len(runs) == 3
    dark = runs[record[0]["evaluation"]]
    folder = rendered.folder(rendered.runs["dark"])
    assert (dark.info.run_name, dark.info.status) == (folder.name, "FINISHED")
    assert dark.data.metrics.keys() == FIGURES | {"dailies/psnr"}
    assert (dark.data.metrics["dailies/psnr"], dark.data.metrics["dailies/frames"]) == (31.25, 4)
    tags = dark.data.tags
    assert (tags["dailies.source_run_id"], tags["dailies.source_run_name"]) == (rendered.runs["dark"], "dark")
    assert tags["dailies.artifact_sha256"] == rendered.metadata(rendered.runs["dark"])["artifact"]["sha256"]
    (dataset,) = dark.inputs.dataset_inputs
    assert dataset.dataset.name == "shot"
    assert tags["dailies.sequence_digest"].startswith(dataset.dataset.digest)
    assert logged() == before
    assert "Nothing to be done" in rendered.snakemake("-n", write_back=True)
    assert not (rendered.root / "mlruns").exists()


def test_the_same_frames_are_written_once_whatever_their_render_time(rendered: Studio):
    first = again(rendered)
    state = (rendered.root / "mlflow.db").read_bytes()
    path = rendered.folder(rendered.runs["dark"]) / "metadata.json"
    about = strict_json(path)
    files.write_json(path, about | {"render": about["render"] | {"seconds": 99.0, "fps": 0.1}, "tags": {"new": "1"}})
    (rendered.state / "evaluations.json").unlink()

    assert again(rendered) == first
    assert (rendered.root / "mlflow.db").read_bytes() == state


def test_new_metrics_and_new_frames_are_written_as_further_runs(rendered: Studio):
    again(rendered)
    measure(rendered, "dark")
    again(rendered)
    assert len(evaluations(rendered)) == 4

    rendered.add_frames(1, start=4, size=(40, 36))
    render_all(rendered)
    again(rendered)
    assert len(evaluations(rendered)) == 7


def test_an_interrupted_evaluation_is_completed(rendered: Studio):
    run_id = again(rendered)[0]["evaluation"]
    rendered.client.update_run(run_id, status="RUNNING")

    assert again(rendered)[0]["evaluation"] == run_id
    assert rendered.client.get_run(run_id).info.status == "FINISHED"
    assert len(evaluations(rendered)) == 3


def test_discovery_ignores_evaluations(rendered: Studio):
    again(rendered)
    # even if their experiment is selected and they contain a checkpoint
    evaluation = evaluations(rendered)[0].info.run_id
    rendered.log_checkpoint(evaluation, grey_checkpoint(0.3))

    render_all(rendered, experiment_name=["exp", "exp_dailies"])
    assert len(strict_json(rendered.state / "discovery.json")["models"]) == 3
    assert {each["run_name"] for each in strict_json(rendered.state / "skipped.json")} == {"empty"}
    assert evaluation in {run.info.run_id for run in evaluations(rendered)}


def test_a_failed_model_is_recorded_without_an_evaluation(rendered: Studio):
    path = rendered.folder(rendered.runs["dark"]) / "metadata.json"
    about = strict_json(path)
    files.write_json(path, about | {"render": about["render"] | {"status": "error", "error": "x"}})

    record = again(rendered)

    assert (record[0]["evaluation"], record[0]["reason"]) == (None, "error")
    assert len(evaluations(rendered)) == 2


def test_a_model_without_all_its_frames_is_recorded_without_an_evaluation(rendered: Studio):
    (rendered.folder(rendered.runs["dark"]) / "frame_000001.png").unlink()

    record = again(rendered)

    assert (record[0]["evaluation"], record[0]["reason"]) == (None, "its frames are not all in place")
    assert len(evaluations(rendered)) == 2


def test_a_store_that_cannot_be_written_is_refused_before_rendering(rendered: Studio):
    (rendered.root / "mlflow.db").chmod(0o444)
    shutil.rmtree(rendered.folder(rendered.runs["dark"]))

    printed = rendered.snakemake(expect=1, write_back=True)

    assert f"dailies: you may not write to the MLflow store {rendered.root / 'mlflow.db'};" in printed
    assert "Traceback" not in printed
    assert not jobs(printed, "infer")


def test_a_deleted_experiment_is_not_recreated(rendered: Studio):
    again(rendered)
    rendered.client.delete_experiment(rendered.client.get_experiment_by_name("exp_dailies").experiment_id)

    with refused(StoreError, "publish.experiment_deleted", "'exp_dailies'", rendered.uri, "write_back=false"):
        again(rendered)


def test_means_over_unseen_frames_have_names_of_their_own():
    means = Means(mean={"psnr": 30.0, "flip": None}, mean_unseen={"psnr": 29.0, "flip": None})

    assert mean_values(None) == {}
    assert mean_values(means) == {"psnr": 30.0}
    assert mean_values(replace(means, training_frames=3)) == {"psnr": 30.0, "psnr_unseen": 29.0}


def test_means_over_some_frames_are_tagged_with_their_number():
    about = Metadata(
        run_id="a", render=RenderReport(status="success"), measured=Means(frames=64, of=500, mean={"psnr": 30.0})
    )
    whole = replace(about, measured=Means(frames=64, mean={"psnr": 30.0}))

    assert model_tags("a", about) == model_tags("a", whole) | {"dailies.measured_frames": "64"}


def test_evaluations_are_not_reported_as_runs_that_the_filter_excluded(tmp_path: Path):
    from dailies.discovery.queries import Queries

    shelf = folder_shelf(tmp_path / "store")
    shelf.run("plain", "best.pth", params={"a": "1"})
    shelf.run("ours", "best.pth", params={"a": "1"}, tags={"dailies.evaluation": "k"})
    config = validated({"mlflow_uri": shelf.uri, "experiment_name": "exp", "filter": "params.a = '2'"})
    store = TrackingStore(shelf.uri, private=tmp_path / "private")
    queries = Queries(store, Selection.from_settings(config), recheck=True, earlier=None)

    assert [run.run_name for run in queries.unseen(queries.snapshot())] == ["plain"]
