"""Adapter of rule write_back."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.planning.config import Settings
from dailies.publish.evaluation import write_back
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        write_back(Settings.from_job(this.config), this.input.metadata, layout=Layout(this.output_dir))
