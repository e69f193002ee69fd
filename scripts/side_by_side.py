"""Adapter of rule side_by_side."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.compare.files_beside_page import write_extras
from dailies.compare.layers import rendered_models
from dailies.compare.side_by_side import build
from dailies.core.job import job
from dailies.frames.reference import paths_if_any
from dailies.state import shown_together
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        layout = Layout(this.output_dir)
        models = rendered_models(this.params.labels, this.input.outcomes, layout)
        build(
            models,
            sequence=this.input.sequence,
            input_dir=this.input_dir,
            output=this.output.video,
            fps=this.params.fps,
            reference=paths_if_any(this.input.reference),
            threads=this.threads,
        )
        shown = {model.folder.name: model.artifact for model in models if model.is_complete}
        shown_together.record(layout.shown_in_video, shown, layout=layout)
        write_extras(layout)
