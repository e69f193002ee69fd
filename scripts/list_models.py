"""Adapter of rule list_models."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.planning.config import Settings
from dailies.planning.workload import plan
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        text = plan(Layout(this.output_dir), Settings.from_job(this.config))
    print(text)
