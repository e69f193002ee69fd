"""Validation: what a user wrote becomes ``Settings``, or one sentence for each thing that is wrong with it."""

import difflib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from pydantic import ValidationError

from dailies.core.errors import ConfigError, LoadError
from dailies.core.text import redacted
from dailies.frames import pairing
from dailies.measure import backbone, metrics
from dailies.models.signature import Signature, signature
from dailies.planning.config import (
    RUN_ID_DIGITS,
    Settings,
    functions_of,
    number_in,
    schemas,
)
from dailies.store.locations import FIXED

TILE_STEP = 32
"""The least distance between the starts of neighbouring tiles: tiles start on multiples of a network's stride."""

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
"""The fields of ``folder_name``, each with a value that its format must suit."""

GONE = {
    "model_cache": "every output folder downloads its own models",
    "png_compression": "PNG files are always written in the fast way",
    "video_lossless": "videos are H.264, the frames themselves are lossless",
}
"""Keys of earlier versions, and what happens instead."""

RENAMED = {"trust_pickle": "trust_code"}
"""Keys of earlier versions by their old name."""

MISUNDERSTOOD = {
    r"[{}]": "a brace is a wildcard in Snakemake's paths, and nothing replaces it",
    r"\$": "variables such as $HOME are not replaced",
    "^~": "no user of that name has a home folder here",
    r"^[A-Za-z][A-Za-z0-9+.-]+:/": "it is an address, not a folder",
    r"[\x00-\x1f\x7f]": "it holds a control character",
}
"""Patterns in a folder's name that mean something else to a shell or to Snakemake, and what to tell the user."""

CREDENTIALS = re.compile(r"^[^/]*:(//)?[^/].*@|[?&][^=&]*(password|passwd|pwd|token|secret)[^=&]*=", re.IGNORECASE)
"""``user:password@`` before a host, or a secret among the arguments; an ``@`` in a file path is neither."""

LONGEST = 80
"""Characters of a refused value in a message."""


