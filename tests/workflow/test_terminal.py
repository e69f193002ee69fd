"""What the user reads in the terminal, with Snakemake's options for more and less."""

import re
import shutil

import pytest
from helpers.studio import Studio, jobs
from helpers.weights import grey_checkpoint


@pytest.fixture
def sweep(studio: Studio) -> Studio:
    """A studio with two models, one that fails, a run that is skipped, and a reference; nothing is rendered yet."""
    studio.verbosity = ()
    studio.add_frames(3, size=(24, 16))
    shutil.copytree(studio.frames, studio.root / "reference")
    studio.add_run("dark", grey_checkpoint(-0.5))
    studio.add_run("light", grey_checkpoint(0.5))
    studio.add_run("junk", b"junk")
    studio.add_run("crashed", grey_checkpoint(0.1), status="FAILED")
    studio.config |= {"reference_dir": str(studio.root / "reference"), "compare": True}
    return studio


def check_end(studio: Studio, output: str) -> None:
    """Check that the last lines are the result, what failed, what was skipped, and the page."""
    end = output[output.index("rank  model") :].splitlines()
    assert [line.split()[:2] for line in end[2:6]] == [
        ["1", "dark"],
        ["2", "light"],
        ["junk", "load_failed"],
        ["(source)"],
    ] or end
    assert {"PSNR", "verdict", "fps"} <= set(end[0].split())
    failed = next(number for number, line in enumerate(end) if "1 of 3 models failed" in line)
    assert end[failed + 1].startswith("  junk load_failed: ")
    assert "3 models; skipped: 1 FAILED" in end[failed:]
    assert end[-1] == f"Compare the models: open {studio.layout.page}"


def test_an_invocation_prints_a_line_per_model_and_ends_with_the_result(sweep):
    output = sweep.snakemake(expect=1)

    assert len(output.splitlines()) < 30
    assert not jobs(output, "infer")
    for model in ("dark", "light"):
        assert re.search(rf"^{model} +3 frames +[\d.]+ fps", output, re.MULTILINE)
    assert len(re.findall("^dailies: junk: load_failed: ", output, re.MULTILINE)) == 1
    check_end(sweep, output)
    (log,) = (sweep.root / ".snakemake" / "log").glob("*.snakemake.log")
    assert len(jobs(log.read_text(), "infer")) == 3

    quiet = sweep.snakemake("--quiet", expect=1)
    assert "frames  " not in quiet[: quiet.index("rank  model")]
    check_end(sweep, quiet)

    assert len(jobs(sweep.snakemake("-n"), "infer")) == 1
