"""Adapter of rule download."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.discovery.download import download
from dailies.planning.config import Settings
from dailies.state.layout import Layout

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
