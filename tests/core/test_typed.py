"""Typed JSON: nested dataclasses, tuples and mappings are written and read back."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from dailies.core.typed import EMPTIED, OMITTED, UNWRITTEN, NotTheRecord, Record, from_json, to_json


@dataclass(frozen=True)
class Part:
    name: str
    sizes: tuple[int | None, ...] | None = None


@dataclass(frozen=True)
class Whole(Record):
    parts: tuple[Part, ...]
    by_name: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    first: Part | None = field(default=None, metadata=EMPTIED)
    note: str = field(default="", metadata=OMITTED)
    cache: str = field(default="", metadata=UNWRITTEN)


def test_a_record_reads_as_it_was_written(tmp_path):
    whole = Whole((Part("a", (1, None)),), {"b": (Part("b"), Part("c", ()))}, first=Part("a"), note="x")

    whole.save(tmp_path / "record.json")

    assert Whole.load(tmp_path / "record.json") == whole
    assert not whole.save_if_changed(tmp_path / "record.json")
    assert Whole.load_if_there(tmp_path / "missing.json") is None


def test_marked_fields_are_omitted_emptied_or_never_written():
    assert to_json(Whole((), cache="x")) == {"parts": [], "by_name": {}, "first": {}}
    assert from_json(Whole, {"parts": [], "first": {}, "note": "x", "cache": "x", "new": 1}) == Whole((), note="x")


@pytest.mark.parametrize("value", [[], {}, {"parts": 1}, {"parts": [1]}, {"parts": [{}]}, {"parts": [], "by_name": 1}])
def test_another_value_is_not_the_record(value):
    with pytest.raises(NotTheRecord):
        from_json(Whole, value)
