"""Adapter of checkpoint discover."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.discovery.discover import discover
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        settings = Settings.from_job(this.config)
        discover(settings, fingerprint=this.params.fingerprint, layout=Layout(settings.output_dir))
