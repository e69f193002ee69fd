"""Adapter of rule download."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.config import Settings
from dailies.download import download
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        download(
            Settings.from_job(snakemake.config),
            record=Path(snakemake.input.record),
            state=Path(snakemake.input.record).parents[1],
            folder=Path(snakemake.output.receipt).parent,
            shards=snakemake.params.shards,
            settings=snakemake.params.settings,
            loading=snakemake.params.loading,
        )
