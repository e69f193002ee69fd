"""Adapter of rule sequence."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.core.logs import job_log
from dailies.core.text import plain
from dailies.frames import scan, sequence
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        cache = Layout(settings.output_dir).scan
        if snakemake.params.afresh:
            scan.clear_cache(cache)
        frames = scan.scan(
            settings.input_dir,
            on_bad_frame=snakemake.params.on_bad_frame,
            cache=cache,
            output_format=snakemake.params.output_format,
            layer=settings.layer,
            threads=snakemake.threads,
        )
        sequence.save(frames, Path(snakemake.output.sequence))
        for line in sequence.summarise_notes(
            frames.frames
        ):  # on the terminal, too: the user may have meant another layer
            print(f"dailies: {plain(line)}", file=sys.__stderr__, flush=True)
