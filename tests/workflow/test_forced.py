"""What is told to run again is made again, once: rendered, measured and read anew. tests/cluster has nodes."""

import shutil
from pathlib import Path

from helpers.studio import LEVELS, NAMES, all_written, jobs, only


def damage(frame: Path) -> bytes:
    """Overwrite the end of a frame, which stays as long as it was; return what it held."""
    good = frame.read_bytes()
    frame.write_bytes(good[:-30] + bytes(30))
    return good


def test_forced_jobs_use_nothing_that_is_known_and_are_run_once(rendered):
    shutil.copytree(rendered.frames, rendered.root / "clean")
    measured = {"reference_dir": str(rendered.root / "clean"), "metrics": "psnr"}
    rendered.snakemake(**measured)
    frame = rendered.folder(rendered.runs["dark"]) / NAMES[1]
    good, before = damage(frame), all_written(rendered)

    output = rendered.snakemake("-R", "infer", "measure", "sequence", **measured)

    assert jobs(output, "sequence") == [""]
    assert jobs(output, "download") == jobs(output, "infer") == jobs(output, "measure") == only(rendered, *LEVELS)
    after = all_written(rendered)
    assert all(after[model][name] > before[model][name] for model in LEVELS for name in NAMES)
    assert frame.read_bytes() == good
    assert not list(rendered.state.glob("weights/*/artifact"))
    log = rendered.output / "logs" / f"measure_{frame.parent.name}_all.log"
    assert "4 of 4 frames to measure" in log.read_text()
    assert [rendered.metadata(rendered.runs[name])["render"]["attempt"] for name in LEVELS] == [2, 2, 2]
    assert "Nothing to be done" in rendered.snakemake("-n", **measured)


def test_one_forced_file_is_made_again_and_no_other(rendered):
    dark = only(rendered, "dark")[0]
    before = all_written(rendered)

    output = rendered.snakemake("-f", str(rendered.state / "renders" / dark / "all.json"))

    assert jobs(output, "download") == jobs(output, "infer") == [dark]
    after = all_written(rendered)
    assert {(model, name) for model in LEVELS for name in NAMES if after[model][name] != before[model][name]} == {
        ("dark", name) for name in NAMES
    }
