"""Downloads in the workflow: beside renders, and a bounded number of models on the disk."""

import re
from itertools import pairwise

from helpers.studio import Studio
from helpers.weights import grey, grey_checkpoint

STARTED = re.compile(r"^(?:local)?rule (\w+):\n(?:    .+\n)*?    jobid: (\d+)\n", re.MULTILINE)
FINISHED = re.compile(r"^Finished jobid: (\d+) ", re.MULTILINE)


def spans(output: str, rule: str) -> list[tuple[int, int]]:
    """Give where in Snakemake's output each job of a rule starts and ends, in order."""
    ends = {match[1]: match.start() for match in FINISHED.finditer(output)}
    return sorted((match.start(), ends[match[2]]) for match in STARTED.finditer(output) if match[1] == rule)


def test_downloads_run_beside_renders_that_have_the_only_core_and_wait_for_them(studio: Studio):
    studio.add_frames(2)
    for number in range(4):
        studio.add_run(f"run{number}", grey_checkpoint(number / 10))

    output = studio.snakemake("--cores", "1", models_on_disk=2)

    downloads, renders = spans(output, "download"), spans(output, "infer")
    assert len(downloads) == len(renders) == 4
    assert all(end <= start for (_, end), (start, _) in pairwise(renders))
    assert any(start < other < end for start, end in renders for other, _ in downloads) or any(
        start < other < end for start, end in downloads for other, _ in renders
    )
    waited = [path.read_text() for path in (studio.output / "logs").glob("download_*.log")]
    assert any("waiting until" in text for text in waited)
    assert not any("no frame was written" in text for text in waited)
    assert [studio.levels(run)[0] for run in studio.runs.values()] == [grey(number / 10) for number in range(4)]
    assert not list(studio.state.glob("weights/*/artifact"))
