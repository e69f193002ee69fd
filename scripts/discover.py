"""Adapter of checkpoint discover."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.discovery.discover import discover
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        discover(
            settings,
            fingerprint=snakemake.params.fingerprint,
            layout=Layout(settings.output_dir),
        )
