"""What of Snakemake's own messages is left out of the terminal, with the records that Snakemake makes."""

import io
import logging

import pytest
from dailies.planning.terminal_filter import JobFilter
from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

JOB = {
    **{"rule_msg": None, "rule_name": "infer", "local": True, "is_checkpoint": False, "jobid": 3, "threads": 1},
    **{"input": ["a"], "output": ["b"], "log": [], "benchmark": None, "reason": "Missing output files", "priority": 0},
    **{"wildcards": {"model": "net"}, "resources": {}, "aux": {}, "conda_env": None, "shellcmd": None},
}


class Terminal:
    """Snakemake's logger with its own handler, which prints to ``text``."""

    def __init__(self, *, is_concise: bool) -> None:
        self._stream = io.StringIO()
        self.logger = logging.Logger("snakemake.logging")
        handler = ColorizingTextHandler(stream=self._stream)
        handler.addFilter(DefaultFilter(None, debug_dag=False, verbose=False, dryrun=False, printshellcmds=False))
        handler.setFormatter(DefaultFormatter())
        handler.addFilter(JobFilter(lambda: is_concise))
        self.logger.addHandler(handler)

    @property
    def text(self) -> str:
        return self._stream.getvalue()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal(is_concise=True)


def print_a_job(logger: logging.Logger) -> None:
    """Log what Snakemake does for a job."""
    logger.info("Building DAG of jobs...")
    logger.info("Job stats:\ninfer 1", extra={"event": LogEvent.RUN_INFO})
    logger.info("Select jobs to execute...")
    logger.info("Execute 1 jobs...", extra={"event": LogEvent.JOB_STARTED})
    logger.info("Rule: infer", extra={"event": LogEvent.JOB_INFO} | JOB)
    logger.info("Finished jobid: 3", extra={"event": LogEvent.JOB_FINISHED, "job_id": 3})
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 2})


def test_what_is_printed_of_each_job_is_left_out(terminal):
    print_a_job(terminal.logger)

    assert terminal.text.strip() == ""


def test_all_of_it_is_printed_if_the_user_wants_it():
    terminal = Terminal(is_concise=False)

    print_a_job(terminal.logger)

    for text in ("Building DAG", "Job stats", "localrule infer", "Finished jobid: 3", "1 of 2 steps"):
        assert text in terminal.text


def test_everything_else_is_printed(terminal):
    texts = ["Nothing to be done (all requested files are present and up to date).", "Trying to restart job 3."]
    for text in texts:
        terminal.logger.info(text)
    terminal.logger.warning("Building DAG of jobs is slow")

    assert terminal.text.splitlines() == [*texts, "Building DAG of jobs is slow"]


def test_a_failed_job_is_printed_and_so_is_the_log_file_after_it(terminal):
    hint = "Complete log(s): /tmp/one.snakemake.log"
    terminal.logger.info(hint)
    assert hint not in terminal.text

    terminal.logger.error("Error in rule infer", extra={"event": LogEvent.JOB_ERROR, "msg_": ""} | JOB)
    terminal.logger.info(hint)

    assert "Error in rule infer" in terminal.text
    assert hint in terminal.text
