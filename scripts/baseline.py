"""Adapter of rule baseline."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.baseline import baseline
from dailies.layout import SOURCE
from dailies.logs import job_log
from dailies.subjects import Measurement

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        job = Measurement.from_config(
            snakemake.config,
            subject=SOURCE,
            shard=snakemake.wildcards.shard,
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        if snakemake.params.afresh:
            job.kept.unlink(missing_ok=True)
        baseline(job)
