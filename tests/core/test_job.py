"""What Snakemake hands a script."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from dailies.core.errors import StoreError
from dailies.core.job import job


@pytest.fixture
def snakemake(tmp_path: Path) -> SimpleNamespace:
    """What a script finds under this name."""
    return SimpleNamespace(
        input=SimpleNamespace(record="a.json", outcomes=["b.json", "c.json"]),
        output=SimpleNamespace(page="p.html"),
        wildcards=SimpleNamespace(model="m"),
        params=SimpleNamespace(attempt=2),
        threads=3,
        config={"output_dir": "out", "input_dir": "shot"},
        log=[str(tmp_path / "log")],
    )


def test_a_job_has_its_files_as_paths_and_its_output_in_its_log(snakemake: SimpleNamespace):
    with job(snakemake) as this:
        print("written")

    assert (this.input.record, this.input.outcomes) == (Path("a.json"), [Path("b.json"), Path("c.json")])
    assert this.output.page == Path("p.html")
    assert (this.output_dir, this.input_dir) == (Path("out"), Path("shot"))
    assert (this.wildcards.model, this.params.attempt, this.threads) == ("m", 2, 3)
    assert Path(snakemake.log[0]).read_text() == "written\n"


def test_an_error_ends_a_job_with_its_code_in_the_log(snakemake: SimpleNamespace):
    with pytest.raises(SystemExit) as ended, job(snakemake):
        raise StoreError("store.unreachable", "nobody answers")

    assert ended.value.code == 1
    assert Path(snakemake.log[0]).read_text().endswith("failed: nobody answers [store.unreachable]\n")
