"""One log file per job; the last line of a failed job's log is the reason."""

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


@contextmanager
def job_log(path: str) -> Iterator[None]:
    """Write logging, warnings and everything printed to ``path`` while the block runs.

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
                reason = f"{error} [{error.code}]"
            else:
                traceback.print_exc()
                reason = f"{type(error).__name__}: {error}"
            print(f"{FAILED}{reason}")
            raise SystemExit(1) from None
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
            root.setLevel(level)


class _Log(TextIOWrapper):
    """A log file that is safe to print in a terminal, whatever programs and stores write to it."""

    def write(self, text: str) -> int:
        """Write a text with its control characters escaped."""
        super().write(plain(text))
        return len(text)


def failures(folder: Path, *, since: float) -> list[str]:
    """Return the reason of each failed job: ``<name of the log> failed: <reason>``.

    Only logs in ``folder`` that were written after ``since``, in seconds since 1970, are read.
    """
    found = []
    for path in sorted(folder.glob("*.log")):
        if path.stat().st_mtime >= since:
            last = (path.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[-1]
            if last.startswith(FAILED):
                found.append(f"{path.stem} failed: {last.removeprefix(FAILED)}")
    return found


class Errors(logging.Handler):
    """Prints errors to stderr, for invocations in which Snakemake prints nothing at all."""

    def __init__(self) -> None:
        super().__init__(level=logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record that has a message; some records of Snakemake are events for its own formatter."""
        if record.msg:
            print(plain(record.getMessage()), file=sys.stderr)
