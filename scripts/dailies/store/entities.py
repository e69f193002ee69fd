"""Experiments, runs, logged models and artifact files, as this package reads them from MLflow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from dailies.core.files import sibling
from dailies.core.text import clean

CONFIG = "config.json"
"""The file in which many libraries keep a network's settings, next to its weights."""

LONGEST_NAME = 200
"""Characters of a name that are kept; MLflow allows 5000."""

LONGEST_KEY, LONGEST_VALUE, MOST_VALUES = 250, 8000, 10_000
"""Characters of the name and value of a param, metric or tag (MLflow's own limits), and how many of them are kept."""

EVALUATION = "dailies.evaluation"
"""The tag of the runs that this workflow writes: they hold metrics of a model but no model."""

MOST_DATASETS = 100
"""How many datasets of a run are kept."""


@dataclass(frozen=True)
class StoredFile:
    """An artifact file."""

    path: str
    """Relative to the artifact location, with forward slashes."""
    size: int | None
    """Bytes; None if the store does not report it."""
    modified: int | None = None
    """Modification time in ns; None unless the store is local."""


@dataclass(frozen=True)
class Run:
    """An MLflow run."""

    run_id: str
    run_name: str
    """One clean line of bounded length."""
    experiment: str
    experiment_id: str
    status: str
    start_time: int | None
    """Milliseconds since 1970; None if the trainer did not log it."""
    end_time: int | None
    """Milliseconds since 1970; None while the run is active."""
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """Without MLflow's own tags (``mlflow.…``)."""
    datasets: tuple[Mapping[str, str], ...] = ()
    """Name, source and context (such as ``training``) of each dataset that was logged as an input."""
    deleted: bool = False


@dataclass(frozen=True)
class LoggedModel:
    """A logged model of MLflow 3, which is stored apart from its run."""

    model_id: str
    run_id: str
    name: str
    artifact_uri: str
    updated: int
    """Milliseconds since 1970."""


@dataclass(frozen=True)
class Experiment:
    """An MLflow experiment."""

    experiment_id: str
    name: str


def read_run(run: Any, experiment: Experiment) -> Run:
    """Return MLflow's run with names as one clean line and every text of bounded length."""
    return Run(
        run_id=clean(run.info.run_id)[:LONGEST_NAME],
        run_name=clean(run.info.run_name or "")[:LONGEST_NAME],
        experiment=clean(experiment.name)[:LONGEST_NAME],
        experiment_id=experiment.experiment_id,
        status=run.info.status,
        start_time=run.info.start_time or None,
        end_time=run.info.end_time,
        artifact_uri=run.info.artifact_uri or "",
        params=_bounded(run.data.params),
        metrics=_bounded(run.data.metrics),
        tags=_bounded({name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}),
        datasets=_datasets(run.inputs),
        deleted=run.info.lifecycle_stage != "active",
    )


def _datasets(inputs: Any) -> tuple[Mapping[str, str], ...]:
    """Return the datasets among a run's inputs, sorted by their values because MLflow returns them in no order."""
    found = []
    for each in (inputs.dataset_inputs if inputs else ())[:MOST_DATASETS]:
        context = next((tag.value for tag in each.tags if tag.key == "mlflow.data.context"), "")
        values = {"name": each.dataset.name, "source": each.dataset.source, "context": context}
        found.append({key: clean(value or "")[:LONGEST_VALUE] for key, value in values.items()})
    return tuple(sorted(found, key=lambda dataset: tuple(dataset.values())))


def _bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first values, with names and texts no longer than MLflow itself allows."""
    kept = [(name, value) for name, value in values.items() if len(name) <= LONGEST_KEY][:MOST_VALUES]
    return {name: value[:LONGEST_VALUE] if isinstance(value, str) else value for name, value in kept}


@dataclass(frozen=True)
class Artifact:
    """The files of a model to render with."""

    uri: str
    """The artifact location that contains them."""
    path: str
    """Path below ``uri`` of the weights file, or of the folder of an MLflow model ("" for the location itself)."""
    files: tuple[StoredFile, ...]
    """All its files, with paths below ``uri``; empty for a logged model that has not been listed."""

    @property
    def size(self) -> int | None:
        """Total bytes; None if the store does not report every size."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None

    @property
    def is_weights(self) -> bool:
        """Whether it is a weights file (possibly with a companion), not the folder of an MLflow model."""
        return any(file.path == self.path for file in self.files)

    @property
    def label(self) -> str:
        """What to call it in a message: its path or, without one, the folder that contains its location."""
        return self.path or PurePosixPath(self.uri).parent.name or self.uri

    @property
    def config(self) -> str | None:
        """Path of the ``config.json`` next to a weights file; None if there is none."""
        there = sibling(self.path, CONFIG)
        is_there = self.is_weights and self.path != there and any(file.path == there for file in self.files)
        return there if is_there else None
