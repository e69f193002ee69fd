"""Adapter of rule collect."""

from pathlib import Path

from dailies.logs import job_log
from dailies.metadata import describe

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        describe(
            Path(snakemake.input.run),
            Path(snakemake.input.outcome),
            output=Path(snakemake.output.metadata),
        )
