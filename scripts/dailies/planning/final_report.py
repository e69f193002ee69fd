"""What is printed at the end of an invocation: the result, what failed and what was skipped."""

from pathlib import Path

from snakemake.logging import logger

from dailies.core import logs
from dailies.core.typed import load_all
from dailies.discovery import report
from dailies.frames import reference
from dailies.measure import leaderboard
from dailies.planning.invocation import Invocation
from dailies.planning.progress import RESULT, Progress
from dailies.state import collect, shown_together
from dailies.state.records import DiscoveryIndex, Leaderboard, SummaryLine


class FinalReport:
    """Reports what an invocation rendered and measured. Create it before any job runs: it notes which files exist."""

    def __init__(self, invocation: Invocation, progress: Progress) -> None:
        layout = invocation.layout
        self._invocation = invocation
        self._progress = progress
        self._layout = layout
        self._before = {path: _written(path) for path in (layout.summary, layout.verdict, layout.page, layout.pairing)}

    def report(self) -> None:
        """Print the result, what failed and what was skipped; end with exit code 1 if models failed."""
        self._progress.finish()
        self._progress.close()
        layout = self._layout
        summary = layout.summary if self._is_new(layout.summary) else None
        board = self._board(summary)
        if summary:
            self._print(collect.summary_table(summary, board, width=self._progress.width or 0))
        if board:
            self._print(*leaderboard.report(layout.verdict))
        elif self._is_new(layout.pairing):
            self._print(*reference.load(layout.pairing).report)
        failures = collect.failures(summary) if summary else []
        for line in failures:
            logger.error(f"dailies: {line}" if line == failures[0] else f"  {line}")
        if summary:
            self._report_models(summary, board)
        if self._invocation.settings.compare and layout.page.is_file() and (summary or self._is_new(layout.page)):
            self._print(f"Compare the models: open {layout.page}")
        if self._invocation.settings.compare and (newer := shown_together.newer_than_page(layout)):
            self._invocation.warn(
                f"the page does not show {', '.join(newer)} as it is now, because the target left it out; "
                "run snakemake without a target"
            )
        if failures:
            self._invocation.fail(failures[0])

    def _board(self, summary: Path | None) -> Leaderboard | None:
        """Return the leaderboard if it is new, or if a new summary has its ranks."""
        path = self._layout.verdict
        is_used = summary is not None and any(line.rank for line in load_all(SummaryLine, summary))
        return Leaderboard.load(path) if self._is_new(path) or (is_used and path.is_file()) else None

    def _report_models(self, summary: Path, board: Leaderboard | None) -> None:
        layout = self._layout
        self._print(report.counts(layout))
        if warning := DiscoveryIndex.load(layout.index).warning:
            self._invocation.warn(warning)
        if gone := collect.left_behind(layout):
            self._print(f"No longer selected, their frames stay where they are: {', '.join(gone)}")
        if substituted := collect.substituted(summary):
            self._invocation.warn(substituted)
        first = board.ranking.models[0].model if board and board.ranking else "<model>"
        title = "Frames" if first == "<model>" else "Frames of the first"
        self._print(f"{title}: {layout.frames(first)}/; all models in one file: {summary}")

    def _print(self, *lines: str) -> None:
        for line in lines:
            logger.log(RESULT, line)

    def report_interruption(self) -> None:
        """Print where the reason is logged; with ``--quiet all``, which hides it, print the reason itself."""
        self._progress.close()
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