def validated(config: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that ``config`` asks for; keys that it lacks have their defaults.

    Values may be text, as ``snakemake --config`` passes them. If ``mlflow_uri`` is none, the result holds the address
    in ``MLFLOW_TRACKING_URI``. If that address holds credentials, ``mlflow_uri`` stays None and ``store.uri_of`` reads
    the environment when it is needed, so that the credentials are written nowhere.

    Raises:
        ConfigError: with one sentence for each thing that is wrong. Its code is that of the problem, or
            ``config.several``.
    """
    settings, problems = _settings(config, environ)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ConfigError("config.several", "\n".join(map(str, problems)))
    if settings.mlflow_uri is None and not CREDENTIALS.search(environ["MLFLOW_TRACKING_URI"]):
        return settings.model_copy(update={"mlflow_uri": environ["MLFLOW_TRACKING_URI"]})
    return settings


def problems_of(config: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> list[ConfigError]:
    """Return everything that is wrong with a configuration, as ``validated`` would raise it."""
    return _settings(config, environ)[1]


def _settings(config: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Settings, list[ConfigError]]:
    """Return settings and problems. A wrong value gives way to the default, and checks that read it are skipped."""
    given = {key: value for key, value in config.items() if key in Settings.model_fields}
    problems = [_unknown_key(key) for key in config if key not in given]
    wrong: dict[str, list[tuple[int | str, ...]]] = defaultdict(list)
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            wrong[str(found["loc"][0])].append(found["loc"][1:])
        settings = Settings.model_validate({key: value for key, value in given.items() if key not in wrong})
    problems += [_refusal(key, given[key], places) for key, places in wrong.items()]
    for keys, check in CHECKS:
        if not keys & wrong.keys():
            problems += check(settings, environ)
    return settings, problems


def as_written(config: Mapping[str, Any], entries: Iterable[str]) -> dict[str, Any]:
    """Return ``config`` with the values of ``snakemake --config`` as the user wrote them; they are its ``entries``.

    Snakemake reads every value as a number or as YAML: `` #`` begins a comment, ``a: b`` is a mapping, ``[a]`` a list
    and 0123 a number. For a key that takes text, the text is restored, unless the key also takes a list or a mapping
    and the value is one.
    """
    complete = dict(config)
    for entry in entries:
        key, _, text = entry.partition("=")
        value, types = config.get(key), {option.get("type") for option in _options(schemas().get(key, {}))}
        is_meant = (isinstance(value, list) and "array" in types) or (isinstance(value, Mapping) and "object" in types)
        if "string" in types and not is_meant and value == _as_snakemake_reads(text):
            complete[key] = _unquoted(text)
    return complete


def _as_snakemake_reads(text: str) -> Any:
    """Return what Snakemake 9.27 makes of the value of a ``--config`` entry."""
    text = text.strip("'\"")
    if not text:
        return None
    if text in ("True", "False"):
        return text == "True"
    for read in (int, float, partial(yaml.load, Loader=yaml.BaseLoader)):
        try:
            return read(text)
        except (ValueError, yaml.YAMLError):
            continue
    return text


def _unquoted(text: str) -> str:
    """Remove one pair of quotes around a text."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _options(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the alternatives of a JSON schema, without nesting."""
    if "anyOf" in rule:
        return [option for each in rule["anyOf"] for option in _options(each)]
    return [rule] if rule else []


def allowed(rule: Mapping[str, Any]) -> str:
    """Return in words which values the JSON schema of a key accepts."""
    options = _options(rule)
    own = [{name: value for name, value in rule.items() if name != "description"}] if options == [rule] else options
    words = [word for option in own for word in _words(option, takes_list=any("items" in each for each in own))]
    return _either(words)


def _words(option: Mapping[str, Any], *, takes_list: bool) -> Iterator[str]:
    """Yield the values that one alternative of a schema accepts, in words."""
    kind = option["type"]
    if "enum" in option or "const" in option:
        yield from option.get("enum", [option.get("const")])
    elif kind == "boolean":
        yield from ("true", "false")
    elif kind == "null":
        yield "none"
    elif kind == "object":
        yield f"a mapping such as {option['examples'][0]}"
    elif kind == "array":
        yield "a list of them" if "items" in option else "two numbers of at least 0, in brackets"
    elif kind == "string" and takes_list:
        yield f"one {option['description']}"
    elif kind == "string":
        yield option.get("description") or (f"text such as {option['examples'][0]}" if "examples" in option else "text")
    else:
        yield _numbers(option)


def _numbers(option: Mapping[str, Any]) -> str:
    whole = "a whole number" if option["type"] == "integer" else "a number"
    kind = f"a multiple of {option['multipleOf']}" if "multipleOf" in option else whole
    lower, upper = option["minimum"], option.get("maximum")
    return f"{kind} of at least {lower}" if upper is None else f"{kind} from {lower} to {upper}"


def _either(options: Sequence[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last


def _unknown_key(key: Any) -> ConfigError:
    known = list(Settings.model_fields)
    plain = str(key).lstrip("-").replace("-", "_").lower()
    if plain in known:
        return ConfigError("config.unknown_key", f"'{key}' is not a key; write {plain}.")
    if plain in RENAMED:
        new = RENAMED[plain]
        return ConfigError(
            "config.removed_key", f"{plain} is now {new}, and TorchScript and torch.export need it too; write {new}."
        )
    if plain in GONE:
        return ConfigError("config.removed_key", f"{plain} is gone: {GONE[plain]}; take it out.")
    near = difflib.get_close_matches(plain, known, n=1)
    advice = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}."
    return ConfigError("config.unknown_key", f"'{key}' is not a key; {advice}")


def _refusal(key: str, given: Any, places: Iterable[Sequence[int | str]]) -> ConfigError:
    """Say what is wrong with the value of ``key``, and what is allowed. ``places`` are the wrong parts of the value."""
    rule = schemas()[key]
    options = _options(rule)
    types = {option["type"] for option in options}
    is_text = types <= {"string", "array", "null"} and not any(
        {"enum", "const", "pattern"} & {*each} for each in options
    )
    if is_text and "string" in types:
        items = given if isinstance(given, list) and "array" in types else [given]
        if misread := [item for item in items if not isinstance(item, str | list | None)]:
            where = f"in brackets on the command line, '{key}=[...]', or in quotes" if "array" in types else "in quotes"
            return ConfigError(
                "config.misread_text",
                f"{key} was read as {_misread(misread[0])}, not as text; write it {where} in the configuration file.",
            )
    if "object" in types and isinstance(given, Mapping):
        names = {str(place[-1] if place[-1:] != ("[key]",) else place[-2]) for place in places if place}
        given = {name: value for name, value in given.items() if str(name) in names} or given
    text = f"{key} is {_shown(given)}; allowed: {allowed(rule)}"
    number = number_in(given)
    if {"boolean", "array"} <= types and number in (0, 1):
        text += f"; for the experiment with id {number} write [{number}]"
    if "multipleOf" in rule and type(number) in (int, float):
        step = rule["multipleOf"]
        text += f"; the nearest is {round(min(max(rule['minimum'], number), rule['maximum']) / step) * step}"
    return ConfigError("config.wrong_value", f"{text}.")


def _misread(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return f"the number {value}" if type(value) in (int, float) else _shown(value)


def _shown(value: Any) -> str:
    """Write a refused value on one short line, without the password that an address may hold."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    value = str(value) if isinstance(value, Path) else value
    text = re.sub(r"//.*@", "//***@", repr(value) if isinstance(value, str | list | dict) else str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


Check = Callable[[Settings, Mapping[str, str]], Iterator[ConfigError]]

CHECKS: list[tuple[frozenset[str], Check]] = []
"""What types and bounds cannot say: each check with the keys that it reads. It runs if none of them is wrong."""


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
            f"mlflow_uri is {_shown(uri)}, the address of a page in a browser; "
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
            "take it out, and map the places that you trust in artifact_remap.",
        )


@_reads("folder_name")
def _check_folder_name(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    template = settings.folder_name
    try:
        fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        yield ConfigError("config.folder_name", f"folder_name {_shown(template)} cannot be read: {error}.")
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
            f"folder_name is {_shown(template)}; it must contain {{run_id}} or {{run_name}}, which tell models apart.",
        )


@_reads("output_dir")
def _check_output(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    output = str(settings.output_dir)
    if why := next((why for pattern, why in MISUNDERSTOOD.items() if re.search(pattern, output)), None):
        yield ConfigError(
            "config.output_dir", f"output_dir is {_shown(output)}, but {why}; write the path of a folder as it is."
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
            f"metrics lists {lacking[0]}, which needs a reference; set reference_dir, or take it out.",
        )
    for name in metrics.requested(settings):
        module, package = metrics.BY_NAME[name].package or (None, None)
        if module and find_spec(module) is None:
            yield ConfigError(
                "config.metric_not_installed",
                f"metrics lists {name}, which needs a package that is not installed; pip install {package}.",
            )
    if metrics.LPIPS in asked:
        path = backbone.path_of(settings.lpips_backbone, environ)
        if not path.is_file():
            yield ConfigError(
                "config.lpips_backbone",
                f"metrics lists lpips, which needs the file {path}, and it does not exist; {backbone.ADVICE}.",
            )


@_reads("metrics", "reference_dir", "rank_by", "order_by")
def _check_order(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    if metrics.is_own_order(settings.order_by):
        named, able = metrics.order(settings), metrics.orderable(settings)
        if not named or named[0] not in able:
            names = ", ".join(f"measured.{name}" for name in able) or "none, because nothing is measured"
            yield ConfigError(
                "config.order_by",
                f"order_by is {settings.order_by!r}; allowed beside MLflow's own, with ASC or DESC: {names}.",
            )
    measured = metrics.requested(settings)
    if settings.rank_by not in {metrics.AUTO, *measured}:
        yield ConfigError(
            "config.rank_by",
            f"rank_by is {settings.rank_by}, which is not measured; "
            f"allowed: auto{''.join(f', {name}' for name in measured)}.",
        )


@_reads("signatures")
def _check_signatures(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    """Check what would only show when a network is built: after downloads, perhaps on another machine."""
    for pattern, said in settings.signatures.items():
        try:
            signature(Signature(), (f"signatures of {pattern}", said))
        except LoadError as error:
            yield ConfigError("config.signatures", f"{error}.")


@_reads("python_path")
def _check_python_path(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    for folder in settings.python_path:
        if not Path(folder).is_dir():
            yield ConfigError(
                "config.python_path",
                f"python_path names {folder!r}, which is no folder; allowed: folders that hold Python modules.",
            )


@_reads("model_factory", "python_path")
def _check_factories(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    return _missing_modules("model_factory", functions_of(settings.model_factory), settings.python_path)


@_reads("model_loader", "python_path")
def _check_loaders(settings: Settings, environ: Mapping[str, str]) -> Iterator[ConfigError]:
    return _missing_modules("model_loader", functions_of(settings.model_loader), settings.python_path)


def _missing_modules(key: str, functions: Iterable[str], python_path: Sequence[str]) -> Iterator[ConfigError]:
    """Name the modules of the user's functions that cannot be imported, as far as that shows without importing."""
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
