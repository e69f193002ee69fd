"""Adapter of rule baseline."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.measure.job import MeasurementJob
from dailies.measure.per_frame import baseline
from dailies.planning.config import Settings
from dailies.state.layout import SOURCE

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        job = MeasurementJob.from_settings(
            settings,
            subject=SOURCE,
            shard=snakemake.wildcards.shard,
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        if snakemake.params.afresh:
            job.cache.unlink(missing_ok=True)
        baseline(job)
