"""Adapter of rule baseline."""

from pathlib import Path

from dailies.baseline import baseline
from dailies.logs import job_log
from dailies.subjects import Job

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        job = Job.from_config(
            snakemake.config,
            state=Path(snakemake.input.sequence).parent,
            shard=snakemake.wildcards.shard,
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        baseline(job, output=Path(snakemake.output.measures))
