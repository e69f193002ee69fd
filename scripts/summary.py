"""Adapter of rule summary."""

from pathlib import Path

from dailies.logs import job_log
from dailies.metadata import summarize

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        summarize(
            [Path(path) for path in snakemake.input.metadata],
            output=Path(snakemake.output.summary),
            order=snakemake.params.order,
        )
