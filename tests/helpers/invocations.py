"""Invocations of snakemake, each a process of its own, forked from one that has imported Snakemake and MLflow.

Importing them takes longer than most invocations in tests do. Nothing of Dailies is imported before the fork.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

PRELOADED = ["snakemake.cli", "mlflow", "mlflow.store.tracking.sqlalchemy_store"]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Become what ``python -m snakemake`` in a folder and an environment is; print to a file."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in environment
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder, *filter(None, paths), *installed]
    sys.argv[1:] = arguments
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


class Invocation:
    """A running snakemake, the leader of a process group; what tests use of ``subprocess.Popen``."""

    def __init__(self, arguments: list[str], folder: Path, environment: Mapping[str, str], log: Path | None) -> None:
        """Start it; what it prints goes to the file ``log``, else into ``stdout``."""
        if log is None:
            log = Path(tempfile.mkdtemp(prefix="snakemake-", dir=folder.parent)) / "printed"
        log.touch()
        self.stdout = log.open()
        details = arguments, str(folder.resolve()), dict(environment), str(log)
        self._process = _context().Process(target=_run, args=details)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("snakemake", timeout)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; return what it printed."""
        self.wait(timeout)
        with self.stdout:
            return self.stdout.read(), None
