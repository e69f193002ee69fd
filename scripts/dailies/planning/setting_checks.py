"""The checks of settings that types and bounds cannot express."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from string import Formatter

from dailies.core.errors import ConfigError, LoadError
from dailies.core.text import redacted
from dailies.frames import pairing
from dailies.measure import lpips_weights, metrics
from dailies.models.signature import Signature, resolve_signature
from dailies.planning.config import RUN_ID_DIGITS, Settings, functions_of
from dailies.planning.setting_errors import shown_value
from dailies.store.locations import FIXED

TILE_STEP = 32
"""The least distance in pixels between the starts of neighbouring tiles, a multiple of every network's stride."""

FOLDER_FIELDS = {
    "run_name": "unet",
    "run_id": "0" * RUN_ID_DIGITS,
    "architecture": "unet",
    "epoch": 1,
    "train_loss": 0.5,
    "val_loss": 0.5,
    "experiment": "copyair_experiments",
    "start_time": 1701234567890,
}
"""The fields of ``folder_name``, each with a typical value for checking formats."""

MISUNDERSTOOD = {
    r"[{}]": "a brace is a wildcard in Snakemake's paths, and nothing replaces it",
    r"\$": "variables such as $HOME are not replaced",
    "^~": "no user of that name has a home folder here",
    r"^[A-Za-z][A-Za-z0-9+.-]+:/": "it is an address, not a folder",
    r"[\x00-\x1f\x7f]": "it holds a control character",
}
"""Patterns in a folder's name that mean something to a shell or to Snakemake, and the explanation for the user."""

CREDENTIALS = re.compile(r"^[^/]*:(//)?[^/].*@|[?&][^=&]*(password|passwd|pwd|token|secret)[^=&]*=", re.IGNORECASE)
"""``user:password@`` before a host, or a secret in the query string. An ``@`` in a file path is neither."""

Check = Callable[[Settings, Mapping[str, str]], Iterator[ConfigError]]

CHECKS: list[tuple[frozenset[str], Check]] = []
"""Each check with the keys that it reads. It runs if none of their values is wrong."""


def _reads(*keys: str) -> Callable[[Check], Check]:
    def add(check: Check) -> Check:
        CHECKS.append((frozenset(keys), check))
        return check

    return add


