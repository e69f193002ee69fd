"""Adapter of rule download."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.config import Settings
from dailies.download import download
from dailies.layout import Layout
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        download(
            settings,
            layout=Layout(settings.output_dir),
            model=snakemake.wildcards.model,
            shards=snakemake.params.shards,
            settings=snakemake.params.settings,
            loading=snakemake.params.loading,
        )
