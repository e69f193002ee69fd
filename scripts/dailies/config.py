"""The configuration: complete, of the right types, and refused with a sentence where it is wrong."""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from dailies import backbone, files, metrics, pairing
from dailies.errors import ConfigError, LoadError
from dailies.locations import FIXED
from dailies.signatures import Signature, signature
from dailies.text import redacted

NOTHING = {"", "none", "null"}
"""Words that mean no value: ``snakemake --config key=null`` passes them on as text."""

SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}

TILE_STEP = 32
"""Pixels by which a tile lies beyond its neighbour at least: tiles start on multiples of a network's stride."""

RUN_ID_DIGITS = 32
"""Length of the ids that MLflow gives; a shorter one that became a number may have lost its zeros."""

EXPERIMENT_ID_DIGITS = 20
"""Digits of an experiment's id at most."""

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
"""What ``folder_name`` may name, each with a value that its format must suit."""

PATHS = ("input_dir", "output_dir", "reference_dir", "mlflow_uri", "python_path", "lpips_backbone")
"""Keys whose value may begin with ``~``, for a user's own folder."""

GONE = {
    "model_cache": "every output folder downloads its own models",
    "png_compression": "PNG files are always written in the fast way",
    "video_lossless": "videos are H.264, the frames themselves are lossless",
}
"""Keys of earlier versions, and what is done instead."""

RENAMED = {"trust_pickle": "trust_code"}
"""Keys that had another name in earlier versions, by that name."""

MISUNDERSTOOD = {
    r"[{}]": "a brace is a wildcard in the paths of Snakemake, and nothing is put in its place",
    r"\$": "variables such as $HOME are not replaced",
    "^~": "no user of that name has a folder here",
    "://": "it is an address, not a folder",
    r"[\x00-\x1f\x7f]": "it holds a control character",
}
"""Patterns in a folder's name that mean something else to a shell or to Snakemake, and what to tell the user."""

CREDENTIALS = re.compile(r"^[^/]*:(//)?[^/].*@|[?&][^=&]*(password|passwd|pwd|token|secret)[^=&]*=", re.IGNORECASE)
"""``user:password@`` before a host, or a secret among the arguments; an ``@`` in a file path is neither."""


