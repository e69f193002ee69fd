"""Adapter of rule list_models."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.layout import Layout
from dailies.logs import job_log
from dailies.records import counts, table

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        layout = Layout(Path(snakemake.config["output_dir"]))
        text = f"{table(layout, snakemake.config)}\n{counts(layout)}"
    print(text)
