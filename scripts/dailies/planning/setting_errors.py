"""Errors for keys and values that are not allowed; each states what is allowed."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dailies.core.errors import ConfigError
from dailies.planning.config import Settings, number_in, schemas

GONE = {
    "model_cache": "every output folder downloads its own models",
    "png_compression": "PNG files are always written in the fast way",
    "video_lossless": "videos are H.264, the frames themselves are lossless",
}
"""Removed keys, and what happens instead."""

RENAMED = {"trust_pickle": "trust_code"}
"""New names of keys, by their old name."""

LONGEST = 80
"""Characters of a refused value in a message."""


def unknown_key(key: Any) -> ConfigError:
    """Return the error for a key that does not exist, with the key that was probably meant."""
    known = list(Settings.model_fields)
    plain = str(key).lstrip("-").replace("-", "_").lower()
    if plain in known:
        return ConfigError("config.unknown_key", f"'{key}' is not a key; write {plain}.")
    if plain in RENAMED:
        new = RENAMED[plain]
        return ConfigError(
            "config.removed_key",
            f"{plain} was renamed to {new}, which also covers TorchScript and torch.export; write {new}.",
        )
    if plain in GONE:
        return ConfigError("config.removed_key", f"{plain} was removed: {GONE[plain]}; delete it.")
    near = difflib.get_close_matches(plain, known, n=1)
    advice = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}."
    return ConfigError("config.unknown_key", f"'{key}' is not a key; {advice}")


def wrong_value(key: str, given: Any, places: Iterable[Sequence[int | str]]) -> ConfigError:
    """Return the error for a value of ``key`` that is not allowed. ``places`` are the wrong parts of the value."""
    rule = schemas()[key]
    options = options_of(rule)
    types = {option["type"] for option in options}
    is_free_text = types <= {"string", "array", "null"} and not any(
        {"enum", "const", "pattern"} & {*o} for o in options
    )
    if is_free_text and "string" in types:
        items = given if isinstance(given, list) and "array" in types else [given]
        if misread := [item for item in items if not isinstance(item, str | list | None)]:
            return _misread_text(key, misread[0], takes_list="array" in types)
    if "object" in types and isinstance(given, Mapping):
        names = {str(place[-1] if place[-1:] != ("[key]",) else place[-2]) for place in places if place}
        given = {name: value for name, value in given.items() if str(name) in names} or given
    text = f"{key} is {shown_value(given)}; allowed: {allowed(rule)}"
    number = number_in(given)
    if {"boolean", "array"} <= types and number in (0, 1):
        text += f"; for the experiment with id {number} write [{number}]"
    if "multipleOf" in rule and type(number) in (int, float):
        step = rule["multipleOf"]
        text += f"; the nearest is {round(min(max(rule['minimum'], number), rule['maximum']) / step) * step}"
    return ConfigError("config.wrong_value", f"{text}.")


def _misread_text(key: str, value: Any, *, takes_list: bool) -> ConfigError:
    """Return the error for a text that YAML read as something else."""
    kind = "a mapping" if isinstance(value, Mapping) else shown_value(value)
    kind = f"the number {value}" if type(value) in (int, float) else kind
    where = f"in brackets on the command line, '{key}=[...]', or in quotes" if takes_list else "in quotes"
    return ConfigError(
        "config.misread_text", f"{key} was read as {kind}, not as text; write it {where} in the configuration file."
    )


def shown_value(value: Any) -> str:
    """Return a refused value as one short line, without the password that an address may contain."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    value = str(value) if isinstance(value, Path) else value
    text = re.sub(r"//.*@", "//***@", repr(value) if isinstance(value, str | list | dict) else str(value))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def allowed(rule: Mapping[str, Any]) -> str:
    """Return in words which values the JSON schema of a key accepts."""
    options = options_of(rule)
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


def options_of(rule: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the alternatives of a JSON schema, without nesting."""
    if "anyOf" in rule:
        return [option for each in rule["anyOf"] for option in options_of(each)]
    return [rule] if rule else []
