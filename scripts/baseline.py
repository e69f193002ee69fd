"""Adapter of rule baseline."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.baseline import baseline
from dailies.config import Settings
from dailies.logs import job_log
from dailies.subjects import Measurement

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        job = Measurement.from_settings(
            Settings.from_job(snakemake.config),
            output=Path(snakemake.output.measures),
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        if snakemake.params.afresh:
            job.kept.unlink(missing_ok=True)
        baseline(job)
