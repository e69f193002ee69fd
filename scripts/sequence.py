"""Adapter of rule sequence."""

from pathlib import Path

from dailies import sequence
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        frames = sequence.scan(
            Path(snakemake.config["input_dir"]),
            on_bad_frame=snakemake.params.on_bad_frame,
            cache=Path(snakemake.output.sequence).parent / "frames_read.json",
            output_format=snakemake.params.output_format,
            layer=snakemake.config["layer"],
            threads=snakemake.threads,
        )
        sequence.save(frames, Path(snakemake.output.sequence))
