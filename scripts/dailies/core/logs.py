"""One log file per job, whose last line says in words why a failed job failed."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import TextIOWrapper
from pathlib import Path

from dailies.core.errors import DailiesError
from dailies.core.text import plain

FAILED = "failed: "
"""How the last line of a failed job's log begins."""

LINE = "%(asctime)s %(levelname)-7s %(message)s"


class _Log(TextIOWrapper):
    """A log that is safe to show in a terminal, whatever the programs and stores that speak in it say."""

    def write(self, text: str) -> int:
        """Write a text without control characters."""
        super().write(plain(text))
        return len(text)


class Errors(logging.Handler):
    """Prints errors, and nothing else, where Snakemake prints nothing at all."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record that holds words; some of Snakemake's are for its own formatter."""
        if record.msg:
            print(plain(record.getMessage()), file=sys.stderr)


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Send logging, warnings and everything printed to ``path`` while the block runs.

    A DailiesError ends the job with exit code 1; the last line of the log is its message, with its code in brackets.
    Any other exception leaves its traceback before that line.
    """
    root = logging.getLogger()
    level = root.level
    with (
        _Log(Path(path).open("wb"), encoding="utf-8", line_buffering=True) as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter(LINE))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        try:
            yield
        except Exception as error:
            if isinstance(error, DailiesError):
                reason = f"{error} [{error.code}]" if error.code else str(error)
            else:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}"
            print(f"{FAILED}{reason}")
            raise SystemExit(1) from None
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
            root.setLevel(level)


def failures(folder: Path, *, since: float) -> list[str]:
    """Return how the logs of failed jobs end, of those written ``since`` a time, each after the name of its log."""
    found = []
    for path in sorted(folder.glob("*.log")):
        if path.stat().st_mtime >= since:
            last = (path.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[-1]
            if last.startswith(FAILED):
                found.append(f"{path.stem} failed: {last.removeprefix(FAILED)}")
    return found
