"""Adapter of rule leaderboard."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.frames.reference import load_if_any
from dailies.measure.leaderboard import Question, tabulate
from dailies.planning.config import Settings

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        tabulate(
            Question.from_settings(Settings.from_job(snakemake.config)),
            sequence=Path(snakemake.input.sequence),
            metadata=[Path(path) for path in snakemake.input.metadata],
            measures=[Path(path) for path in snakemake.input.measures],
            tables=(Path(snakemake.output.frames), Path(snakemake.output.models)),
            output=Path(snakemake.output.told),
            reference=load_if_any(snakemake.input.reference),
        )
