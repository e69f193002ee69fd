"""Adapter of rule promote."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.planning.config import Settings
from dailies.publish.promotion import promote
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        text = promote(Settings.from_job(this.config), model=this.params.model, layout=Layout(this.output_dir))
    print(text)
