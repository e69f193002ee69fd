"""Adapter of rule pairing."""

from pathlib import Path

from dailies.core.logs import job_log
from dailies.frames import reference
from dailies.planning.config import Settings
from dailies.state.layout import Layout

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        reference.write(
            reference.ReferenceSettings.from_settings(settings),
            sequence_file=Path(snakemake.input.sequence),
            input_dir=settings.input_dir,
            transfer=settings.transfer,
            cache=Layout(settings.output_dir).reference_scan,
            output=Path(snakemake.output.pairs),
            threads=snakemake.threads,
        )
