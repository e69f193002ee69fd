"""Evaluations: the metrics of a rendered model, written to MLflow as a separate run that is linked to the model.

The model's own run is never changed. Evaluations go to a separate experiment, so that discovery does not find them.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dailies
from dailies.core import files
from dailies.core.errors import StoreError
from dailies.core.text import clean
from dailies.core.typed import save_all
from dailies.frames.sequence import load as load_sequence
from dailies.state import manifest
from dailies.state.layout import Layout, model_of
from dailies.state.records import (
    KNOCKED_OUT,
    SUCCESS,
    Evaluation,
    Means,
    Metadata,
    ModelRecord,
    RunRecord,
    rendered_artifact,
)
from dailies.store.entities import EVALUATION
from dailies.store.writer import WritableStore, open_writable_store

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

EXPERIMENT_SUFFIX = "_dailies"
"""Added to an experiment's name for the experiment of its evaluations."""

METRIC_PREFIX = "dailies/"
"""Prefix of metric names: MLflow shows them next to the model's own metrics."""

RENDER_METRICS = ("frames", "fps", "seconds")
"""Fields of a render's outcome that are written as metrics."""

LONGEST_DIGEST = 36
"""Characters of a dataset's digest that MLflow stores."""


def mean_values(means: Means | None) -> dict[str, float]:
    """Return the mean of each metric that has one.

    If the model was trained on some of the frames, the means over the other frames are added as ``…_unseen``.
    """
    if means is None:
        return {}
    unseen = means.mean_unseen if means.training_frames else {}
    values = {**means.mean, **{f"{name}_unseen": value for name, value in unseen.items()}}
    return {name: value for name, value in values.items() if value is not None}


def model_tags(model: str, metadata: Metadata) -> dict[str, str]:
    """Return the tags that identify a rendered model and state its metrics."""
    measured = metadata.measured
    return {
        "dailies.version": dailies.__version__,
        "dailies.model": model,
        "dailies.artifact_sha256": metadata.artifact.sha256 or "",
        **({"dailies.measured_frames": str(measured.frames)} if measured and measured.of else {}),
        **{f"dailies.metrics.{name}": repr(value) for name, value in mean_values(measured).items()},
    }


def frame_tags(model: str, metadata: Metadata, layout: Layout) -> dict[str, str] | None:
    """Return the tags that identify the sequence and the rendered frames; None unless all frames are in place."""
    sequence = load_sequence(layout.sequence)
    entries = manifest.in_place(layout.manifests(model), layout.frames(model), sequence.outputs)
    if metadata.input.digest != sequence.digest or sequence.outputs != entries.keys():
        return None
    return {
        "dailies.sequence_digest": sequence.digest,
        "dailies.frames": str(len(sequence.frames)),
        "dailies.frames_digest": files.digest([[name, entries[name].sha256] for name in sorted(sequence.outputs)]),
    }


def logged_model_id(store: WritableStore, experiment_id: str, run_id: str, artifact_uri: str) -> str | None:
    """Return the id of a run's logged model whose artifacts are at ``artifact_uri``; None if there is none."""
    models = store.logged_models([experiment_id]).get(run_id, [])
    return next((model.model_id for model in models if model.artifact_uri == artifact_uri), None)


def write_back(settings: "Settings", metadata_files: Sequence[Path], *, layout: Layout) -> None:
    """Write an evaluation of every rendered model to MLflow, and save the record of all of them.

    An evaluation of the same frames with the same metrics is written only once. The record lists the models in the
    order of ``metadata_files``, each with the id of its evaluation run or the reason why it has none. Raises
    StoreError.
    """
    store = open_writable_store(settings, layout.upgraded)
    store.refuse_unwritable()
    evaluations: dict[str, _Evaluations] = {}
    records = []
    for path in metadata_files:
        model, metadata = model_of(path), Metadata.load(path)
        record, run = ModelRecord.load(layout.record(model)), RunRecord.load_if_there(layout.run(model))
        status = metadata.render.status
        out = metadata.knocked_out
        frames = frame_tags(model, metadata, layout) if status == SUCCESS and not out else None
        if frames is None:
            reason = f"{KNOCKED_OUT}: {out}" if out else "its frames are not all in place"
            reason = reason if status == SUCCESS else status
            records.append(Evaluation(model=model, run_id=record.run_id, reason=reason))
        else:
            experiment = record.experiment_id
            if experiment not in evaluations:
                evaluations[experiment] = _Evaluations(store, experiment)
            subject = _Subject(record.run_id, rendered_artifact(record, run, metadata.artifact).uri, metadata)
            tags = model_tags(model, metadata) | frames
            run_id = evaluations[experiment].write(subject, tags, shot=settings.input_dir.name)
            records.append(Evaluation(model=model, run_id=record.run_id, evaluation=run_id))
    save_all(records, layout.evaluations)
    log.info("%d evaluations are in MLflow", sum(record.evaluation is not None for record in records))


