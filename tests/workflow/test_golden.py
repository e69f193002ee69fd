"""Output folders of an earlier version: nothing is downloaded or rendered again after an update of the project."""

import fcntl
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import REPOSITORY
from helpers.studio import Studio, jobs

ROOT = Path("/tmp/dailies-golden")
"""Where the folder was when it was written: digests are taken over absolute paths."""

NAMES = [f"frame_{number:06d}.png" for number in range(3)]


@pytest.fixture
def golden(studio: Studio) -> Iterator[Studio]:
    """The studio that ``golden/make.py`` packed, at its own place; one test at a time has it."""
    with ROOT.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(ROOT, ignore_errors=True)
        with tarfile.open(REPOSITORY / "tests" / "golden" / "golden.tar.xz") as archive:
            archive.extractall(ROOT, filter="data")
        studio.root = ROOT
        studio.config |= {
            "mlflow_uri": f"sqlite:///{ROOT / 'mlflow.db'}",
            "input_dir": str(ROOT / "shot"),
            "output_dir": str(ROOT / "out"),
            "reference_dir": str(ROOT / "reference"),
            "compare": True,
        }
        yield studio
        shutil.rmtree(ROOT)


def models(studio: Studio) -> list[Path]:
    return sorted(path.parent for path in studio.output.glob("*/metadata.json"))


def pixels(studio: Studio) -> dict[str, bytes]:
    """Read every rendered frame."""
    return {str(path): path.read_bytes() for folder in models(studio) for path in sorted(folder.glob("*.png"))}


def times(studio: Studio) -> dict[str, int]:
    """When each frame was written."""
    return {path: Path(path).stat().st_mtime_ns for path in pixels(studio)}


def notes(studio: Studio) -> dict[str, Any]:
    """Read what is noted of frames, which holds how long each took, and of downloads: those of spoilt files fail."""
    manifests = {str(path): path.read_bytes() for path in studio.state.glob("frames/*/*")}
    receipts = {str(path): json.loads(path.read_text()) for path in studio.state.glob("weights/*/*")}
    return manifests | {path: (receipt["status"], receipt["sha256"]) for path, receipt in receipts.items()}


def spoil(path: Path) -> None:
    """Fill a file with zeros, so that whoever reads it cannot go on; its size and time stay."""
    stat = path.stat()
    path.write_bytes(bytes(stat.st_size))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_nothing_of_an_old_output_folder_is_downloaded_or_rendered_again(golden: Studio):
    before = pixels(golden), times(golden), notes(golden)
    for path in (ROOT / "artifacts").rglob("*.pth"):
        spoil(path)

    golden.snakemake()
    golden.snakemake()  # adapters that are newer than the folder make first downloads look, then renders

    assert [folder.name.split("_")[0] for folder in models(golden)] == ["logged", "saved"]
    assert len(before[0]) == 6
    assert (pixels(golden), times(golden), notes(golden)) == before
    assert "Nothing to be done" in golden.snakemake("-n")


def test_a_half_finished_old_output_folder_ends_with_the_same_bytes(golden: Studio):
    before, written = pixels(golden), times(golden)
    logged, saved = models(golden)
    lost = [logged / NAMES[2], saved / NAMES[0], saved / NAMES[1]]
    for path in lost:
        path.unlink()
    manifest = golden.state / "frames" / saved.name / "all.jsonl"
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if json.loads(line)["output"] == NAMES[2]))

    output = golden.snakemake()

    assert jobs(output, "download") == jobs(output, "infer") == [logged.name, saved.name]
    assert pixels(golden) == before
    after = times(golden)
    assert [path for path in before if after[path] != written[path]] == [str(path) for path in lost]
