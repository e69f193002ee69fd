"""Adapter of rule pairing."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.frames import reference
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        settings = Settings.from_job(this.config)
        reference.write(
            reference.ReferenceSettings.from_settings(settings),
            sequence_file=this.input.sequence,
            input_dir=settings.input_dir,
            transfer=settings.transfer,
            cache=Layout(settings.output_dir).reference_scan,
            output=this.output.pairs,
            threads=this.threads,
        )
