"""Write the records of models: for each, one with everything that its render depends on, and one with the rest."""

from collections.abc import Sequence

from dailies.core import files
from dailies.core.text import clean
from dailies.discovery.facts import hints
from dailies.discovery.folder_names import FolderNames
from dailies.discovery.selection import Found
from dailies.state.layout import Layout, model_of
from dailies.state.records import Dataset, ModelRecord, Outcome, RegisteredModel, RunRecord


def record_models(found: Sequence[Found], template: str, layout: Layout) -> list[str]:
    """Write the two records of every model; return the models' names in the same order.

    ``template`` is the template of new folder names. A record that would not change is not touched.
    """
    folder_names, substituted = FolderNames(layout, template), _substituted(layout)
    names = []
    for model in found:
        name = folder_names.assign(model)
        names.append(name)
        _model_record(model, is_substituted=name in substituted).save_if_changed(layout.record(name), durable=False)
        _run_record(model).save_if_changed(layout.run(name), durable=False)
    files.persist_all(place(name) for place in (layout.record, layout.run) for name in names)
    return names


def _substituted(layout: Layout) -> set[str]:
    """Return the names of models whose preferred file turned out to hold no network.

    Only for these models do the other files of the run matter for rendering. For any other model, a checkpoint that is
    logged beside the rendered one must not make a download due.
    """
    return {model_of(path) for path in layout.all_attempts() if Outcome.load(path).artifact.tried}


def _model_record(model: Found, *, is_substituted: bool) -> ModelRecord:
    return ModelRecord(
        run_id=model.run.run_id,
        experiment_id=model.run.experiment_id,
        architecture=model.facts.architecture,
        artifact=model.choice.artifact,
        alternatives=model.choice.alternatives if is_substituted else (),
        hints=hints(model.run),
    )


def _run_record(model: Found) -> RunRecord:
    run, facts, version = model.run, model.facts, model.version
    return RunRecord(
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
        not_chosen=model.choice.others,
        alternatives=model.choice.alternatives,
    )
