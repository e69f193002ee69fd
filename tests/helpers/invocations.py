"""Invocations of snakemake and their jobs, each a process of its own, forked from one that has imported the libraries.

Importing Snakemake, MLflow and torch takes longer than most invocations and jobs in tests do. Nothing of Dailies is
imported before a fork.
"""

import atexit
import multiprocessing
import os
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

PRELOADED = ["snakemake.cli", "mlflow", "mlflow.store.tracking.sqlalchemy_store", "torch", "OpenImageIO", "av"]


@cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _run(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Become what ``python -m snakemake`` in a folder and an environment is; print to a file."""
    os.setpgid(0, 0)
    _become_new_python(folder, environment, output)
    sys.path.insert(0, folder)
    sys.argv[1:] = arguments
    _fork_jobs(folder, output)
    try:
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _become_new_python(folder: str, environment: Mapping[str, str], output: str) -> None:
    """Give this process the folder, the environment and the search path that a new Python would have."""
    os.chdir(folder)
    _set_environment(environment)
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in environment
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _set_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _fork_jobs(folder: str, output: str) -> None:
    """Let the snakemake of this process fork the scripts of its jobs instead of starting a Python for each."""
    import snakemake.script  # noqa: F401

    def popen(command: str, *, env: Mapping[str, str], **options: Any) -> "subprocess.Popen | _Job":
        *_, python, script = shlex.split(command)
        if python != sys.executable:
            return subprocess.Popen(command, env=env, **options)
        return _Job(script, folder, dict(env), output)

    sys.path.append(str(Path(__file__).parents[1]))  # where a job finds this module before it has a path of its own
    forkserver._forkserver.ensure_running = lambda: None  # jobs are forked from the server that this process is from
    sys.modules["snakemake.shell"].sp = SimpleNamespace(**vars(subprocess) | {"Popen": popen})


class _Job:
    """The running script of a job; what Snakemake uses of ``subprocess.Popen``."""

    def __init__(self, *arguments: Any) -> None:
        process = _context().Process(target=_run_script, args=(*arguments, os.getpgrp()))
        # not process.start(): whichever thread starts a process also waits for those of the others
        self._running = process._Popen(process)
        self.pid = self._running.pid

    def wait(self) -> int:
        return self._running.wait()

    def terminate(self) -> None:
        self._running.terminate()

    def kill(self) -> None:
        self._running.kill()


def _run_script(script: str, folder: str, environment: dict[str, str], output: str, group: int) -> None:
    """Become what ``python script`` is, in the process group of snakemake."""
    os.setpgid(0, group)
    _become_new_python(folder, environment, output)
    sys.path.insert(0, str(Path(script).parent))
    sys.argv[:] = [script]
    sys.orig_argv[:] = [sys.executable, script]

    def execve(path: str, arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
        assert [path, *arguments] == [sys.executable, *sys.orig_argv]
        _set_environment(environment)
        runpy.run_path(script, run_name="__main__")
        sys.exit()

    os.execve = execve
    runpy.run_path(script, run_name="__main__")


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
