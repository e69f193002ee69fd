"""Adapter of rule timeline."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import timeline
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        reference_dir = snakemake.config["reference_dir"]
        timeline.write(
            [Path(path) for path in snakemake.input.metadata],
            sequence=Path(snakemake.input.sequence),
            input_dir=Path(snakemake.config["input_dir"]),
            reference_dir=Path(reference_dir) if reference_dir else None,
            fps=snakemake.params.fps,
            output=Path(snakemake.output.timeline),
        )
