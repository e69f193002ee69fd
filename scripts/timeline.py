"""Adapter of rule timeline."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import timeline
from dailies.logs import job_log
from dailies.reference import paths

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        timeline.write(
            [Path(path) for path in snakemake.input.metadata],
            sequence=Path(snakemake.input.sequence),
            input_dir=Path(snakemake.config["input_dir"]),
            reference=paths(snakemake.input.reference),
            fps=snakemake.params.fps,
            output=Path(snakemake.output.timeline),
        )
