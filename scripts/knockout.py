"""Adapter of checkpoint knockout."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.measure.knockout import decide
from dailies.planning.config import Settings

if __name__ == "__main__":
    with job(snakemake) as this:
        decide(
            Settings.from_job(this.config),
            this.params.question,
            sequence=this.input.sequence,
            runs=this.input.runs,
            measures=this.input.measures,
            output=this.output.decision,
        )
