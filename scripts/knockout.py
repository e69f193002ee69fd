"""Adapter of checkpoint knockout."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.core.text import plain
from dailies.measure.knockout import decide
from dailies.planning.config import Settings

if __name__ == "__main__":
    with job(snakemake) as this:
        lines = decide(
            Settings.from_job(this.config),
            this.params.question,
            sequence=this.input.sequence,
            runs=this.input.runs,
            measures=this.input.measures,
            output=this.output.decision,
        )
        for line in lines:
            print(f"dailies: {plain(line)}", file=sys.__stderr__, flush=True)
