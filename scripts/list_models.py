"""Adapter of rule list_models."""

import sys

sys.path.insert(0, snakemake.scriptdir)  # an installed package may be called dailies, too

from dailies.config import Settings
from dailies.layout import Layout
from dailies.logs import job_log
from dailies.records import counts, table

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        settings = Settings.from_job(snakemake.config)
        layout = Layout(settings.output_dir)
        text = f"{table(layout, settings)}\n{counts(layout)}"
    print(text)
