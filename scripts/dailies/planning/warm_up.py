"""Warm-up: the fork server of an invocation, started when the first job begins that leads to a render."""

import logging
from contextlib import suppress

from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from dailies.core import environment, fork_server
from dailies.planning.invocation import Invocation

LEADING_TO_RENDERS = ("sequence", "download", "download_candidate", "infer")
"""Rules whose jobs start the server: it imports torch while they work, and they share the frames that they decode."""

MODULES = (
    "torch",
    "snakemake.script",
    "dailies.planning.config",
    "dailies.render.engine",
    "dailies.render.job",
    "dailies.render.loading",
    "dailies.measure.flicker",
    "dailies.measure.per_frame",
    "dailies.measure.quality",
)
"""What the jobs import that render and measure."""


class WarmUp(logging.Handler):
    """Follows Snakemake's events, and starts the fork server once, if jobs run on this machine."""

    def __init__(self, invocation: Invocation) -> None:
        """Wait for a job that leads to a render, if this process is the user's own."""
        super().__init__()
        self._invocation = invocation
        if invocation.is_main and fork_server.is_wanted():
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Start the server if the record announces such a job."""
        if getattr(record, "event", None) != LogEvent.JOB_INFO or not self._invocation.is_executed:
            return
        if record.rule_name in map(self._invocation.rule, LEADING_TO_RENDERS):  # type: ignore[attr-defined]
            logger.removeHandler(self)
            if self._invocation.runs_jobs_itself:
                with suppress(OSError):  # jobs then start by themselves, which takes longer
                    self._server = fork_server.start(MODULES, environment.of_jobs())
