"""Adapter of rule measure."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.measure.job import MeasurementJob
from dailies.measure.per_frame import measure
from dailies.planning.config import Settings

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        job = MeasurementJob.from_settings(
            settings,
            subject=snakemake.wildcards.model,
            shard=snakemake.wildcards.shard,
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        if snakemake.params.afresh:
            job.cache.unlink(missing_ok=True)
        measure(job, outcomes=[Path(path) for path in snakemake.input.outcomes])
