"""Adapter of rule summary."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.state.collect import summarize

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        summarize(
            [Path(path) for path in snakemake.input.metadata],
            output=Path(snakemake.output.summary),
            order=snakemake.params.order,
        )
