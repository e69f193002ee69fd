"""Adapter of rule write_back."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.evaluation import write_back
from dailies.layout import Layout
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        write_back(
            snakemake.config,
            [Path(path) for path in snakemake.input.metadata],
            layout=Layout(Path(snakemake.config["output_dir"])),
        )
