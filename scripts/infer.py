"""Adapter of rule infer."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import environment

if __name__ == "__main__":
    environment.prepare()
    # only now: the environment is prepared by starting Python again
    from dailies.config import Settings
    from dailies.logs import job_log
    from dailies.render import Job, render

    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        model, shard, state = (
            snakemake.wildcards.model,
            snakemake.wildcards.shard,
            Path(snakemake.input.sequence).parent,
        )
        render(
            Job(
                record=Path(snakemake.input.record),
                weights=Path(snakemake.input.receipt).parent,
                sequence=Path(snakemake.input.sequence),
                shard=shard,
                shard_frames=settings.shard_frames,
                input_dir=settings.input_dir,
                folder=settings.output_dir / model,
                manifest=state / "frames" / model / f"{shard}.jsonl",
                state=state / "attempts" / model / f"{shard}.json",
                settings=dict(snakemake.params.settings),
                loading=dict(snakemake.params.loading),
                batch=settings.batch,
                device=settings.device,
                threads=snakemake.threads,
                attempt=snakemake.params.attempt,
                trust_pickle=settings.trust_pickle,
            ),
            result=Path(snakemake.output.outcome),
            forced=snakemake.params.forced,
        )
