"""The environment of a job that renders: without credentials, and with what makes torch fast on a CPU."""

import os
import re
import sys
from collections.abc import Mapping

NAMES = re.compile(
    r"passw|secret|token|credential|connection_string|access_?key|account_?key|api_?key|_sas$|^mlflow_tracking_username$",
    re.IGNORECASE,
)
"""Names of environment variables that hold a credential: MLflow's, and those of S3, Azure, Google and Databricks."""

IN_ADDRESS = re.compile(r"://[^/\s@]+@")
"""``user:password@`` in an address."""

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


def without_credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables of an environment that hold no credential."""
    return {name: value for name, value in environ.items() if not NAMES.search(name) and not IN_ADDRESS.search(value)}


def prepare() -> None:
    """Start this very script again, once, where its environment is not the one to load and run foreign models in.

    It has to start again: the C library and OpenMP read theirs at the start, and the system shows the first one.
    """
    if os.environ.get(PREPARED) == str(os.getpid()):
        return
    wanted = SPEED | without_credentials(os.environ)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], wanted | {PREPARED: str(os.getpid())})
