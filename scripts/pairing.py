"""Adapter of rule pairing."""

from pathlib import Path

from dailies import reference
from dailies.layout import Layout
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        reference.write(
            reference.Asked.from_config(snakemake.config),
            sequence_file=Path(snakemake.input.sequence),
            input_dir=Path(snakemake.config["input_dir"]),
            transfer=snakemake.config["transfer"],
            cache=Layout(Path(snakemake.config["output_dir"])).reference_scan,
            output=Path(snakemake.output.pairs),
            threads=snakemake.threads,
        )
