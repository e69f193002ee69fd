"""Adapter of rule side_by_side."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.compare.layers import rendered
from dailies.compare.page import list_extras
from dailies.compare.side_by_side import build
from dailies.core.logs import job_log
from dailies.frames.reference import paths_if_any
from dailies.state.layout import Layout

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
            reference=paths_if_any(snakemake.input.reference),
            threads=snakemake.threads,
        )
        list_extras(Layout(Path(snakemake.config["output_dir"])))
