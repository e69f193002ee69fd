"""Adapter of rule list_models."""

from pathlib import Path

from dailies.discovery import table
from dailies.logs import job_log

if __name__ == "__main__":
    with job_log(snakemake.log[0]):
        text = table(Path(snakemake.input.index))
    print(text)
