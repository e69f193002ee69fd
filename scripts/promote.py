"""Adapter of rule promote."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.layout import Layout
from dailies.logs import job_log
from dailies.promotion import promote

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        text = promote(
            snakemake.config,
            model=snakemake.params.model,
            layout=Layout(Path(snakemake.config["output_dir"])),
        )
    print(text)
