import hashlib
import json
import math
from pathlib import Path

import pytest
from dailies.core import files
from hypothesis import given, settings
from hypothesis import strategies as st

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def test_a_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / "new" / "file.bin"

    files.write_bytes(path, b"one")
    files.write_bytes(path, b"two")

    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "file.bin"
    files.write_bytes(path, b"old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_bytes(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def synced(monkeypatch):
    """The inodes of the files that were synced."""
    numbers = []
    monkeypatch.setattr(files.os, "fsync", lambda handle: numbers.append(files.os.fstat(handle).st_ino))
    return numbers


def test_a_record_is_synced_at_once_and_many_frames_together(tmp_path, synced):
    frames = [tmp_path / f"{number}.png" for number in range(20)]

    files.write_json(tmp_path / "record.json", {"status": "success"})
    for path in frames:
        files.write_bytes(path, b"pixels", durable=False)
    assert synced == [(tmp_path / "record.json").stat().st_ino]

    files.persist_all([*frames, tmp_path / "gone.png"])
    assert sorted(synced[1:]) == sorted(path.stat().st_ino for path in frames)


def test_the_longest_file_name_can_be_written(tmp_path):
    name = "é" * 127

    files.write_bytes(tmp_path / name, b"x")

    assert (tmp_path / name).read_bytes() == b"x"


def test_json_is_strict(tmp_path):
    path = tmp_path / "a.json"

    files.write_json(path, {"a": [math.nan, math.inf, -math.inf, 1.7976931348623157e308, 0.5], "b": {1: (True, None)}})

    assert files.read_json(path) == {"a": [None, None, None, None, 0.5], "b": {"1": [True, None]}}


@settings(max_examples=50)
@given(JSON)
def test_whatever_is_written_as_json_can_be_read(value):
    def refuse(constant):
        raise AssertionError(constant)

    read = json.loads(files.dump_json(value), parse_constant=refuse)

    assert read == files.strict(value)
    assert files.digest(read) == files.digest(value)


def test_an_unchanged_file_is_not_touched(tmp_path):
    path = tmp_path / "a.json"

    assert files.write_json_if_changed(path, {"a": 1})
    written = path.stat().st_ino, path.stat().st_mtime_ns
    assert not files.write_json_if_changed(path, {"a": 1})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == written
    assert files.write_json_if_changed(path, {"a": 2})
    assert files.read_json(path) == {"a": 2}


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys():
    assert files.digest({"a": 1, "b": [1, 2]}) == files.digest({"b": [1, 2], "a": 1})
    assert files.digest([1, 2]) != files.digest([2, 1])
    assert files.digest(["a", "bc"]) != files.digest(["ab", "c"])


def test_digests_of_files_depend_on_names_and_contents(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    first = files.sha256_of_files(tmp_path, ["a", "b"])

    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(b"1").hexdigest()
    assert files.sha256_of_files(tmp_path, ["b", "a"]) == first
    (tmp_path / "b").rename(tmp_path / "c")
    assert files.sha256_of_files(tmp_path, ["a", "c"]) != first
    (tmp_path / "c").write_bytes(b"3")
    assert files.sha256_of_files(tmp_path, ["a", "c"]) != first


def test_prefetching_changes_nothing_and_ignores_what_is_missing(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"weights")

    files.prefetch(path)
    files.prefetch(tmp_path)
    files.prefetch(tmp_path / "missing")

    assert path.read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "No space left on device: place"),
        (OSError(13, "Permission denied", "a.png"), "Permission denied: a.png"),
        (OSError(28, "No space left on device", "from.pth", None, "to.pth"), "No space left on device: to.pth"),
        (OSError("no number"), "no number: place"),
    ],
)
def test_the_reason_of_an_os_error_names_the_file(error, text):
    assert files.reason(error, Path("place")) == text
