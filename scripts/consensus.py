"""Adapter of rule consensus."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.consensus import consensus
from dailies.logs import job_log
from dailies.subjects import Measurement

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        job = Measurement.from_config(
            snakemake.config,
            output=Path(snakemake.output.measures),
            threads=snakemake.threads,
            attempt=snakemake.params.attempt,
        )
        if snakemake.params.afresh:
            job.kept.unlink(missing_ok=True)
        consensus(
            job,
            output_dir=Path(snakemake.config["output_dir"]),
            outcomes=[Path(path) for path in snakemake.input.outcomes],
        )
