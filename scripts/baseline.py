"""Adapter of rule baseline."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core import environment

if __name__ == "__main__":
    environment.prepare()
    environment.yield_to_renders()
    from dailies.core.job import job
    from dailies.measure.job import MeasurementJob
    from dailies.measure.per_frame import baseline
    from dailies.planning.config import Settings
    from dailies.state.layout import SOURCE

    with job(snakemake) as this:
        measurement = MeasurementJob.from_settings(
            Settings.from_job(this.config),
            subject=SOURCE,
            shard=this.wildcards.shard,
            threads=this.threads,
            attempt=this.params.attempt,
        )
        if this.params.afresh:
            measurement.cache.unlink(missing_ok=True)
        baseline(measurement)
    environment.leave()
