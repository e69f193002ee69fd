"""Adapter of rule list_models."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.config import Settings
from dailies.logs import job_log
from dailies.records import counts, table

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        index = Path(snakemake.input.index)
        text = f"{table(index, Settings.from_job(snakemake.config))}\n{counts(index)}"
    print(text)
