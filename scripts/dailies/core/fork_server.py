"""The fork server: a process that has imported what jobs need, and forks a copy of itself for each of them.

Importing torch takes longer than a GPU needs for dozens of frames. Snakemake starts a Python for each job; that process
hands its job over to the server, waits, and ends as the job did.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ADDRESS = "DAILIES_FORK_SERVER"
"""The variable with the name of the server's socket. Jobs inherit it from the invocation that started the server.

If the user sets it, for instance to an empty string, no server is started.
"""

PROGRAM = """
import sys
sys.path[:] = [sys.argv[1], *filter(None, sys.path)]
from dailies.core import fork_server
fork_server.main()
"""

SHARED_MEMORY = Path("/dev/shm")
"""The parent of each server's shared folder, where jobs cache data that is expensive to compute again."""

ENDINGS = (signal.SIGTERM, signal.SIGHUP)
"""Signals that reach all processes of an invocation at once, for instance when its terminal is closed.

The server ignores them: it ends, and deletes its folder, when the process that started it has ended.
"""

WAITING_JOBS = 64
"""How many jobs may wait to be accepted, for instance while the server is still importing."""


def is_wanted() -> bool:
    """Return whether this system supports it, and the user did not set ``ADDRESS``.

    On macOS, libraries may not work after a fork.
    """
    return sys.platform == "linux" and hasattr(os, "pidfd_open") and ADDRESS not in os.environ


def start(modules: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """Start a server for the jobs that this process starts from now on; it ends when this process does.

    Return the process of the server.

    Args:
        modules: what the server imports. A module must not start threads or use a device when it is imported.
        environment: the server's initial environment. /proc shows it for every forked job, so it must hold no
            credentials.
    """
    name = f"dailies-{secrets.token_hex(16)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_address(name))
        listener.listen(WAITING_JOBS)
        os.set_inheritable(listener.fileno(), True)
        scripts = Path(__file__).parents[2]
        server = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(scripts), str(listener.fileno()), name, *modules],
            stdin=subprocess.PIPE,  # closed by the system when this process ends, however it ends
            pass_fds=[listener.fileno()],
            env=dict(environment),
        )
    os.environ[ADDRESS] = name
    return server


def shared_folder() -> Path | None:
    """Return a folder in memory that is deleted when the server ends; None if there is no server."""
    name = os.environ.get(ADDRESS)
    folder = SHARED_MEMORY / name if name else None
    return folder if folder and folder.is_dir() else None


def _address(name: str) -> str:
    """Return an abstract socket address: it has no file that a killed server could leave behind."""
    return f"\0{name}"


def hand_over(environment: Mapping[str, str], *, process_variable: str) -> None:
    """Let the server run the script of this process, and end as it does. Return if there is no server.

    Args:
        environment: the variables that the script is to see.
        process_variable: a further variable, which will hold the id of the process that runs the script.
    """
    if not os.environ.get(ADDRESS):
        return
    request = {"script": sys.argv[0], "environment": dict(environment), "process_variable": process_variable}
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the job as well, which decides
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):  # if the server has ended
        connection.connect(_address(os.environ[ADDRESS]))
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        answers = connection.makefile()
        if answers.readline():  # the job has started
            try:
                code = int(answers.readline() or 1)
            except OSError:
                code = 1
            _end_with(code)
    signal.signal(signal.SIGINT, on_interrupt)


def _end_with(code: int) -> None:
    """End this process with an exit code, or by the signal that a negative one stands for."""
    if code < 0:
        with suppress(OSError):  # SIGKILL has no other effect
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def main() -> None:
    """Run the server: import the modules, then fork for each job until the process that started it has ended."""
    _, _, descriptor, name, *modules = sys.argv
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDINGS}
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server, folder = os.getpid(), _make_shared_folder(name)
    try:
        with socket.socket(fileno=int(descriptor)) as listener:
            for module in modules:
                importlib.import_module(module)
            gc.freeze()  # else the first collection in a job copies all memory
            while listener in select.select([listener, sys.stdin], [], [])[0]:
                connection, _ = listener.accept()
                if _user_of(connection) == os.getuid() and not os.fork():
                    for number, handler in handlers.items():
                        signal.signal(number, handler)
                    listener.close()
                    _attend(connection)
                    return
                connection.close()
    finally:
        if os.getpid() == server:  # not a job
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)  # a normal shutdown with torch loaded takes a third of a second


def _make_shared_folder(name: str) -> Path:
    """Make the shared folder of this server, and delete those of servers that were killed, once their jobs have ended.

    The lock on a folder belongs to the server and to all of its jobs.
    """
    for abandoned in SHARED_MEMORY.glob("dailies-*"):
        with suppress(OSError):  # it is another user's, or still locked
            lock = os.open(abandoned, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # a pipe would block
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(abandoned)
            finally:
                os.close(lock)
    folder = SHARED_MEMORY / name
    with suppress(OSError):  # jobs then share nothing
        folder.mkdir(mode=0o700)
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    return folder


def _user_of(connection: socket.socket) -> int:
    """Return the id of the user whose process is at the other end."""
    credentials = struct.Struct("3i")
    _, user, _ = credentials.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size))
    return user


def _attend(connection: socket.socket) -> None:
    """Fork a job, and report how it ended. If the process that handed it over ends first, so does the job."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile() as lines:
        request = json.loads(lines.readline())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    job = os.fork()
    if not job:
        connection.close()
        _run(descriptors, **request)
        return
    with suppress(OSError):  # it has ended already
        connection.sendall(b"started\n")
    ended = os.pidfd_open(job)
    if ended not in select.select([connection.fileno(), ended], [], [])[0]:
        os.kill(job, signal.SIGTERM)
    _, status = os.waitpid(job, 0)
    with suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _run(descriptors: Sequence[int], *, script: str, environment: Mapping[str, str], process_variable: str) -> None:
    """Become what a new Python that runs the script would be."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    atexit.register(gc.unfreeze)  # else OpenImageIO complains that its objects still exist
    os.environ.clear()
    os.environ.update(environment)
    os.environ[process_variable] = str(os.getpid())
    sys.argv[:] = [script]
    sys.path[0] = str(Path(script).parent)
    runpy.run_path(script, run_name="__main__")
