"""Adapter of rule contact_sheet."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.compare.contact_sheet import build
from dailies.compare.files_beside_page import write_extras
from dailies.compare.layers import rendered_models
from dailies.core.job import job
from dailies.core.text import plain
from dailies.frames.reference import paths_if_any
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        notes = build(
            rendered_models(this.params.labels, this.input.outcomes, Layout(this.output_dir)),
            sequence=this.input.sequence,
            input_dir=this.input_dir,
            output=this.output.sheet,
            chosen=this.params.chosen,
            reference=paths_if_any(this.input.reference),
            ranking=next(iter(this.input.ranking), None),
            threads=this.threads,
        )
        for note in notes:
            print(f"dailies: {plain(note)}", file=sys.__stderr__, flush=True)
        write_extras(Layout(this.output_dir))
