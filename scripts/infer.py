"""Adapter of rule infer."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import environment

if __name__ == "__main__":
    environment.prepare()
    # only now: the environment is prepared by starting Python again
    from dailies.layout import Layout
    from dailies.logs import job_log
    from dailies.render import Job, render

    with job_log(snakemake.log[0]):
        render(
            Job(
                layout=Layout(Path(snakemake.config["output_dir"])),
                model=snakemake.wildcards.model,
                shard=snakemake.wildcards.shard,
                shard_frames=snakemake.config["shard_frames"],
                input_dir=Path(snakemake.config["input_dir"]),
                settings=dict(snakemake.params.settings),
                loading=dict(snakemake.params.loading),
                batch=snakemake.config["batch"],
                device=snakemake.config["device"],
                threads=snakemake.threads,
                attempt=snakemake.params.attempt,
                trust_pickle=snakemake.config["trust_pickle"],
            ),
            forced=snakemake.params.forced,
        )