@dataclass(frozen=True)
class _Subject:
    """A rendered model that is evaluated."""

    run_id: str
    uri: str
    """The artifact location that it was rendered from."""
    metadata: Metadata


class _Evaluations:
    """The evaluations of the models of one experiment."""

    def __init__(self, store: WritableStore, experiment_id: str) -> None:
        self._store = store
        self._models_experiment = experiment_id
        source = store.ask(lambda client: client.get_experiment(experiment_id))
        self._experiment = self._find_or_create(f"{source.name}{EXPERIMENT_SUFFIX}", source.artifact_location)
        pages = store.pages(
            lambda client, token: client.search_runs([self._experiment], max_results=1000, page_token=token)
        )
        self._written = {run.data.tags[EVALUATION]: run.info for run in pages if EVALUATION in run.data.tags}

    def _find_or_create(self, name: str, models_location: str) -> str:
        experiment = self._store.ask(lambda client: client.get_experiment_by_name(name))
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise StoreError(
                "publish.experiment_deleted",
                f"experiment '{clean(name)}' for evaluations was deleted from {self._store.name}; restore it "
                "(mlflow experiments restore), or set write_back=false",
            )
        if experiment is not None:
            return str(experiment.experiment_id)
        log.info("creating experiment '%s' for evaluations", clean(name))
        # without a location, a local store would create a folder in the working directory
        location = f"{models_location.rstrip('/')}{EXPERIMENT_SUFFIX}" if self._store.is_local else None
        return self._store.ask(lambda client: client.create_experiment(name, artifact_location=location))

    def write(self, subject: _Subject, tags: Mapping[str, str], *, shot: str) -> str:
        """Write the evaluation of a model unless it exists, and return its run id.

        An evaluation that was interrupted is completed. Evaluations are identical if run, artifact, frames and metrics
        are, however long the render took.
        """
        compared = {name: value for name, value in tags.items() if name not in {"dailies.version", "dailies.model"}}
        key = files.digest([subject.run_id, compared])
        known = self._written.get(key)
        if known and known.status == "FINISHED":
            log.info("%s: already written as run %s", tags["dailies.model"], known.run_id)
            return str(known.run_id)
        run_id = str(known.run_id) if known else self._create_run(key, subject, tags)
        self._log(run_id, subject, digest=tags["dailies.sequence_digest"][:LONGEST_DIGEST], shot=shot)
        self._store.ask(lambda client: client.set_terminated(run_id))
        log.info("%s: written as run %s", tags["dailies.model"], run_id)
        return run_id

    def _create_run(self, key: str, subject: _Subject, tags: Mapping[str, str]) -> str:
        source = {
            EVALUATION: key,
            "dailies.source_run_id": subject.run_id,
            "dailies.source_run_name": subject.metadata.run_name,
        }
        run = self._store.ask(
            lambda client: client.create_run(self._experiment, tags={**source, **tags}, run_name=tags["dailies.model"])
        )
        return str(run.info.run_id)

    def _log(self, run_id: str, subject: _Subject, *, digest: str, shot: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, LoggedModelInput

        model_id = logged_model_id(self._store, self._models_experiment, subject.run_id, subject.uri)
        dataset = Dataset(
            name=shot, digest=digest, source_type="local", source=files.dump_json({"shot": shot}).decode()
        )
        models = [LoggedModelInput(model_id)] if model_id else []
        self._store.ask(
            lambda client: client.log_inputs(run_id, datasets=[DatasetInput(dataset, [])], models=models or None)
        )
        metrics_model = model_id if self._store.accepts_model_metrics(self._experiment) else None
        metrics = list(_metrics(subject.metadata, run_id=run_id, model_id=metrics_model, dataset=(shot, digest)))
        self._store.ask(lambda client: client.log_batch(run_id, metrics=metrics))


def _metrics(metadata: Metadata, *, run_id: str, model_id: str | None, dataset: tuple[str, str]) -> Iterable[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values = {name: getattr(metadata.render, name) for name in RENDER_METRICS} | mean_values(metadata.measured)
    for name, value in values.items():
        if value is None:
            continue
        yield Metric(
            f"{METRIC_PREFIX}{name}",
            float(value),
            now,
            0,
            model_id=model_id,
            dataset_name=dataset[0],
            dataset_digest=dataset[1],
            run_id=run_id,
        )
