"""Adapter of checkpoint discover."""

from pathlib import Path

from dailies.discovery import discover
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        discover(
            snakemake.config,
            fingerprint=snakemake.params.fingerprint,
            state=Path(snakemake.output.index).parent,
            index=Path(snakemake.output.index),
        )
