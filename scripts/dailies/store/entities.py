"""Entities: MLflow's runs, logged models, experiments and files, apart from the store that is asked for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from dailies.core.files import sibling
from dailies.core.text import clean

CONFIG = "config.json"
"""The file in which many libraries keep the settings of a network, beside its weights."""

LONGEST_NAME = 200
"""Characters of a run's name; MLflow allows 5000."""

LONGEST_KEY, LONGEST_VALUE, MOST_VALUES = 250, 8000, 10_000
"""Characters of a param's, metric's or tag's name and value, MLflow's own limits, and how many of them are kept."""

EVALUATION = "dailies.evaluation"
"""The tag of the runs that this workflow writes itself: they hold figures of a model, and no model."""

MOST_DATASETS = 100
"""Datasets of a run that are kept."""


@dataclass(frozen=True)
class StoredFile:
    """A file among the artifacts."""

    path: str
    """Relative to the artifact location, with forward slashes."""
    size: int | None
    """Bytes; None where the store does not say."""
    modified: int | None = None
    """Modification time in ns, known for local stores only."""


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
    """Milliseconds since 1970; None where the trainer did not say."""
    end_time: int | None
    """Milliseconds since 1970."""
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    """The user's own tags; MLflow's (``mlflow.…``) are left out."""
    datasets: tuple[Mapping[str, str], ...] = ()
    """The datasets that the run was given: name, source and context, such as ``training``."""
    deleted: bool = False


@dataclass(frozen=True)
class LoggedModel:
    """A model that MLflow 3 keeps beside its run."""

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
    """Read MLflow's run: names become one clean line, and everything is of bounded length."""
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


def _datasets(inputs: Any) -> tuple[dict[str, str], ...]:
    """Give the datasets among a run's inputs, in an order of their own: MLflow has none."""
    found = []
    for each in (inputs.dataset_inputs if inputs else ())[:MOST_DATASETS]:
        context = next((tag.value for tag in each.tags if tag.key == "mlflow.data.context"), "")
        values = {"name": each.dataset.name, "source": each.dataset.source, "context": context}
        found.append({key: clean(value or "")[:LONGEST_VALUE] for key, value in values.items()})
    return tuple(sorted(found, key=lambda dataset: tuple(dataset.values())))


def _bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what MLflow itself would accept, in number and in length."""
    kept = [(name, value) for name, value in values.items() if len(name) <= LONGEST_KEY][:MOST_VALUES]
    return {name: value[:LONGEST_VALUE] if isinstance(value, str) else value for name, value in kept}


@dataclass(frozen=True)
class Artifact:
    """The files to render with."""

    uri: str
    """The artifact location that holds them."""
    path: str
    """The weights' path below ``uri``, or the folder of an MLflow model ("" is the location itself)."""
    files: tuple[StoredFile, ...]
    """Every file that belongs to it, with paths below ``uri``; none as long as a logged model was not listed."""

    @property
    def size(self) -> int | None:
        """Bytes in all; None where the store does not say."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def is_weights(self) -> bool:
        """Whether it is a file of weights, not an MLflow model folder; it may have a companion."""
        return any(file.path == self.path for file in self.files)

    @property
    def label(self) -> str:
        """How a user finds it: the path, or the last part of the location."""
        return self.path or PurePosixPath(self.uri).parent.name or self.uri

    @property
    def config(self) -> str | None:
        """The path of the ``config.json`` that lies beside weights, and is no part of them."""
        there = sibling(self.path, CONFIG)
        is_there = self.is_weights and self.path != there and any(file.path == there for file in self.files)
        return there if is_there else None