@_reads("experiment_name", "models", "run_ids")
def _check_selection(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    if not (settings.experiment_name or settings.models or settings.run_ids):
        yield ConfigError(
            "config.nothing_selected",
            "experiment_name, models and run_ids are all none, so there is nothing to render; set one of them.",
        )


@_reads("mlflow_uri")
def _check_store(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    uri = settings.mlflow_uri
    if uri is None:
        if not environ.get("MLFLOW_TRACKING_URI"):
            yield ConfigError(
                "config.no_store",
                "mlflow_uri is none and the environment variable MLFLOW_TRACKING_URI is not set; set one of them.",
            )
        return
    if uri.startswith("http") and "#" in uri:
        yield ConfigError(
            "config.browser_address",
            f"mlflow_uri is {shown_value(uri)}, the address of a page in a browser; "
            f"write {redacted(uri.partition('#')[0])}, without the part from # on.",
        )
    if CREDENTIALS.search(uri):
        is_server = uri.lower().startswith("http")
        remedy = (
            "write it without them, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
            if is_server
            else "set mlflow_uri to null, and MLFLOW_TRACKING_URI in the environment"
        )
        yield ConfigError(
            "config.credentials",
            f"mlflow_uri holds a user name or password, which would be written to files; {remedy}.",
        )


@_reads("allowed_artifact_schemes")
def _check_schemes(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    if fixed := sorted(FIXED.intersection(settings.allowed_artifact_schemes)):
        yield ConfigError(
            "config.unsafe_scheme",
            f"allowed_artifact_schemes lists {fixed[0]}, which would let a store name any disk or server; "
            "remove it, and map the places that you trust in artifact_remap.",
        )


@_reads("folder_name")
def _check_folder_name(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    template = settings.folder_name
    try:
        fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        yield ConfigError("config.folder_name", f"folder_name {shown_value(template)} cannot be read: {error}.")
        return
    for name, spec, conversion in fields:
        if name not in FOLDER_FIELDS:
            yield ConfigError(
                "config.folder_name", f"folder_name names '{{{name}}}'; allowed: {', '.join(FOLDER_FIELDS)}."
            )
            continue
        try:
            format(Formatter().convert_field(FOLDER_FIELDS[name], conversion), spec or "")
        except ValueError:
            yield ConfigError(
                "config.folder_name",
                f"folder_name cannot write {name} in the format '{conversion or ''}{spec}'; "
                f"allowed: a format that suits a value such as {FOLDER_FIELDS[name]!r}.",
            )
    if not {"run_id", "run_name"} & {name for name, *_ in fields}:
        yield ConfigError(
            "config.folder_name",
            f"folder_name is {shown_value(template)}; it must contain {{run_id}} or {{run_name}}, "
            "which tell models apart.",
        )


@_reads("output_dir")
def _check_output(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    output = str(settings.output_dir)
    if why := next((why for pattern, why in MISUNDERSTOOD.items() if re.search(pattern, output)), None):
        yield ConfigError(
            "config.output_dir", f"output_dir is {shown_value(output)}, but {why}; write the path of a folder as it is."
        )


@_reads("reference_name")
def _check_reference_name(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    if settings.reference_name and (problem := pairing.template_problem(settings.reference_name)):
        yield ConfigError("config.reference_name", f"reference_name {problem}.")


@_reads("input_dir", "output_dir")
def _check_places(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    source, target = settings.input_dir.resolve(), settings.output_dir.resolve()
    if target.is_relative_to(source):
        place = "the same as" if target == source else "inside"
        yield ConfigError(
            "config.output_in_input",
            f"output_dir '{settings.output_dir}' is {place} input_dir '{settings.input_dir}'; "
            "allowed: a folder outside it.",
        )


@_reads("metrics", "reference_dir", "rank_by", "lpips_backbone")
def _check_metrics(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    asked = settings.metrics or ()
    lacking = [name for name in asked if name != metrics.AUTO and not metrics.BY_NAME[name].is_advisory]
    if lacking and settings.reference_dir is None:
        yield ConfigError(
            "config.metric_without_reference",
            f"metrics lists {lacking[0]}, which needs a reference; set reference_dir, or remove the metric.",
        )
    for name in metrics.requested(settings):
        module, package = metrics.BY_NAME[name].package or (None, None)
        if module and find_spec(module) is None:
            yield ConfigError(
                "config.metric_not_installed",
                f"metrics lists {name}, which needs a package that is not installed; pip install {package}.",
            )
    if metrics.LPIPS in asked:
        path = lpips_weights.path_of(settings.lpips_backbone, environ)
        if not path.is_file():
            yield ConfigError(
                "config.lpips_backbone",
                f"metrics lists lpips, which needs the file {path}, and it does not exist; {lpips_weights.ADVICE}.",
            )


@_reads("metrics", "reference_dir", "rank_by", "order_by")
def _check_order(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    if settings.store_order is None:
        order, available = settings.measured_order, metrics.orderable(settings)
        if order is None or order[0] not in available:
            names = ", ".join(f"measured.{name}" for name in available) or "none, because nothing is measured"
            yield ConfigError(
                "config.order_by",
                f"order_by is {settings.order_by!r}; allowed besides MLflow's own, with ASC or DESC: {names}.",
            )
    measured = metrics.requested(settings)
    if settings.rank_by not in {metrics.AUTO, *measured}:
        yield ConfigError(
            "config.rank_by",
            f"rank_by is {settings.rank_by}, which is not measured; "
            f"allowed: auto{''.join(f', {name}' for name in measured)}.",
        )


@_reads("knockout_frames", "finalists", "metrics", "reference_dir", "rank_by")
def _check_knockout(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    frames, finalists = settings.knockout_frames, settings.finalists
    if bool(frames) != bool(finalists):
        lacking = "finalists" if frames else "knockout_frames"
        yield ConfigError(
            "config.incomplete_knockout",
            f"knockout_frames is {frames} and finalists is {finalists}; set {lacking} as well, or both to 0.",
        )
    if 0 < frames < metrics.MIN_FRAMES:
        yield ConfigError(
            "config.knockout_frames",
            f"knockout_frames is {frames}, and on fewer than {metrics.MIN_FRAMES} frames all models tie; "
            f"allowed: 0, or at least {metrics.MIN_FRAMES}.",
        )
    ranked_by = metrics.ranking_metric(settings)
    if not frames or (ranked_by in metrics.BY_NAME and ranked_by not in metrics.requested(settings)):
        return  # a wrong rank_by is reported elsewhere
    if ranked_by is None or not metrics.is_automatic(settings):
        yield ConfigError(
            "config.knockout_without_metric",
            f"knockout_frames is {frames}, but no metric ranks the models; set reference_dir or rank_by, "
            "or set knockout_frames and finalists to 0.",
        )
    elif metrics.BY_NAME[ranked_by].needs == metrics.MOTION:
        yield ConfigError(
            "config.knockout_without_metric",
            f"rank_by is {ranked_by}, which is measured between neighbouring frames only, so it cannot rank the spread "
            "frames of a knockout; choose another metric, or set knockout_frames and finalists to 0.",
        )


@_reads("signatures")
def _check_signatures(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    """Check signatures before anything is downloaded, rather than when a network is built."""
    for pattern, fields in settings.signatures.items():
        try:
            resolve_signature(Signature(), (f"signatures of {pattern}", fields))
        except LoadError as error:
            yield ConfigError("config.signatures", f"{error}.")


@_reads("python_path")
def _check_python_path(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    for folder in settings.python_path:
        if not Path(folder).is_dir():
            yield ConfigError(
                "config.python_path",
                f"python_path names {folder!r}, which is not a folder; allowed: folders that hold Python modules.",
            )


@_reads("model_factory", "python_path")
def _check_factories(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    return _missing_modules("model_factory", functions_of(settings.model_factory), settings.python_path)


@_reads("model_loader", "python_path")
def _check_loaders(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    return _missing_modules("model_loader", functions_of(settings.model_loader), settings.python_path)


def _missing_modules(key: str, functions: Iterable[str], python_path: Sequence[str]) -> Iterator[ConfigError]:
    """Yield an error for each module of the user's functions that cannot be found. Nothing is imported."""
    for module in sorted({function.partition(":")[0] for function in functions}):
        package = module.partition(".")[0]
        if package == __name__.partition(".")[0]:
            yield ConfigError(
                "config.reserved_module",
                f"{key} names the module {package}, which is the name of this project's own package; "
                "give yours another name, or put the function into a module of another name.",
            )
        elif not any(_is_module(Path(folder), module) for folder in python_path) and find_spec(package) is None:
            ending = "; write it without .py" if module.endswith(".py") else ""
            yield ConfigError(
                "config.missing_module",
                f"{key} names the module {module}, which is neither in python_path "
                f"({', '.join(python_path) or 'empty'}) nor installed{ending}.",
            )


def _is_module(folder: Path, module: str) -> bool:
    *parents, name = module.split(".")
    place = folder.joinpath(*parents)
    return (place / name).is_dir() or any(place.glob(f"{name}.*"))


@_reads("tile_size", "overlap")
def _check_tiles(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    if settings.overlap > settings.tile_size - TILE_STEP:
        yield ConfigError(
            "config.overlap",
            f"overlap is {settings.overlap} and tile_size is {settings.tile_size}; "
            f"allowed: an overlap of at most {settings.tile_size - TILE_STEP}.",
        )
