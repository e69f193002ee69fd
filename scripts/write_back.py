"""Adapter of rule write_back."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.planning.config import Settings
from dailies.publish.evaluation import write_back
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        write_back(
            Settings.from_job(snakemake.config),
            [Path(path) for path in snakemake.input.metadata],
            layout=Layout(Path(snakemake.config["output_dir"])),
        )
