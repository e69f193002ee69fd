"""Adapter of rule download."""

from pathlib import Path

from dailies.download import download
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        download(
            snakemake.config,
            record=Path(snakemake.input.record),
            state=Path(snakemake.input.record).parents[1],
            folder=Path(snakemake.output.receipt).parent,
            shards=snakemake.params.shards,
            settings=snakemake.params.settings,
            loading=snakemake.params.loading,
        )
