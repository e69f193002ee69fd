"""Adapter of rule sequence."""

import sys
from pathlib import Path

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies import sequence
from dailies.layout import Layout
from dailies.logs import job_log
from dailies.text import plain

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        cache = Layout(Path(snakemake.config["output_dir"])).scan
        if snakemake.params.afresh:
            sequence.forget(cache)
        frames = sequence.scan(
            Path(snakemake.config["input_dir"]),
            on_bad_frame=snakemake.params.on_bad_frame,
            cache=cache,
            output_format=snakemake.params.output_format,
            layer=snakemake.config["layer"],
            threads=snakemake.threads,
        )
        sequence.save(frames, Path(snakemake.output.sequence))
        for line in sequence.notes(frames.frames):  # on the terminal, too: the user may have meant another layer
            print(f"dailies: {plain(line)}", file=sys.__stderr__, flush=True)
