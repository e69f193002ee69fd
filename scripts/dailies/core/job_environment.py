"""The environment of a job that computes on frames: without credentials, and tuned for large arrays on a CPU."""

import logging
import os
import sys
from contextlib import suppress
from typing import NoReturn

from dailies.core import fork_server
from dailies.core.credentials import without_credentials

MALLOC_THRESHOLD = 2**32
"""Bytes below which the C library keeps freed memory for the next array instead of returning it to the system."""

TUNING = {
    "GLIBC_TUNABLES": (
        f"glibc.malloc.mmap_threshold={MALLOC_THRESHOLD}:glibc.malloc.trim_threshold={MALLOC_THRESHOLD}"
        # without it, a thread returns each array to the system and clears new memory for the next
        ":glibc.malloc.arena_max=1"
    ),
    # by default torch's threads spin while they wait: one render was 50 times slower beside another program
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Variables that are set unless the user has set them; docs/benchmarks.md holds the measurements."""

BESIDE_RENDERS = 10
"""The niceness of jobs that measure: beside a render they get about a tenth of a core."""

SPARE_CORES = "DAILIES_SPARE_CORES"
"""The variable that is not empty if jobs may use cores that are idle, in addition to their own."""

PREPARED = "DAILIES_PREPARED"
"""The variable that holds the id of the prepared process; a process keeps its id when it restarts itself."""


def of_jobs() -> dict[str, str]:
    """Return the variables that a job that computes on frames sees: tuned, and without credentials."""
    return TUNING | without_credentials(os.environ)


def tune(*, cores: int | None = None) -> None:
    """Set the variables of ``TUNING`` for the programs that this process starts, unless the user has set them.

    If jobs may use several ``cores`` of this machine, they may also use those that are idle.
    """
    spare = {SPARE_CORES: "yes"} if cores and cores > 1 else {}
    os.environ.update(TUNING | spare | os.environ)


def may_use_spare_cores() -> bool:
    """Return whether this job may use cores that are idle."""
    return bool(os.environ.get(SPARE_CORES))


def prepare() -> None:
    """Restart the running script once, if its environment is not fit to load and run foreign models.

    If there is a fork server, it runs the script instead. Otherwise, a restart is necessary because the C library and
    OpenMP read their variables at start-up, and because the system shows other programs the environment that a process
    started with.
    """
    if os.environ.get(PREPARED) == str(os.getpid()):
        return
    wanted = of_jobs()
    fork_server.hand_over(wanted, process_variable=PREPARED)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted | {PREPARED: str(os.getpid())})


def yield_to_renders() -> None:
    """Lower the priority of this process: a render that runs beside it keeps its device busy."""
    with suppress(OSError):  # some containers forbid it
        os.nice(BESIDE_RENDERS)


def leave() -> NoReturn:
    """End the process successfully and at once.

    Everything has to be written by then. A normal shutdown with torch loaded takes a third of a second of CPU time.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
