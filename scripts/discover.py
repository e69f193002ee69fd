"""Adapter of checkpoint discover."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.discovery import discover
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        discover(
            snakemake.config,
            fingerprint=snakemake.params.fingerprint,
            state=Path(snakemake.output.index).parent,
            index=Path(snakemake.output.index),
        )
