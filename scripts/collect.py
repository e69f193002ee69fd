"""Adapter of rule collect."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.frames.reference import load_if_any
from dailies.measure.scores import summarized
from dailies.state.collect import describe
from dailies.state.layout import Layout
from dailies.state.records import Knockout

if __name__ == "__main__":
    with job(snakemake) as this:
        layout, model = Layout(this.output_dir), this.wildcards.model
        knockout = next(map(Knockout.load, this.input.decision), None)
        means = summarized(
            this.input.measures,
            this.input.run,
            sequence=this.input.sequence,
            names=this.params.training_frames_from,
            input_dir=this.input_dir,
            reference=load_if_any(this.input.reference),
            reference_fingerprint=this.params.reference,
        )
        describe(
            this.input.run,
            this.input.outcomes,
            sequence=this.input.sequence,
            manifests=layout.manifests(model),
            folder=layout.frames(model),
            output=this.output.metadata,
            means=means,
            contestant=knockout.by_model[model] if knockout else None,
        )
        layout.weights(model).discard()
