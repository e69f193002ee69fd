"""Adapter of checkpoint discover."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.discovery import discover
from dailies.layout import Layout
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        layout = Layout(Path(snakemake.config["output_dir"]))
        if snakemake.params.afresh:
            layout.listings.unlink(missing_ok=True)
        discover(
            snakemake.config,
            fingerprint=snakemake.params.fingerprint,
            layout=layout,
        )
