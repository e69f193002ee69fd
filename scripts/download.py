"""Adapter of rule download."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.download import download
from dailies.layout import Layout
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        download(
            snakemake.config,
            layout=Layout(Path(snakemake.config["output_dir"])),
            model=snakemake.wildcards.model,
            shards=snakemake.params.shards,
            settings=snakemake.params.settings,
            loading=snakemake.params.loading,
        )
