"""Outcome: what is printed at the end of an invocation."""

from pathlib import Path

from snakemake.logging import logger

from dailies.core import logs
from dailies.discovery import report
from dailies.frames import reference
from dailies.measure import leaderboard
from dailies.planning.invocation import Invocation
from dailies.state import collect
from dailies.state.records import DiscoveryIndex


class Outcome:
    """Reports what an invocation rendered and measured. Create it before any job runs: it notes which files exist."""

    def __init__(self, invocation: Invocation) -> None:
        layout = invocation.layout
        self._invocation = invocation
        self._layout = layout
        self._before = {path: _written(path) for path in (layout.summary, layout.verdict, layout.page, layout.pairing)}

    def report(self) -> None:
        """Print what was rendered and measured; end with exit code 1 if models failed in this invocation."""
        layout = self._layout
        if self._is_new(layout.verdict):
            for line in leaderboard.report(layout.verdict):
                logger.info(line)
        elif self._is_new(layout.pairing):
            for line in reference.load(layout.pairing).report:
                logger.info(line)
        if self._is_new(layout.summary):
            self._report_models()
        is_shown = self._is_new(layout.page) or self._is_new(layout.summary)
        if self._invocation.settings.compare and layout.page.is_file() and is_shown:
            logger.info(f"Compare the models: open {layout.page}")
        if self._is_new(layout.summary) and (failures := collect.failures(layout.summary)):
            self._invocation.end(failures)

    def _report_models(self) -> None:
        layout = self._layout
        logger.info(collect.table(layout.summary))
        logger.info(report.counts(layout))
        if warning := DiscoveryIndex.load(layout.index).warning:
            self._invocation.warn(warning)
        if gone := collect.left_behind(layout):
            logger.info(f"No longer selected, their frames stay where they are: {', '.join(gone)}")
        if substituted := collect.substituted(layout.summary):
            self._invocation.warn(substituted)
        logger.info(f"Frames: {layout.output_dir}/<model>/; all models in one file: {layout.summary}")

    def report_interruption(self) -> None:
        """Print where the reason is logged; with ``--quiet all``, which hides it, print the reason itself."""
        if self._invocation.reasons:
            return
        kept = "what is rendered is kept for the next invocation"
        folder = self._layout.logs
        if self._invocation.is_silent:
            for reason in logs.failures(folder, since=self._invocation.started):
                logger.error(f"dailies: {reason}")
            logger.error(f"dailies: all logs are in {folder}; {kept}.")
        else:
            logger.error(f"dailies: the reason is above, and in {folder}; {kept}.")

    def _is_new(self, path: Path) -> bool:
        """Return whether this invocation wrote a file."""
        return _written(path) not in (None, self._before[path])


def _written(path: Path) -> int | None:
    """Return when a file was written; None if there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None
