"""Adapter of rule infer."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import environment

if __name__ == "__main__":
    environment.prepare()
    # only now: the environment is prepared by starting Python again
    from dailies.logs import job_log
    from dailies.render import Job, render

    with job_log(snakemake.log[0]):
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
                shard_frames=snakemake.config["shard_frames"],
                input_dir=Path(snakemake.config["input_dir"]),
                folder=Path(snakemake.config["output_dir"]) / model,
                manifest=state / "frames" / model / f"{shard}.jsonl",
                state=state / "attempts" / model / f"{shard}.json",
                settings=dict(snakemake.params.settings),
                loading=dict(snakemake.params.loading),
                batch=snakemake.config["batch"],
                device=snakemake.config["device"],
                threads=snakemake.threads,
                attempt=snakemake.params.attempt,
                trust_code=snakemake.config["trust_code"],
            ),
            result=Path(snakemake.output.outcome),
            forced=snakemake.params.forced,
        )
