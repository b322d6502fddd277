"""A Slurm of one node on this machine, for the tests: `with OneNode(folder) as node`. As root on Debian only.

Jobs of the partition `high` pre-empt those of `low` (the default), which go back into the queue; `gpus` has a node that
is down and would have 4 GPUs. Everything, munge's key and socket included, lies below the folder; no service of the
system is touched. A requeued job may start again after seconds, not the usual two minutes (cred_expire).
"""
from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

CPUS = 2
_DAEMONS = ("munged", "slurmctld", "slurmd")
_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
ReturnToService=2
KillWait=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
NodeName=elsewhere NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 Gres=gpu:4 State=DOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=gpus Nodes=elsewhere MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why no Slurm can run here, after an attempt to install it; "" where it can."""
    if os.getuid() != 0 or not Path("/etc/debian_version").exists():
        return "a Slurm for the tests is started as root on Debian"
    if _missing():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]):
            try:
                done = subprocess.run(["apt-get", "-qq", *words], env=environment, text=True, capture_output=True,
                                      timeout=900)
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"apt cannot install slurm-wlm here: {error}"
            if done.returncode:
                return f"apt cannot install slurm-wlm here: {(done.stderr or done.stdout).strip()[-300:]}"
    return f"slurm-wlm brings no {', '.join(_missing())}" if _missing() else ""


def _missing() -> list[str]:
    return [name for name in (*_DAEMONS, "sbatch", "srun", "squeue") if shutil.which(name) is None]


class OneNode:
    """Runs from `__enter__` to `__exit__`, which also ends every job. Commands find it by `environment`.

    Raises:
        RuntimeError: from `__enter__`; a daemon does not come up.
    """

    def __init__(self, folder: Path):
        self.folder, self.host = folder, socket.gethostname().partition(".")[0]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> OneNode:
        for name in ("state", "spool", "munge"):
            (self.folder / name).mkdir(parents=True)
        self.folder.joinpath("gres.conf").write_text("NodeName=elsewhere Name=gpu Count=4\n")
        self.folder.joinpath("slurm.conf").write_text(
            _CONF.format(host=self.host, folder=self.folder, ports=_free_ports(3), cpus=CPUS))
        try:
            self._start_munge()
            self.start_controller()
            self._start("slurmd")
            self._until("the node takes jobs", lambda: self.slurm("sinfo", "-h", "-p", "low", "-o", "%T") == "idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            if self._alive("slurmctld"):
                self.slurm("scancel", "--user", "root")
                self._until("every job has ended", lambda: not self.slurm("squeue", "-h"))
        finally:
            for name in reversed(_DAEMONS):
                self._stop(name)

    def start_controller(self) -> None:
        self._start("slurmctld")
        self._until("slurmctld answers", lambda: self.takes("scontrol", "ping"))

    def stop_controller(self) -> None:
        self._stop("slurmctld")

    def slurm(self, *words: str) -> str:
        """What a command of Slurm prints."""
        done = self._call(words)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def takes(self, *words: str) -> bool:
        """Whether a command of Slurm succeeds."""
        return self._call(words).returncode == 0

    def _call(self, words: tuple[str, ...]) -> subprocess.CompletedProcess:
        return subprocess.run(words, env={**os.environ, **self.environment}, text=True, capture_output=True,
                              timeout=120)

    def _start_munge(self) -> None:
        folder = self.folder / "munge"
        (folder / "key").write_bytes(secrets.token_bytes(128))
        (folder / "key").chmod(0o400)
        subprocess.run(["munged", "--force", f"--key-file={folder}/key", f"--socket={folder}/socket",
                        f"--pid-file={folder}/pid", f"--log-file={folder}/log", f"--seed-file={folder}/seed"],
                       check=True, timeout=60)

    def _start(self, name: str) -> None:
        subprocess.run([name], env={**os.environ, **self.environment}, check=True, timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _stop(self, name: str) -> None:
        if self._alive(name):
            os.kill(int(self._pid_file(name).read_text()), signal.SIGTERM)
            self._until(f"{name} has ended", lambda: not self._alive(name))

    def _pid_file(self, name: str) -> Path:
        return self.folder / "munge" / "pid" if name == "munged" else self.folder / f"{name}.pid"

    def _alive(self, name: str) -> bool:
        try:
            return Path(f"/proc/{int(self._pid_file(name).read_text())}/comm").read_text().strip() == name
        except (OSError, ValueError):
            return False

    def _until(self, what: str, true) -> None:
        end = time.monotonic() + 60
        while not true():
            if time.monotonic() > end:
                raise RuntimeError(f"One minute, and it is not so that {what}: {self.folder}/*.log say why.")
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
