"""Promoting and writing back, as the rules do it."""

from dailies.core import files
from dailies.planning.validation import validated
from dailies.publish.evaluation import write_back
from dailies.publish.promotion import promote, requested

from helpers.json_files import strict_json
from helpers.studio import Studio


def asked(studio: Studio, model: str | None = "dark", name: str | None = "denoiser", alias: str | None = "champion"):
    """Return the settings with which a user promotes a model."""
    config = {"model": model, "registered_model": name, "alias": alias}
    return validated(studio.config | config)


def promoted(studio: Studio, model: str = "dark", **changes) -> str:
    config = asked(studio, model, **changes)
    return promote(config, model=requested(config, studio.layout).model, layout=studio.layout)


def version(studio: Studio, name: str = "denoiser", alias: str = "champion"):
    return studio.client.get_model_version_by_alias(name, alias)


def measure(studio: Studio, name: str, **changes) -> None:
    """Write metrics of a model to its metadata, as the rules do."""
    path = studio.folder(studio.runs[name]) / "metadata.json"
    means = {"training_frames": 0, "mean": {"psnr": 31.25, "ssim": None}, "mean_unseen": {"psnr": 31.25}} | changes
    files.write_json(path, strict_json(path) | {"measured": means})


FIGURES = {"dailies/frames", "dailies/fps", "dailies/seconds"}


def again(studio: Studio) -> list[dict]:
    """Write back as the rule does, and return the record."""
    layout = studio.layout
    models = strict_json(layout.state / "discovery.json")["models"]
    write_back(validated(studio.config), [layout.metadata(model) for model in models], layout=layout)
    return strict_json(layout.evaluations)


def evaluations(studio: Studio, experiment: str = "exp_dailies") -> list:
    found = studio.client.get_experiment_by_name(experiment)
    return studio.client.search_runs([found.experiment_id]) if found else []
