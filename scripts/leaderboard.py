"""Adapter of rule leaderboard."""

from pathlib import Path

from dailies.leaderboard import Question, tabulate
from dailies.logs import job_log
from dailies.reference import found

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        tabulate(
            Question.from_config(snakemake.config),
            sequence=Path(snakemake.input.sequence),
            metadata=[Path(path) for path in snakemake.input.metadata],
            measures=[Path(path) for path in snakemake.input.measures],
            consensus=[Path(path) for path in snakemake.input.consensus],
            tables=(Path(snakemake.output.frames), Path(snakemake.output.models)),
            output=Path(snakemake.output.told),
            reference=found(snakemake.input.reference),
        )
