"""Adapter of rule list_models."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.discovery.report import counts, table
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        layout = Layout(this.output_dir)
        text = f"{table(layout, Settings.from_job(this.config))}\n{counts(layout)}"
    print(text)
