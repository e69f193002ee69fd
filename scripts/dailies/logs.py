"""One log file per job, whose last line says in words why a failed job failed."""

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from dailies.errors import DailiesError

LINE = "%(asctime)s %(levelname)-7s %(message)s"


@contextmanager
def job_log(path: str) -> Iterator[logging.Logger]:
    """Send logging, warnings and everything printed to ``path`` while the block runs.

    A DailiesError ends the job with exit code 1 and its own text as the log's last line; any other exception
    leaves its traceback before that line.
    """
    with open(path, "w", encoding="utf-8", errors="backslashreplace", buffering=1) as file:  # noqa: PTH123
        stdout, stderr = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = file
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter(LINE))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        logging.captureWarnings(True)
        try:
            yield logging.getLogger("dailies")
        except DailiesError as error:
            file.write(f"failed: {error}\n")
            raise SystemExit(1) from None
        except Exception as error:
            file.write(traceback.format_exc())
            file.write(f"failed: {type(error).__name__}: {error}\n")
            raise SystemExit(1) from None
        finally:
            logging.captureWarnings(False)
            root.removeHandler(handler)
            sys.stdout, sys.stderr = stdout, stderr
