"""Records: what is known of each model, one file of what rendering depends on and one of the rest, and its folder."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from dailies.core import files
from dailies.core.text import clean, columns, counted, in_bytes
from dailies.core.typed import load_all
from dailies.discovery import facts as catalog
from dailies.discovery import naming
from dailies.discovery.selection import OTHER_STATUS, Found
from dailies.discovery.snapshot import Skipped
from dailies.models.signature import ASSUMED, known_range, signature_hints
from dailies.state.layout import Layout, model_of
from dailies.state.records import (
    Dataset,
    DiscoveryIndex,
    ModelRecord,
    Outcome,
    RegisteredModel,
    RunRecord,
)

if TYPE_CHECKING:
    from dailies.planning.config import Settings


ABOUT_ASSUMED = (
    f"{ASSUMED}: neither configuration nor run says which values are black and white to these networks. Unless the "
    "checkpoint does, they get [-1, 1]; set value_range in signatures, or the run's tag dailies.value_range, if it is "
    "another."
)


class _Folders:
    """The folder names given so far: a model keeps its own, also when its run's best file is another one now."""

    def __init__(self, layout: Layout) -> None:
        self.taken: set[str] = set()
        self._by_identity: dict[tuple[str, str, str], str] = {}
        self._by_run: dict[str, str] = {}
        for path in layout.all_records():
            record, about = ModelRecord.load(path), RunRecord.load_if_there(layout.run(path.stem))
            self.taken.add(path.stem)
            self._by_identity[record.run_id, record.artifact.uri, record.artifact.path] = path.stem
            if not (about and about.registered_model):
                self._by_run[record.run_id] = path.stem
        self._given: set[str] = set()

    def of(self, model: Found, template: str) -> str:
        """Give a model's folder name, the same as ever or a new one."""
        same_run = None if model.version else self._by_run.get(model.run.run_id)
        known = [self._by_identity.get(model.identity), same_run]
        name = next((name for name in known if name and name not in self._given), None) or self._new(model, template)
        self._given.add(name)
        self.taken.add(name)
        return name

    def _new(self, model: Found, template: str) -> str:
        run, version = model.run, model.version
        about = asdict(model.facts) | {"run_id": run.run_id, "run_name": run.run_name, "experiment": run.experiment}
        return naming.folder_name(
            template,
            about | {"start_time": run.start_time},
            self.taken,
            apart=f"{version.name}-{version.version}" if version else "",
        )


def _substituted(layout: Layout) -> set[str]:
    """Name the models whose preferred file holds no network, as their last render knows.

    Which other files their runs hold matters for rendering. Of any other model it does not: a checkpoint that is logged
    beside the one that is rendered must not make a download due.
    """
    return {model_of(path) for path in layout.all_attempts() if Outcome.load(path).artifact.tried}


def record(found: Sequence[Found], template: str, layout: Layout) -> list[str]:
    """Write the two records of every model and give the models' names, in order.

    ``template`` is how a new folder is named. A record that says the same as before is not touched.
    """
    folders, substituted = _Folders(layout), _substituted(layout)
    names = []
    for model in found:
        run, facts, choice, version = model.run, model.facts, model.choice, model.version
        name = folders.of(model, template)
        names.append(name)
        rendering = ModelRecord(
            run_id=run.run_id,
            experiment_id=run.experiment_id,
            architecture=facts.architecture,
            artifact=choice.artifact,
            alternatives=choice.alternatives if name in substituted else (),
            hints=catalog.hints(run),
        )
        rendering.save_if_changed(layout.record(name), lasting=False)
        about = RunRecord(
            run_id=run.run_id,
            run_name=run.run_name,
            experiment=run.experiment,
            registered_model=RegisteredModel(name=clean(version.name), version=version.version, alias=version.alias)
            if version
            else None,
            architecture=facts.architecture,
            epoch=facts.epoch,
            train_loss=facts.train_loss,
            val_loss=facts.val_loss,
            status=run.status,
            start_time=run.start_time,
            params=dict(sorted(run.params.items())),
            metrics=dict(sorted(run.metrics.items())),
            tags=dict(sorted(run.tags.items())),
            datasets=tuple(Dataset(**dataset) for dataset in run.datasets),
            not_chosen=choice.others,
            alternatives=choice.alternatives,
        )
        about.save_if_changed(layout.run(name), lasting=False)
    files.persist_all(place(name) for place in (layout.record, layout.run) for name in names)
    return names


def table(layout: Layout, settings: "Settings | None" = None) -> str:
    """Lay out what would be rendered: one line per model, in order.

    With the settings it also shows the range of values that each network is given, as far as it is known.
    """
    ranges: list[str] = []
    rows = [("model", "architecture", "epoch", "train loss", "val loss", "artifact", "size")]
    for name in DiscoveryIndex.load(layout.index).models:
        run, record = RunRecord.load(layout.run(name)), ModelRecord.load(layout.record(name))
        size = None if record.artifact.size is None else in_bytes(record.artifact.size)
        losses = (None if loss is None else f"{loss:.4g}" for loss in (run.train_loss, run.val_loss))
        values = (name, run.architecture, run.epoch, *losses, clean(record.artifact.label), size)
        rows.append(tuple("-" if value is None else str(value) for value in values))
        if settings:
            ranges.append(
                known_range(
                    settings.signatures,
                    signature_hints(record.hints),
                    architecture=record.architecture or settings.default_architecture or "",
                    folder=name,
                    factories=settings.model_factory or {},
                )
            )
    if not settings:
        return columns(rows)
    text = columns([(*row, found) for row, found in zip(rows, ["value range", *ranges], strict=True)])
    return f"{text}\n{ABOUT_ASSUMED}" if ASSUMED in ranges else text


def counts(layout: Layout) -> str:
    """Count the models and, by reason, the runs that are not rendered: "3 models; passed over: 2 FAILED, 1 deleted"."""
    skipped = load_all(Skipped, layout.skipped) if layout.skipped.is_file() else ()
    reasons = Counter(clean(run.status) if run.kind == OTHER_STATUS else run.kind for run in skipped)
    models = counted(len(DiscoveryIndex.load(layout.index).models), "model")
    passed_over = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{models}; passed over: {passed_over}" if passed_over else models
