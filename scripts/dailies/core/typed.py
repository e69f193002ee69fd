"""Typed JSON: frozen dataclasses that are written as JSON objects and read back according to their annotations.

Keys are written in the order of the fields. A file of another version may have other keys: unknown ones are ignored,
and a missing one gets the default of its field. Values are not checked.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from dailies.core import files

T = TypeVar("T")

Decode = Callable[[Any], Any]

OMITTED: Mapping[str, str] = MappingProxyType({"json": "omitted"})
"""Metadata of a field whose key is left out if the field has its default."""

EMPTIED: Mapping[str, str] = MappingProxyType({"json": "emptied"})
"""Metadata of a field that is written as an empty object if it is None."""

UNWRITTEN: Mapping[str, str] = MappingProxyType({"json": "unwritten"})
"""Metadata of a field that is never written."""


class NotTheRecord(ValueError):
    """A JSON value is not the record that was expected."""


class Record:
    """Base of a frozen dataclass that has a JSON file to itself."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a record. Raise FileNotFoundError, or ValueError if the file does not hold this kind of record."""
        return from_json(cls, files.read_json(path))

    @classmethod
    def load_if_there(cls, path: Path) -> Self | None:
        """Read a record; return None if the file does not exist."""
        return cls.load(path) if path.is_file() else None

    def save(self, path: Path) -> None:
        """Write the record, atomically."""
        files.write_json(path, to_json(self))

    def save_if_changed(self, path: Path, *, durable: bool = True) -> bool:
        """Write the record unless the file already holds it; return whether it was written."""
        return files.write_json_if_changed(path, to_json(self), durable=durable)


def load_all(cls: type[T], path: Path) -> tuple[T, ...]:
    """Read a file that holds a list of records of one kind."""
    return tuple(from_json(cls, value) for value in files.read_json(path))


def save_all(records: Iterable[Any], path: Path) -> None:
    """Write a list of records, atomically."""
    files.write_json(path, [to_json(record) for record in records])


def from_json(cls: type[T], value: Any) -> T:
    """Return the instance of a dataclass that a JSON object represents.

    Raise NotTheRecord if the value is not an object, lacks the key of a field without a default, or is nested
    differently.
    """
    names, decoders, required = _plan(cls)  # type: ignore[arg-type]
    if not isinstance(value, dict):
        raise NotTheRecord(f"a JSON object was expected for {cls.__name__}, not {type(value).__name__}")
    found = {name: value[name] for name in names if name in value}
    if len(found) < len(names) and (missing := required - found.keys()):
        raise NotTheRecord(f"the key {min(missing)} is missing for {cls.__name__}")
    try:
        for name, decode in decoders:
            if name in found:
                found[name] = decode(found[name])
    except (TypeError, AttributeError) as error:
        raise NotTheRecord(f"the value of {name} does not fit {cls.__name__}") from error
    return cls(**found)


def to_json(value: Any) -> Any:
    """Return plain dicts, lists and values for a dataclass, or for anything that contains dataclasses."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: to_json(each) for name, each in _written(value)}
    if isinstance(value, Mapping):
        return {key: to_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(each) for each in value]
    return value


def _written(record: Any) -> Iterable[tuple[str, Any]]:
    for name, mark, default in _marks(type(record)):  # type: ignore[arg-type]
        value = getattr(record, name)
        if mark == "omitted" and value == default:
            continue
        yield name, {} if mark == "emptied" and value is None else value


@cache
def _marks(cls: type) -> tuple[tuple[str, str | None, Any], ...]:
    """Return the name, mark and default of each field that is written."""
    found = []
    for field in fields(cls):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        found.append((field.name, field.metadata.get("json"), default))
    return tuple(each for each in found if each[1] != "unwritten")


@cache
def _plan(cls: type) -> tuple[tuple[str, ...], tuple[tuple[str, Decode], ...], frozenset[str]]:
    """Return the names of the fields, the decoders of those that are not plain, and the names without a default."""
    hints = get_type_hints(cls)
    kept = [field for field in fields(cls) if field.metadata.get("json") != "unwritten"]
    required = (field.name for field in kept if field.default is field.default_factory is MISSING)
    decoders = ((field.name, _decoder(hints[field.name])) for field in kept)
    return tuple(f.name for f in kept), tuple((n, d) for n, d in decoders if d), frozenset(required)


def _decoder(hint: Any) -> Decode | None:
    """Return the function that turns JSON into a value of an annotated type; None if they are the same."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return _optional([each for each in arguments if each is not type(None)])
    if is_dataclass(hint) and isinstance(hint, type):
        return lambda value: from_json(hint, value)
    if origin is tuple:
        return _tuple(_decoder(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_decoder(arguments[1]))
    return None


def _optional(hints: list[Any]) -> Decode | None:
    decode, *others = [_decoder(each) for each in hints]
    assert not any(others), "a union may hold only one type that is not plain"
    if decode is None:
        return None
    if is_dataclass(hints[0]):
        return lambda value: decode(value) if value else None
    return lambda value: None if value is None else decode(value)


def _tuple(decode: Decode | None) -> Decode:
    return tuple if decode is None else lambda values: tuple(map(decode, values))


def _mapping(decode: Decode | None) -> Decode | None:
    if decode is None:
        return None
    return lambda values: {key: decode(value) for key, value in values.items()}
