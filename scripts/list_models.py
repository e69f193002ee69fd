"""Adapter of rule list_models."""

from pathlib import Path

from dailies.logs import job_log
from dailies.records import table

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        text = table(Path(snakemake.input.index), snakemake.config)
    print(text)
