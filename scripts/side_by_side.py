"""Adapter of rule side_by_side."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.layout import Layout
from dailies.logs import job_log
from dailies.page import list_extras
from dailies.reel import build
from dailies.reference import paths
from dailies.shelves import rendered

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        build(
            rendered(
                snakemake.params.names,
                [Path(path) for path in snakemake.input.records],
                Layout(Path(snakemake.config["output_dir"])),
            ),
            sequence=Path(snakemake.input.sequence),
            input_dir=Path(snakemake.config["input_dir"]),
            output=Path(snakemake.output.video),
            fps=snakemake.params.fps,
            reference=paths(snakemake.input.reference),
            threads=snakemake.threads,
        )
        list_extras(Layout(Path(snakemake.config["output_dir"])))
