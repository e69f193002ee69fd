"""What a job gets from Snakemake, with typed paths, and a log whose last line is the reason if the job fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dailies.core.logs import job_log


class Files:
    """The named inputs or outputs of a job: a Path for a single file, a list of Paths for a list."""

    def __init__(self, named: Any) -> None:
        self._named = named

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._named, name)
        return Path(found) if isinstance(found, str) else [Path(each) for each in found]


class Job:
    """A job of a rule: its files, wildcards, parameters, threads and configuration."""

    def __init__(self, snakemake: Any) -> None:
        self.input = Files(snakemake.input)
        self.output = Files(snakemake.output)
        self.wildcards = snakemake.wildcards
        self.params = snakemake.params
        self.threads: int = snakemake.threads
        self.config: dict[str, Any] = snakemake.config
        """The validated configuration."""

    @property
    def output_dir(self) -> Path:
        """The folder below which everything is written."""
        return Path(self.config["output_dir"])

    @property
    def input_dir(self) -> Path:
        """The folder of the frames, or a video."""
        return Path(self.config["input_dir"])


@contextmanager
def job(snakemake: Any) -> Iterator[Job]:
    """Run the block as the job of Snakemake's ``snakemake`` object; everything it prints goes to the job's log.

    A DailiesError ends the job with exit code 1, and the log with its message; see ``job_log``.
    """
    with job_log(snakemake.log[0]):
        yield Job(snakemake)
