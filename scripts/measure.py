"""Adapter of rule measure."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.logs import job_log
from dailies.measures import measure
from dailies.subjects import Measurement

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        job = Measurement.from_config(
            snakemake.config,
            subject=snakemake.wildcards.model,
            shard=snakemake.wildcards.shard,
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        if snakemake.params.afresh:
            job.kept.unlink(missing_ok=True)
        measure(job, outcomes=[Path(path) for path in snakemake.input.outcomes])