def validated(config: Mapping, schema: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return every key of ``schema``, with the value given in ``config`` or its default.

    Values may be text, as ``snakemake --config`` gives them. Keys that accept one text or a list come back as a
    list. A ``mlflow_uri`` of None stands for an ``MLFLOW_TRACKING_URI`` that holds credentials: read it from the
    environment when it is needed, so that it is written nowhere.

    Raises:
        ConfigError: with one line for each thing that is wrong.
    """
    rules = yaml.safe_load(schema.read_text(encoding="utf-8"))["properties"]
    problems = [_unknown_key(key, known=list(rules)) for key in config if key not in rules]
    complete = {}
    for key, rule in rules.items():
        given = config.get(key, rule["default"])
        value = _coerced(key, given, rule)
        if Draft202012Validator(rule).is_valid(value):
            complete[key] = value
        else:
            problems.append(_refusal(key, given, rule))
    problems += _contradictions(complete, environ)
    if "output_dir" in complete:
        complete["output_dir"] = str(Path(complete["output_dir"]))  # Snakemake takes ./a, a/ and a for three folders
    if problems:
        raise ConfigError("\n".join(problems))
    if complete["mlflow_uri"] is None and not CREDENTIALS.search(environ["MLFLOW_TRACKING_URI"]):
        complete["mlflow_uri"] = environ["MLFLOW_TRACKING_URI"]
    return complete


def as_written(config: Mapping, entries: Iterable[str], schema: Path) -> dict[str, Any]:
    """Return ``config`` with the texts of ``snakemake --config``, whose ``entries`` these are, as the user wrote them.

    Snakemake reads every value as a number or as YAML, where `` #`` begins a comment, ``a: b`` is a mapping, ``[a]`` a
    list and 0123 a number. For a key that accepts text, that is what it is, unless the key accepts a list or mapping,
    too, and the value is one.
    """
    rules = yaml.safe_load(schema.read_text(encoding="utf-8"))["properties"]
    complete = dict(config)
    for entry in entries:
        key, _, text = entry.partition("=")
        value, types = config.get(key), _types(rules.get(key, {}))
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


def pixel_settings(config: Mapping) -> dict[str, Any]:
    """Return the part of a validated configuration that changes the pixels of a frame."""
    keys = ["precision", "tiled", "output_format", "transfer"] + (
        [] if config["tiled"] is False else ["tile_size", "overlap"]
    )
    faster = [key for key in ("compile", "autotune") if config[key]]
    keys += faster + (["parity_tolerance"] if faster or config["precision"] != "fp32" else [])
    return {key: config[key] for key in keys}


def loading_settings(config: Mapping) -> dict[str, Any]:
    """Return what decides which network an artifact becomes, the code of the user's own functions included.

    ``loader_code`` maps each function of ``model_loader`` to the digest of its code. Without ``model_loader`` both are
    left out: what was rendered before the key existed stays as it is.
    """
    keys = ("default_architecture", "model_factory", "python_path", "signatures", "architecture_from")
    folders, loaders = config["python_path"], _functions(config["model_loader"])
    settings = {key: config[key] for key in keys} | {"code": _code_digest(_functions(config["model_factory"]), folders)}
    if loaders:
        code = {function: _code_digest([function], folders) for function in loaders}
        settings |= {"model_loader": config["model_loader"], "loader_code": code}
    return settings


def _code_digest(functions: Iterable[str], python_path: Iterable[str]) -> str | None:
    """Return a digest of the packages that the user's functions are in; None if ``python_path`` holds none of them."""
    found = {path for package in _packages(functions) for path in _sources(python_path, package)}
    return files.digest([[str(path), files.sha256_of(path)] for path in sorted(found)]) if found else None


def _functions(given: str | Mapping[str, str] | None) -> list[str]:
    """Return the functions that ``model_factory`` or ``model_loader`` names, sorted."""
    return sorted(set(given.values() if isinstance(given, Mapping) else [given] if given else []))


def _packages(functions: Iterable[str]) -> set[str]:
    return {re.split(r"[.:]", function)[0] for function in functions}


def _sources(python_path: Iterable[str], package: str) -> Iterator[Path]:
    for folder in python_path:
        yield from Path(folder).glob(f"{package}.py")
        yield from Path(folder).glob(f"{package}/**/*.py")


def allowed(rule: Mapping) -> str:
    """Say in words which values a key's schema accepts."""
    types = _types(rule)
    if "anyOf" in rule:
        words, pattern = rule["anyOf"]
        options = [*words["enum"], pattern["description"]]
    elif "maxItems" in rule:
        options = [rule["items"]["description"]]
    elif "array" in types:
        switch = ["true", "false"] if "boolean" in types else []
        options = [*switch, f"one {rule['items']['description']}", "a list of them"]
    elif "enum" in rule or "boolean" in types:
        return _either([_word(choice) for choice in rule.get("enum", [True, False])])
    elif types & {"integer", "number"}:
        whole = "a whole number" if "integer" in types else "a number"
        kind = f"a multiple of {rule['multipleOf']}" if "multipleOf" in rule else whole
        lower, upper = rule["minimum"], rule.get("maximum")
        options = [f"{kind} of at least {lower}" if upper is None else f"{kind} from {lower} to {upper}"]
    elif "object" in types:
        *texts, mapping = rule["examples"]
        options = [*(f"text such as {text}" for text in texts), f"a mapping such as {mapping}"]
    else:
        options = ["text"]
    return _either([*options, "none"] if "null" in types else options)


def _coerced(key: str, given: Any, rule: Mapping) -> Any:
    """Return ``given`` as the type that ``rule`` asks for, or unchanged where that would be a guess."""
    types = _types(rule)
    word = given.strip().lower() if isinstance(given, str) else None
    if word in NOTHING:
        return None
    if "anyOf" in rule:
        value = given if word is None else word
        return _number(value) if "integer" in types else value
    if "enum" in rule or "boolean" in types:
        choices = {_word(choice).lower(): choice for choice in rule.get("enum", [True, False])}
        value = choices.get(SWITCHES.get(word, word), given)
        # 1 and 0 alone may mean true and false, and would name experiments
        if isinstance(value, bool) or "array" not in types or _number(given) in (0, 1):
            return value
    if types & {"integer", "number"}:
        return _number(given)
    if "array" in types:
        read = _number if "maxItems" in rule else partial(_text, key)
        return None if given is None else [read(item) for item in _items(key, given)]
    return _text(key, given) if "string" in types else given


def _number(given: Any) -> Any:
    try:
        number = float(given) if isinstance(given, str) else given
    except ValueError:
        return given
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _items(key: str, given: Any) -> list:
    """Return the items of a list, of a text with commas, or of one value; experiment names may hold commas."""
    if isinstance(given, str) and key != "experiment_name":
        return [item.strip() for item in given.split(",") if item.strip()]
    return list(given) if isinstance(given, list | tuple) else [given]


def _text(key: str, given: Any) -> Any:
    """Undo what YAML, and Snakemake's reading of ``--config``, do to a text, if it can be undone."""
    if isinstance(given, int) and not isinstance(given, bool):
        shortest = {"run_ids": 0, "trust_code": EXPERIMENT_ID_DIGITS}.get(key, RUN_ID_DIGITS)
        return given if shortest < len(str(given)) < RUN_ID_DIGITS else str(given)
    if (
        key in ("folder_name", "reference_name")
        and isinstance(given, Mapping)
        and list(given.values()) in ([""], [None])
    ):
        return "{" + next(iter(given)) + "}"
    if key in ("filter", "order_by") and isinstance(given, str):
        return given + _open_quote(given)
    if key in PATHS and isinstance(given, str) and given.startswith("~"):
        return os.path.expanduser(given)  # noqa: PTH111 - which leaves a user that is not there as it is
    return given


def _open_quote(expression: str) -> str:
    """Return the quote that Snakemake strips from the end of ``--config "filter=params.a = 'b'"``, or nothing."""
    quote = ""
    for character in expression:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"`":
            quote = character
    return quote.strip("`")


def _unknown_key(key: Any, known: list[str]) -> str:
    plain = str(key).lstrip("-").replace("-", "_").lower()
    if plain in known:
        return f"'{key}' is not a key; write {plain}."
    if plain in RENAMED:
        return f"{plain} is now {RENAMED[plain]}, and TorchScript and torch.export need it too; write {RENAMED[plain]}."
    if plain in GONE:
        return f"{plain} is gone: {GONE[plain]}; take it out."
    near = difflib.get_close_matches(plain, known, n=1)
    return f"'{key}' is not a key; " + (f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}.")


def _refusal(key: str, given: Any, rule: Mapping) -> str:
    """Say what is wrong with the value of ``key``, and what would be right."""
    types = _types(rule)
    if "string" in types and "object" not in types and not {"enum", "anyOf"} & rule.keys():
        items = given if isinstance(given, list) and "array" in types else [given]
        misread = [item for item in items if not isinstance(item, str | list | None)]
        if misread:
            brackets = f"in brackets on the command line, '{key}=[...]', or " if "array" in types else ""
            return (
                f"{key} was read as {_misread(misread[0])}, not as text; "
                f"write it {brackets}in quotes in the configuration file."
            )
    if "object" in types and isinstance(given, Mapping):
        wrong = {str(error.path[0]) for error in Draft202012Validator(rule).iter_errors(given) if error.path}
        given = {name: value for name, value in given.items() if str(name) in wrong} or given
    text = f"{key} is {_shown(given)}; allowed: {allowed(rule)}"
    number = _number(given)
    if {"boolean", "array"} <= types and number in (0, 1):
        text += f"; for the experiment with id {number} write [{number}]"
    if "multipleOf" in rule and type(number) in (int, float):
        step = rule["multipleOf"]
        text += f"; the nearest is {round(min(max(rule['minimum'], number), rule['maximum']) / step) * step}"
    return text + "."


def _misread(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return f"the number {value}" if type(value) in (int, float) else _shown(value)


def _contradictions(config: Mapping, environ: Mapping[str, str]) -> Iterator[str]:
    """Check what no single key can say about itself; keys that are wrong already are not in ``config``."""
    if {"experiment_name", "models", "run_ids"} <= config.keys() and not any(
        config[key] for key in ("experiment_name", "models", "run_ids")
    ):
        yield "experiment_name, models and run_ids are all none, so there is nothing to render; set one of them."
    uri = config.get("mlflow_uri", "refused")
    if uri is None and not environ.get("MLFLOW_TRACKING_URI"):
        yield "mlflow_uri is none and the environment variable MLFLOW_TRACKING_URI is not set; set one of them."
    if uri is not None and uri.startswith("http") and "#" in uri:
        yield (
            f"mlflow_uri is {_shown(uri)}, the address of a page in a browser; "
            f"write {redacted(uri.partition('#')[0])}, without what is behind #."
        )
    if uri is not None and CREDENTIALS.search(uri):
        yield _credentials_refusal(uri)
    if fixed := sorted(FIXED.intersection(config.get("allowed_artifact_schemes", ()))):
        yield (
            f"allowed_artifact_schemes lists {fixed[0]}, which would let a store name any disk or server; "
            "take it out, and map what you trust in artifact_remap."
        )
    if "folder_name" in config:
        yield from _template_problems(config["folder_name"])
    if "output_dir" in config:
        yield from _place_problems(config["output_dir"])
    if (template := config.get("reference_name")) and (problem := pairing.template_problem(template)):
        yield f"reference_name {problem}."
    if {"input_dir", "output_dir"} <= config.keys():
        source, target = (Path(config[key]).resolve() for key in ("input_dir", "output_dir"))
        if target.is_relative_to(source):
            place = "the same as" if target == source else "inside"
            yield (
                f"output_dir {config['output_dir']!r} is {place} input_dir {config['input_dir']!r}; "
                "allowed: a folder outside it."
            )
    yield from _metric_problems(config, environ)
    yield from _loading_problems(config)
    if {"tile_size", "overlap"} <= config.keys() and config["overlap"] > config["tile_size"] - TILE_STEP:
        yield (
            f"overlap is {config['overlap']} and tile_size is {config['tile_size']}; "
            f"allowed: an overlap of at most {config['tile_size'] - TILE_STEP}."
        )


def _place_problems(output_dir: str) -> Iterator[str]:
    """Check that the output folder is one, and that Snakemake, for which braces are wildcards, can name files in it."""
    why = next((why for pattern, why in MISUNDERSTOOD.items() if re.search(pattern, output_dir)), None)
    if why:
        yield f"output_dir is {_shown(output_dir)}, but {why}; write the path of a folder as it is."


def _metric_problems(config: Mapping, environ: Mapping[str, str]) -> Iterator[str]:
    """Check that what is to be measured can be."""
    if not {"metrics", "rank_by", "reference_dir"} <= config.keys():
        return
    asked = config["metrics"] or ()
    lacking = [name for name in asked if name != metrics.AUTO and metrics.BY_NAME[name].group == "reference"]
    if lacking and config["reference_dir"] is None:
        yield f"metrics lists {lacking[0]}, which needs a reference; set reference_dir, or take it out."
    for name in asked:
        module, package = metrics.EXTRAS.get(name, (None, None))
        if module and find_spec(module) is None:
            yield f"metrics lists {name}, which needs a package that is not installed; pip install {package}."
    if metrics.LPIPS in asked and "lpips_backbone" in config:
        path = backbone.place(config["lpips_backbone"], environ)
        if not path.is_file():
            yield f"metrics lists lpips, which needs the file {path}, and it is not there; {backbone.ADVICE}."
    if metrics.is_order(config.get("order_by", "")):
        named, able = metrics.order(config), metrics.orderable(config)
        if not named or named[0] not in able:
            names = ", ".join(f"measured.{name}" for name in able) or "none, as nothing is measured"
            yield f"order_by is {config['order_by']!r}; of what is measured it may name, with ASC or DESC: {names}."
    if config["rank_by"] not in {metrics.AUTO, *(measured := metrics.measured(config))}:
        yield (
            f"rank_by is {config['rank_by']}, which is not measured; "
            f"allowed: auto{''.join(f', {name}' for name in measured)}."
        )


def _loading_problems(config: Mapping) -> Iterator[str]:
    """Check what would only show when a network is built: after downloads, on another machine."""
    for pattern, said in config.get("signatures", {}).items():
        try:
            signature(Signature(), (f"signatures of {pattern}", said))
        except LoadError as error:
            yield f"{error}."
    for folder in config.get("python_path", ()):
        if not Path(folder).is_dir():
            yield f"python_path names {folder!r}, which is no folder; allowed: folders that hold Python modules."
    for key in ("model_factory", "model_loader"):
        if {key, "python_path"} <= config.keys():
            yield from _missing_modules(key, config[key], config["python_path"])


def _missing_modules(key: str, given: str | Mapping[str, str] | None, python_path: Sequence[str]) -> Iterator[str]:
    """Name the modules of the user's functions that cannot be imported, as far as that shows without importing."""
    for module in sorted({function.partition(":")[0] for function in _functions(given)}):
        package = module.partition(".")[0]
        if package == __package__:
            yield (
                f"{key} names the module {package}, which is the name of this project's own package; "
                "give yours another name, or put the function into a module of another name."
            )
        elif not any(_is_module(Path(folder), module) for folder in python_path) and find_spec(package) is None:
            ending = "; write it without .py" if module.endswith(".py") else ""
            yield (
                f"{key} names the module {module}, which is neither in python_path "
                f"({', '.join(python_path) or 'empty'}) nor installed{ending}."
            )


def _is_module(folder: Path, module: str) -> bool:
    *parents, name = module.split(".")
    place = folder.joinpath(*parents)
    return (place / name).is_dir() or any(place.glob(f"{name}.*"))


def _credentials_refusal(uri: str) -> str:
    if uri.lower().startswith("http"):
        remedy = "write it without, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
    else:
        remedy = "set mlflow_uri to null, and MLFLOW_TRACKING_URI in the environment"
    return f"mlflow_uri holds a user name or password, which would be written to files; {remedy}."


def _template_problems(template: str) -> Iterator[str]:
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        yield f"folder_name {_shown(template)} cannot be read: {error}."
        return
    for name, spec, conversion in fields:
        if name not in FOLDER_FIELDS:
            yield f"folder_name names '{{{name}}}'; allowed: {', '.join(FOLDER_FIELDS)}."
            continue
        try:
            format(Formatter().convert_field(FOLDER_FIELDS[name], conversion), spec)
        except ValueError:
            yield (
                f"folder_name cannot write {name} in the format '{conversion or ''}{spec}'; "
                f"allowed: a format that suits a value such as {FOLDER_FIELDS[name]!r}."
            )
    if not {"run_id", "run_name"} & {name for name, *_ in fields}:
        yield f"folder_name is {_shown(template)}; it must contain {{run_id}} or {{run_name}}, which tell models apart."


def _types(rule: Mapping) -> set[str]:
    types = rule.get("type", [])
    return {types} if isinstance(types, str) else set(types)


def _either(options: list[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last


def _word(value: Any) -> str:
    """Write a value of an enum as a user does."""
    return {None: "none", True: "true", False: "false"}.get(value, value)


def _shown(value: Any) -> str:
    """Write a refused value on one short line, without the password that an address may hold."""
    if value is None or isinstance(value, bool):
        return _word(value)
    text = re.sub(r"//.*@", "//***@", repr(value) if isinstance(value, str | list | dict) else str(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
