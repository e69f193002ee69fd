"""Adapter of rule summary."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.compare.files_beside_page import write_extras
from dailies.core.job import job
from dailies.state.collect import summarize
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        summarize(
            this.input.metadata,
            output=this.output.summary,
            order=this.params.order,
            ranking=next(iter(this.input.ranking), None),
        )
        write_extras(Layout(this.output_dir))
