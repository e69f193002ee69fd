"""Adapter of rule sequence."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # first: another installed package may be called dailies

from dailies.core.job import job
from dailies.frames import scan, sequence
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job(snakemake) as this:
        settings = Settings.from_job(this.config)
        cache = Layout(settings.output_dir).scan
        if this.params.afresh:
            scan.clear_cache(cache)
        frames = scan.scan(
            settings.input_dir,
            on_bad_frame=settings.on_bad_frame,
            cache=cache,
            output_format=settings.output_format,
            layer=settings.layer,
            frames=settings.frames,
            threads=this.threads,
        )
        sequence.save(frames, this.output.sequence)
