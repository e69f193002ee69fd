"""Adapter of rule overview."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import overview
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        overview.build(
            [Path(path) for path in snakemake.input.metadata],
            sequence=Path(snakemake.input.sequence),
            measures=[Path(path) for path in snakemake.input.measures],
            table=Path(snakemake.output.table),
            plots=Path(snakemake.output.plots),
            shot=Path(snakemake.config["input_dir"]).name,
        )
