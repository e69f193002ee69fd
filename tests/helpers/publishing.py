"""Promoting and writing back, as their rules do it."""

from dailies.core import files
from dailies.planning.validation import validated
from dailies.publish.evaluation import write_back
from dailies.publish.promotion import decided, promote

from helpers.json_files import strict_json
from helpers.studio import Studio


def asked(studio: Studio, model: str | None = "dark", name: str | None = "denoiser", alias: str | None = "champion"):
    """Give the configuration with which a user promotes a model."""
    config = {"model": model, "registered_model": name, "alias": alias}
    return validated(studio.config | config)


def promoted(studio: Studio, model: str = "dark", **changes) -> str:
    config = asked(studio, model, **changes)
    return promote(config, model=decided(config, studio.layout).model, layout=studio.layout)


def version(studio: Studio, name: str = "denoiser", alias: str = "champion"):
    return studio.client.get_model_version_by_alias(name, alias)


def measure(studio: Studio, name: str, **changes) -> None:
    """Write measures of a model to its metadata, as the metrics' rules do."""
    path = studio.folder(studio.runs[name]) / "metadata.json"
    told = {"training_frames": 0, "mean": {"psnr": 31.25, "ssim": None}, "mean_unseen": {"psnr": 31.25}} | changes
    files.write_json(path, strict_json(path) | {"measured": told})


FIGURES = {"dailies/frames", "dailies/fps", "dailies/seconds"}


def again(studio: Studio) -> list[dict]:
    """Write back as the rule does, and give the record."""
    models = strict_json(studio.state / "discovery.json")["models"]
    output = studio.state / "evaluations.json"
    paths = [studio.output / model / "metadata.json" for model in models]
    write_back(validated(studio.config), paths, output=output)
    return strict_json(output)


def evaluations(studio: Studio, experiment: str = "exp_dailies") -> list:
    found = studio.client.get_experiment_by_name(experiment)
    return studio.client.search_runs([found.experiment_id]) if found else []
