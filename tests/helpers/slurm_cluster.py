"""A real Slurm of several nodes on one machine, from Debian's packages: every node a slurmd, every GPU a device file.

No systemd and no cgroups are needed, so it runs in a container; root is, and the packages are installed when missing.
"""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from filelock import FileLock

PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client", "munged": "munge"}
"""Debian's package of each program."""

FOLDER = Path("/tmp/dailies-slurm")
"""One on a machine: what a killed session left behind is found again. Short, for the path of a socket."""

SYSTEM = Path("/etc/slurm/slurm.conf")
"""Where programs look that do not know SLURM_CONF: the executor's job step drops every variable of that kind."""

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
MailProg=/bin/true
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=5,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=1
MinJobAge=3600
KillWait=2
OverTimeLimit=0
InactiveLimit=0
SlurmctldTimeout=60
SlurmdTimeout=60
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName=DEFAULT CPUs=8 RealMemory=16000 Gres=gpu:fake:1 State=UNKNOWN
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=100 State=UP
"""


class Cluster:
    """Two nodes, ``n1`` and ``n2``, with 8 processors and one GPU, of type ``fake``, each; no accounting."""

    nodes = ("n1", "n2")

    def __init__(self) -> None:
        self.environment = {"SLURM_CONF": str(FOLDER / "slurm.conf")}
        """What a program needs to know this cluster."""
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        """Start every daemon, wait until both nodes are idle; raises RuntimeError with the logs else."""
        _sweep()
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir()
        (FOLDER / "state").mkdir(mode=0o700)
        self._configure()
        munge = f"--socket={FOLDER}/munge.socket --pid-file={FOLDER}/munged.pid --log-file={FOLDER}/munged.log"
        key = f"--key-file={FOLDER}/munge.key --seed-file={FOLDER}/munge.seed"
        self._launch("munged", "--foreground", "--force", *munge.split(), *key.split())
        self._wait("munge", "-n", "-S", f"{FOLDER}/munge.socket")
        self._launch("slurmctld", "-D", "-f", f"{FOLDER}/slurm.conf")
        self._wait("scontrol", "ping")
        for node in self.nodes:
            (FOLDER / f"spool-{node}").mkdir()
            self._launch("slurmd", "-D", "-f", f"{FOLDER}/slurm.conf", "-N", node)
        self._wait("sh", "-c", f"[ $(sinfo -h -N -t idle -o %N | wc -l) = {len(self.nodes)} ]")

    def stop(self) -> None:
        """End every job and every daemon, and what a job may have left running."""
        with contextlib.suppress(subprocess.SubprocessError):
            self("scancel", "--partition=main")
            self._wait("sh", "-c", '[ -z "$(squeue -h)" ]', seconds=20)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        _sweep()
        if _ours():
            SYSTEM.unlink()

    def __call__(self, *command: str) -> str:
        """Run one of Slurm's programs and give what it prints; raises CalledProcessError."""
        environment = os.environ | self.environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def jobs(self) -> dict[int, Mapping[str, str]]:
        """Every job there was, by its number: its state, node, memory asked for, comment and reason."""
        fields = {"state": "%T", "node": "%N", "memory": "%m", "comment": "%k", "reason": "%r"}
        lines = self("squeue", "--states=all", "-h", "-o", "|".join(["%i", *fields.values()])).splitlines()
        rows = (line.split("|") for line in lines)
        return {int(row[0]): dict(zip(fields, row[1:], strict=True)) for row in rows}

    def _configure(self) -> None:
        host = socket.gethostname().partition(".")[0]
        nodes = [f"NodeName={n} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()}" for n in self.nodes]
        text = CONFIGURATION.format(host=host, port=_free_port(), folder=FOLDER, nodes="\n".join(nodes))
        (FOLDER / "slurm.conf").write_text(text)
        (FOLDER / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        # a twin of /dev/null: with an ordinary file CUDA_VISIBLE_DEVICES stays unset
        os.mknod(FOLDER / "gpu0", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (FOLDER / "gres.conf").write_text(f"Name=gpu Type=fake File={FOLDER}/gpu0\n")
        key = FOLDER / "munge.key"
        key.touch(mode=0o400)
        key.write_bytes(os.urandom(1024))
        SYSTEM.parent.mkdir(exist_ok=True)
        if _ours():
            SYSTEM.unlink()
        SYSTEM.symlink_to(FOLDER / "slurm.conf")

    def _launch(self, program: str, *arguments: str) -> None:
        """Start a daemon that ends with this process, however this ends."""
        with (FOLDER / f"{program}.err").open("ab") as log:
            self._daemons[f"{program} {arguments[-1]}"] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, *arguments],
                env={"PATH": _path(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, *command: str, seconds: float = 60) -> None:
        """Wait until a command succeeds."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            with contextlib.suppress(subprocess.SubprocessError):
                self(*command)
                return
            time.sleep(0.1)
        logs = "\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in sorted(FOLDER.glob("*.log")))
        raise RuntimeError(f"{' '.join(command)} does not succeed; {logs}")


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Run the cluster of this machine, of which there is one at a time: others wait."""
    with FileLock("/tmp/dailies-slurm.lock"):
        cluster = Cluster()
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def obstacle() -> str | None:
    """Install Slurm's packages where they are missing; say why there can be no cluster here, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if SYSTEM.exists() and not _ours():
        return f"{SYSTEM} is this machine's own"
    os.environ["PATH"] = _path()
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not missing:
        return None
    if not shutil.which("apt-get"):
        return f"the packages {', '.join(missing)} are not installed, and there is no apt-get"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        with FileLock("/tmp/dailies-apt.lock"):
            done = subprocess.run(
                ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            return f"apt-get {command[0]} failed: {(done.stderr.strip().splitlines() or ['without a word'])[-1]}"
    return None


def _path() -> str:
    """Where programs are, those for root too."""
    folders = os.environ["PATH"].split(":")
    return ":".join(folders + [folder for folder in ("/usr/sbin", "/sbin") if folder not in folders])


def _ours() -> bool:
    """Whether the machine's configuration is this cluster's, of now or of a session that was killed."""
    return SYSTEM.is_symlink() and SYSTEM.readlink() == FOLDER / "slurm.conf"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def _sweep() -> None:
    """Kill whatever knows this cluster: what jobs left running, and all of a session that was killed."""
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            known = f"SLURM_CONF={FOLDER}/slurm.conf".encode() in place.read_bytes().split(b"\0")
            if known and int(place.parent.name) != os.getpid():
                os.kill(int(place.parent.name), signal.SIGKILL)
