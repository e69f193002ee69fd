"""Evaluations: what was measured of a model, written back to MLflow as a run of its own, linked to the model.

The model's own run is never opened again. Evaluations are in an experiment of their own, so that discovery sees none.
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
    SUCCESS,
    Evaluation,
    Means,
    Metadata,
    ModelRecord,
    RunRecord,
    rendered_artifact,
)
from dailies.store.entities import EVALUATION
from dailies.store.writer import Ledger, open_ledger

if TYPE_CHECKING:
    from dailies.planning.config import Settings


log = logging.getLogger(__name__)

BESIDE = "_dailies"
"""What is added to the name of an experiment to name that of its evaluations."""

PREFIX = "dailies/"
"""How the names of metrics begin: a model's own are shown beside them."""

FIGURES = ("frames", "fps", "seconds")
"""What is written of a render, whatever else was measured."""

LONGEST_DIGEST = 36
"""Characters that MLflow keeps of a dataset's digest."""


def measured(told: Means | None) -> dict[str, float]:
    """Give the means of what was measured of a model, as its ``metadata.json`` tells them.

    Those over frames that it was not trained on are named ``…_unseen``, where there are any of both kinds.
    """
    if told is None:
        return {}
    unseen = told.mean_unseen if told.training_frames else {}
    values = {**told.mean, **{f"{name}_unseen": value for name, value in unseen.items()}}
    return {name: value for name, value in values.items() if value is not None}


def grounds(model: str, about: Metadata) -> dict[str, str]:
    """Give what is tagged of a model: which it is, and what was measured of it."""
    return {
        "dailies.version": dailies.__version__,
        "dailies.model": model,
        "dailies.artifact_sha256": about.artifact.sha256,
        **{f"dailies.metrics.{name}": repr(value) for name, value in measured(about.measured).items()},
    }


def frames_judged(model: str, about: Metadata, layout: Layout) -> dict[str, str] | None:
    """Give digests of the sequence and of the frames rendered from it; None when they are not all in place."""
    sequence = load_sequence(layout.sequence)
    entries = manifest.in_place(layout.manifests(model), layout.frames(model), sequence.outputs)
    if about.input.digest != sequence.digest or sequence.outputs != entries.keys():
        return None
    return {
        "dailies.sequence_digest": sequence.digest,
        "dailies.frames": str(len(sequence.frames)),
        "dailies.frames_digest": files.digest([[name, entries[name].sha256] for name in sorted(sequence.outputs)]),
    }


def logged_model(ledger: Ledger, experiment_id: str, run_id: str, artifact_uri: str) -> str | None:
    """Give the id of the logged model that an artifact location belongs to; None where it belongs to none."""
    models = ledger.logged_models([experiment_id]).get(run_id, [])
    return next((model.model_id for model in models if model.artifact_uri == artifact_uri), None)


def write_back(settings: "Settings", metadata: Sequence[Path], *, layout: Layout) -> None:
    """Write an evaluation of every model that was rendered, unless MLflow has it already; record them.

    The record lists, in the order of ``metadata``, each model with the id of its evaluation run, or why it has none.
    What has been measured of the same frames is written once. Raises StoreError.
    """
    ledger = open_ledger(settings, layout.upgraded)
    ledger.refuse_unwritable()
    books: dict[str, _Book] = {}
    records = []
    for path in metadata:
        model, about = model_of(path), Metadata.load(path)
        record, run = ModelRecord.load(layout.record(model)), RunRecord.load_if_there(layout.run(model))
        status = about.render.status
        frames = frames_judged(model, about, layout) if status == SUCCESS else None
        if frames is None:
            reason = "its frames are not all in place" if status == SUCCESS else status
            records.append(Evaluation(model=model, run_id=record.run_id, reason=reason))
        else:
            experiment = record.experiment_id
            if experiment not in books:
                books[experiment] = _Book(ledger, experiment)
            judged = _Judged(record.run_id, rendered_artifact(record, run, about.artifact).uri, about)
            tags = grounds(model, about) | frames
            written = books[experiment].enter(judged, tags, shot=settings.input_dir.name)
            records.append(Evaluation(model=model, run_id=record.run_id, evaluation=written))
    save_all(records, layout.evaluations)
    log.info("%d evaluations are in MLflow", sum(record.evaluation is not None for record in records))


