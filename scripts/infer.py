"""Adapter of rule infer."""

import sys

if __name__ == "__main__":  # a network's code may start Python processes that import this script
    sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

    from dailies.core import job_environment

    job_environment.prepare()
    # only now: the environment is prepared by starting Python again
    from dailies.core.job import job
    from dailies.planning.config import Settings
    from dailies.render.job import Job, render
    from dailies.state.layout import Layout

    with job(snakemake) as this:
        settings = Settings.from_job(this.config)
        render(
            Job(
                layout=Layout(settings.output_dir),
                model=this.wildcards.model,
                shard=this.wildcards.shard,
                shard_frames=settings.shard_frames,
                knockout_frames=settings.knockout_frames,
                input_dir=settings.input_dir,
                settings=dict(this.params.settings),
                loading=dict(this.params.loading),
                batch=settings.batch,
                device=settings.device,
                threads=this.threads,
                attempt=this.params.attempt,
                trust_code=settings.trust_code,
            ),
            forced=this.params.forced,
        )
    job_environment.leave()
