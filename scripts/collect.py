"""Adapter of rule collect."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.frames.reference import load_if_any
from dailies.measure.scores import summed_up
from dailies.state.collect import describe
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        layout, model = Layout(Path(snakemake.config["output_dir"])), snakemake.wildcards.model
        describe(
            Path(snakemake.input.run),
            [Path(path) for path in snakemake.input.outcomes],
            sequence=Path(snakemake.input.sequence),
            manifests=layout.manifests(model),
            folder=layout.frames(model),
            output=Path(snakemake.output.metadata),
            measured=summed_up(
                [Path(path) for path in snakemake.input.measures],
                Path(snakemake.input.run),
                sequence=Path(snakemake.input.sequence),
                names=snakemake.params.training_frames_from,
                input_dir=Path(snakemake.config["input_dir"]),
                reference=load_if_any(snakemake.input.reference),
            ),
        )
        layout.weights(model).discard()
