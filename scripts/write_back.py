"""Adapter of rule write_back."""

from pathlib import Path

from dailies.evaluation import write_back
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        write_back(
            snakemake.config,
            [Path(path) for path in snakemake.input.metadata],
            output=Path(snakemake.output.record),
        )
