"""Validation: turn what a user wrote into ``Settings``, or report everything that is wrong with it."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import yaml
from pydantic import ValidationError

from dailies.core.errors import ConfigError
from dailies.planning.config import Settings, schemas
from dailies.planning.setting_checks import CHECKS, CREDENTIALS
from dailies.planning.setting_errors import options_of, unknown_key, wrong_value


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


def _settings(config: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Settings, list[ConfigError]]:
    """Return settings and problems. A wrong value is replaced by the default, and checks that read it are skipped."""
    given = {key: value for key, value in config.items() if key in Settings.model_fields}
    problems = [unknown_key(key) for key in config if key not in given]
    wrong: dict[str, list[tuple[int | str, ...]]] = defaultdict(list)
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            wrong[str(found["loc"][0])].append(found["loc"][1:])
        settings = Settings.model_validate({key: value for key, value in given.items() if key not in wrong})
    problems += [wrong_value(key, given[key], places) for key, places in wrong.items()]
    for keys, check in CHECKS:
        if not keys & wrong.keys():
            problems += check(settings, environ)
    return settings, problems


def as_written(config: Mapping[str, Any], entries: Iterable[str]) -> dict[str, Any]:
    """Return ``config`` with the ``entries`` of ``snakemake --config`` as the user wrote them.

    Snakemake reads every value as a number or as YAML: `` #`` begins a comment, ``a: b`` is a mapping, ``[a]`` a list
    and 0123 a number. If a key takes text, its text is restored, unless the key also takes a list or a mapping and the
    value is one.
    """
    complete = dict(config)
    for entry in entries:
        key, _, text = entry.partition("=")
        value, types = config.get(key), {option.get("type") for option in options_of(schemas().get(key, {}))}
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
