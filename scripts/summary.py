"""Adapter of rule summary."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.state.collect import summarize

if __name__ == "__main__":
    with job(snakemake) as this:
        summarize(
            this.input.metadata,
            output=this.output.summary,
            order=this.params.order,
            ranking=next(iter(this.input.ranking), None),
        )
