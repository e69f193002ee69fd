"""The environment of a job that renders: without credentials, and with what makes torch fast on a CPU."""

import os
import sys

from dailies.core.credentials import without_credentials

KEPT = 2**32
"""Bytes up to which the C library keeps memory for the next layer, instead of giving it back and asking again."""

SPEED = {
    "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={KEPT}:glibc.malloc.trim_threshold={KEPT}",
    # torch's threads wait by spinning: beside another program one render was 50 times slower, alone none was faster
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""What is set unless the user has set it: docs/benchmarks.md has the figures."""

PREPARED = "DAILIES_PREPARED"
"""The process that was prepared, by its number, which it keeps when it starts again."""


def prepare() -> None:
    """Start this very script again, once, where its environment is not the one to load and run foreign models in.

    It has to start again: the C library and OpenMP read theirs at the start, and the system shows the first one.
    """
    if os.environ.get(PREPARED) == str(os.getpid()):
        return
    wanted = SPEED | without_credentials(os.environ)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted | {PREPARED: str(os.getpid())})
