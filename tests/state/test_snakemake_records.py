import os
from pathlib import Path

import pytest
from dailies.core import files
from dailies.state import snakemake_records
from snakemake.persistence.file import FilePersistence


def record_of(persistence, path: str) -> Path:
    """Return the file in which Snakemake itself looks for the record of a path."""
    return Path(persistence._record_path(os.fspath(snakemake_records.RECORDS), path))


@pytest.fixture
def persistence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    persistence = FilePersistence.__new__(FilePersistence)
    persistence._max_len = os.pathconf(tmp_path, "PC_NAME_MAX")
    return persistence


def write(record: Path, **content) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(record, content)


@pytest.mark.parametrize(
    ("written", "old", "new"),
    [
        (".", "./a/metadata.json", "a/metadata.json"),
        (".", f"./{'m' * 240}/metadata.json", f"{'m' * 240}/metadata.json"),
        ("./out", "./out/a.json", "out/a.json"),
        ("out/", "out//a.json", "out/a.json"),
    ],
)
def test_snakemake_finds_the_record_of_a_file_that_was_spelled_otherwise(persistence, written, old, new):
    inputs = ["./z.json", "./in.json"]
    write(record_of(persistence, old), rule="collect", input=inputs, input_checksums={"./in.json": "1"}, params=["5"])

    snakemake_records.respell(snakemake_records.RECORDS, written, Path(written))

    assert not record_of(persistence, old).exists()
    found = files.read_json(record_of(persistence, new))
    expected = {"rule": "collect", "input": ["in.json", "z.json"], "input_checksums": {"in.json": "1"}, "params": ["5"]}
    assert found == expected


@pytest.mark.parametrize("path", ["out/a.json", "./other/a.json", "s3://bucket/out/a.json"])
def test_the_records_of_other_files_are_left_alone(persistence, path):
    write(record_of(persistence, path), input=["./in.json"])

    snakemake_records.respell(snakemake_records.RECORDS, "./out", Path("out"))

    assert files.read_json(record_of(persistence, path)) == {"input": ["./in.json"]}


def test_a_newer_record_is_kept(persistence):
    write(record_of(persistence, "./out/a"), input=[], rule="old")
    write(record_of(persistence, "out/a"), input=[], rule="new")

    snakemake_records.respell(snakemake_records.RECORDS, "./out", Path("out"))

    assert files.read_json(record_of(persistence, "out/a"))["rule"] == "new"


def test_files_of_other_programs_are_left_alone(persistence):
    stray = snakemake_records.RECORDS / "tmpabcd1234"
    write(stray)

    snakemake_records.respell(snakemake_records.RECORDS, ".", Path())

    assert stray.is_file()
