"""Adapter of rule leaderboard."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.compare.files_beside_page import write_extras
from dailies.core.job import job
from dailies.frames.reference import load_if_any
from dailies.measure.leaderboard import LeaderboardSettings, tabulate
from dailies.planning.config import Settings
from dailies.state.layout import Layout
from dailies.state.records import Knockout
from dailies.state.votes import CastVotes

if __name__ == "__main__":
    with job(snakemake) as this:
        layout = Layout(this.output_dir)
        tabulate(
            LeaderboardSettings.from_settings(Settings.from_job(this.config)),
            sequence=this.input.sequence,
            runs=this.input.runs,
            outcomes=this.input.outcomes,
            measures=this.input.measures,
            tables=(this.output.frames, this.output.models),
            output=this.output.told,
            reference=load_if_any(this.input.reference),
            knockout=next(map(Knockout.load, this.input.decision), None),
            cast_votes=CastVotes.imported(layout) if this.input.votes else None,
        )
        write_extras(layout)
