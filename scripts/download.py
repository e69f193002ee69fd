"""Adapter of rule download."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.discovery.download import download
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        download(
            Settings.from_job(this.config),
            layout=Layout(this.output_dir),
            model=this.wildcards.model,
            shards=this.params.shards,
            settings=this.params.settings,
            loading=this.params.loading,
            forced=this.params.forced,
            receipt=this.output.receipt,
        )
