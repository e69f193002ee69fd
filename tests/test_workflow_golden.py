"""Output folders of an earlier version: nothing is downloaded or rendered again after an update of the project."""

import fcntl
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Studio, jobs

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
        }
        yield studio
        shutil.rmtree(ROOT)


def models(studio: Studio) -> list[Path]:
    return sorted(path.parent for path in studio.output.glob("*/metadata.json"))


def pixels(studio: Studio) -> dict[str, bytes]:
    """Read every rendered frame."""
    return {str(path): path.read_bytes() for folder in models(studio) for path in sorted(folder.glob("*.png"))}


def times(studio: Studio) -> dict[str, int]:
    """When each frame, receipt and record of a render was written."""
    files = [Path(path) for path in pixels(studio)]
    files += [path for part in ("frames", "renders", "weights") for path in (studio.state / part).rglob("*.json*")]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_nothing_of_an_old_output_folder_is_downloaded_or_rendered_again(golden: Studio):
    before, written = pixels(golden), times(golden)

    output = golden.snakemake()

    assert [folder.name.split("_")[0] for folder in models(golden)] == ["logged", "saved"]
    assert len(before) == 6
    assert jobs(output, "sequence") == jobs(output, "download") == jobs(output, "infer") == []
    assert (pixels(golden), times(golden)) == (before, written)
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
