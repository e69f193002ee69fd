"""Adapter of rule compare."""

import os
import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.compare.page import build
from dailies.core.logs import job_log
from dailies.frames.reference import paths_if_any
from dailies.measure.leaderboard import page_metrics
from dailies.measure.scores import seen_by_models
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        build(
            [Path(path) for path in snakemake.input.metadata],
            summary=Path(snakemake.input.summary),
            sequence=Path(snakemake.input.sequence),
            input_dir=Path(snakemake.config["input_dir"]),
            layout=Layout(Path(snakemake.config["output_dir"])),
            tracking_uri=snakemake.config["mlflow_uri"] or os.environ.get("MLFLOW_TRACKING_URI"),
            fps=snakemake.params.fps,
            reference=paths_if_any(snakemake.input.reference),
            metrics=[metric for path in snakemake.input.metrics for metric in page_metrics(Path(path))],
            trained=seen_by_models(
                [Path(path) for path in snakemake.input.metadata],
                sequence=Path(snakemake.input.sequence),
                names=snakemake.params.training_frames_from,
                input_dir=Path(snakemake.config["input_dir"]),
            ),
            threads=snakemake.threads,
        )
