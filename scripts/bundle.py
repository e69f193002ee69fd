"""Adapter of rule bundle."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.compare.bundle import build
from dailies.core.job import job
from dailies.core.text import plain
from dailies.state.layout import Layout


def report(line: str) -> None:
    """Print a line on the terminal, where the user can still stop a file that is too large."""
    print(f"dailies: {plain(line)}", file=sys.__stderr__, flush=True)


if __name__ == "__main__":
    with job(snakemake) as this:
        build(Layout(this.output_dir), report=report)
