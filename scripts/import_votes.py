"""Adapter of rule import_votes."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.job import job
from dailies.state.layout import Layout
from dailies.state.votes import import_votes

if __name__ == "__main__":
    with job(snakemake) as this:
        text = import_votes(this.input.file, Layout(this.output_dir))
    print(text)
