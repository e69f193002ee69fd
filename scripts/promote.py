"""Adapter of rule promote."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.planning.config import Settings
from dailies.publish.promotion import promote
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        text = promote(
            settings,
            model=snakemake.params.model,
            layout=Layout(settings.output_dir),
        )
    print(text)
