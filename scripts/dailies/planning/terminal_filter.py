"""Which of Snakemake's messages are not printed to the terminal, because they concern single jobs.

This is a filter on the handler that prints to the terminal (Snakemake 9.27). Other ways have drawbacks. A logger plugin
has to be an installed distribution and to be named on the command line. ``quiet`` in a profile is lost with any other
profile, makes dry runs list nothing, hides failed jobs, and is missing from Snakemake's log file, too. With the filter
that file, below ``.snakemake/log``, still has everything.
"""

import logging
import re
from collections.abc import Callable

from snakemake.logging import ColorizingTextHandler, logger
from snakemake_interface_logger_plugins.common import LogEvent

CHATTER = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RUN_INFO,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.GROUP_INFO,
    LogEvent.SHELLCMD,
    LogEvent.PROGRESS,
}
"""Events that are left out."""

PLAIN_CHATTER = re.compile(
    r"Building DAG of jobs|Using shell: |Conda environments: ignored|Singularity containers: ignored|Group jobs: |"
    r"Select jobs to execute|DAG of jobs will be updated|Updating checkpoint dependencies|Processed \d+ potential jobs|"
    r"Removing temporary output |Elapsed time: |"
    # executors of clusters: their names of each job are in Snakemake's log file
    r"SLURM run ID: |Job \d+ has been submitted |Submitted (group |array )?job |Cleaning up SLURM log files "
)
"""The beginnings of messages that have no event and are left out. All others are printed."""

LOG_FILE = "Complete log(s): "
"""The beginning of the message that names Snakemake's log file. It is printed only if a job failed."""


class JobFilter(logging.Filter):
    """Leaves out what Snakemake prints of each job. Warnings, errors and failed jobs are always printed."""

    def __init__(self, is_concise: Callable[[], bool]) -> None:
        """Ask ``is_concise`` for each record: it is known only after the Snakefile was read."""
        super().__init__()
        self._is_concise = is_concise
        self._has_failed = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is printed."""
        if record.levelno > logging.INFO:
            self._has_failed |= record.levelno >= logging.ERROR
            return True
        return not self._is_chatter(record) or not self._is_concise()

    def _is_chatter(self, record: logging.LogRecord) -> bool:
        text = str(record.msg)
        if text.startswith(LOG_FILE):
            return not self._has_failed
        return getattr(record, "event", None) in CHATTER or bool(PLAIN_CHATTER.match(text))


def terminal_handler() -> ColorizingTextHandler | None:
    """Return Snakemake's handler that prints to the terminal; None if a logger plugin does that instead."""
    return next((each for each in logger.handlers if isinstance(each, ColorizingTextHandler)), None)
