"""Adapter of rule pairing."""

from pathlib import Path

from dailies import reference
from dailies.config import Settings
from dailies.layout import Layout
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        reference.write(
            reference.Asked.from_settings(settings),
            sequence_file=Path(snakemake.input.sequence),
            input_dir=settings.input_dir,
            transfer=settings.transfer,
            cache=Layout(settings.output_dir).reference_scan,
            output=Path(snakemake.output.pairs),
            threads=snakemake.threads,
        )
