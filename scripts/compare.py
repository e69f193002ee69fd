"""Adapter of rule compare."""

import os
import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.compare.page import build
from dailies.core.job import job
from dailies.frames.reference import paths_if_any
from dailies.measure.leaderboard import page_metrics
from dailies.measure.scores import training_frames_by_model
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        trained = training_frames_by_model(
            this.input.metadata,
            sequence=this.input.sequence,
            names=this.params.training_frames_from,
            input_dir=this.input_dir,
        )
        build(
            this.input.metadata,
            summary=this.input.summary,
            sequence=this.input.sequence,
            input_dir=this.input_dir,
            layout=Layout(this.output_dir),
            tracking_uri=this.config["mlflow_uri"] or os.environ.get("MLFLOW_TRACKING_URI"),
            fps=this.params.fps,
            reference=paths_if_any(this.input.reference),
            metrics=[metric for path in this.input.ranking for metric in page_metrics(path)],
            ranking=next(iter(this.input.ranking), None),
            advice=this.params.advice,
            trained=trained,
            threads=this.threads,
        )