@dataclass(frozen=True)
class _Judged:
    """A model that was rendered."""

    run_id: str
    uri: str
    """The artifact location of what was rendered."""
    about: Metadata


class _Book:
    """The evaluations of the models of one experiment."""

    def __init__(self, ledger: Ledger, experiment_id: str) -> None:
        self._ledger = ledger
        self._models_of = experiment_id
        source = ledger.ask(lambda client: client.get_experiment(experiment_id))
        self._experiment = self._opened(f"{source.name}{BESIDE}", source.artifact_location)
        pages = ledger.pages(
            lambda client, token: client.search_runs([self._experiment], max_results=1000, page_token=token)
        )
        self._written = {run.data.tags[EVALUATION]: run.info for run in pages if EVALUATION in run.data.tags}

    def _opened(self, name: str, location: str) -> str:
        experiment = self._ledger.ask(lambda client: client.get_experiment_by_name(name))
        if experiment is not None and experiment.lifecycle_stage != "active":
            raise StoreError(
                "publish.experiment_deleted",
                f"experiment '{clean(name)}', where evaluations go, was deleted from {self._ledger.name}; restore it "
                "(mlflow experiments restore), or set write_back=false",
            )
        if experiment is not None:
            return experiment.experiment_id
        log.info("experiment '%s' is made for the evaluations", clean(name))
        # a store on disk would begin a folder in the working directory
        place = f"{location.rstrip('/')}{BESIDE}" if self._ledger.is_local else None
        return self._ledger.ask(lambda client: client.create_experiment(name, artifact_location=place))

    def enter(self, judged: _Judged, tags: Mapping[str, str], *, shot: str) -> str:
        """Write the evaluation of a model, unless it is there; give its run's id.

        One that an interruption left unfinished is finished. How long a render took is no part of what tells one
        evaluation from another.
        """
        told = {name: value for name, value in tags.items() if name not in {"dailies.version", "dailies.model"}}
        key = files.digest([judged.run_id, told])
        known = self._written.get(key)
        if known and known.status == "FINISHED":
            log.info("%s: written before, as run %s", tags["dailies.model"], known.run_id)
            return known.run_id
        run_id = known.run_id if known else self._begin(key, judged, tags)
        self._fill(run_id, judged, digest=tags["dailies.sequence_digest"][:LONGEST_DIGEST], shot=shot)
        self._ledger.ask(lambda client: client.set_terminated(run_id))
        log.info("%s: written as run %s", tags["dailies.model"], run_id)
        return run_id

    def _begin(self, key: str, judged: _Judged, tags: Mapping[str, str]) -> str:
        own = {
            EVALUATION: key,
            "dailies.source_run_id": judged.run_id,
            "dailies.source_run_name": judged.about.run_name,
        }
        run = self._ledger.ask(
            lambda client: client.create_run(self._experiment, tags=own | tags, run_name=tags["dailies.model"])
        )
        return run.info.run_id

    def _fill(self, run_id: str, judged: _Judged, *, digest: str, shot: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, LoggedModelInput

        model_id = logged_model(self._ledger, self._models_of, judged.run_id, judged.uri)
        dataset = Dataset(
            name=shot, digest=digest, source_type="local", source=files.dump_json({"shot": shot}).decode()
        )
        models = [LoggedModelInput(model_id)] if model_id else []
        self._ledger.ask(
            lambda client: client.log_inputs(run_id, datasets=[DatasetInput(dataset, [])], models=models or None)
        )
        names_model = model_id if self._ledger.tells_metrics_of_models(self._experiment) else None
        metrics = list(_metrics(judged.about, run_id=run_id, model_id=names_model, dataset=(shot, digest)))
        self._ledger.ask(lambda client: client.log_batch(run_id, metrics=metrics))


def _metrics(about: Metadata, *, run_id: str, model_id: str | None, dataset: tuple[str, str]) -> Iterable[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    figures = {name: getattr(about.render, name) for name in FIGURES}
    for name, value in (figures | measured(about.measured)).items():
        if value is None:
            continue
        yield Metric(
            f"{PREFIX}{name}",
            float(value),
            now,
            0,
            model_id=model_id,
            dataset_name=dataset[0],
            dataset_digest=dataset[1],
            run_id=run_id,
        )
