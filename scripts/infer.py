"""Adapter of rule infer."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.render import environment

if __name__ == "__main__":
    environment.prepare()
    # only now: the environment is prepared by starting Python again
    from dailies.core.logs import job_log
    from dailies.planning.config import Settings
    from dailies.render.job import Job, render
    from dailies.state.layout import Layout

    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        render(
            Job(
                layout=Layout(settings.output_dir),
                model=snakemake.wildcards.model,
                shard=snakemake.wildcards.shard,
                shard_frames=settings.shard_frames,
                input_dir=settings.input_dir,
                settings=dict(snakemake.params.settings),
                loading=dict(snakemake.params.loading),
                batch=settings.batch,
                device=settings.device,
                threads=snakemake.threads,
                attempt=snakemake.params.attempt,
                trust_code=settings.trust_code,
            ),
            forced=snakemake.params.forced,
        )
