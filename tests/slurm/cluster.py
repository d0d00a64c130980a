"""A real Slurm of two virtual nodes on this machine, for the time of a test session. Needs root and Debian's packages.

apt-get install slurmctld slurmd slurm-client munge
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "srun", "sbatch", "munged", "setpriv")
NODES = {"n1": 16819, "n2": 16820}
CONFIGURATION = """\
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
MpiDefault=none
SlurmctldParameters=enable_configless
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=30
{nodes}
PartitionName=main Nodes=n1,n2 Default=YES State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here, if so."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "starting Slurm needs root on Linux"
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(absent)} (apt-get install slurmctld slurmd slurm-client munge)" if absent else None


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Environment in which `srun` and `sbatch` reach a fresh cluster whose state lies in `folder`."""
    processes: list[subprocess.Popen[bytes]] = []
    configuration = _write_configuration(folder)
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    try:
        if shutil.which("munge") and subprocess.run(["munge", "-n"], capture_output=True).returncode:
            processes.append(_start_munge())
        processes.append(_start(["slurmctld", "-D", "-f", str(configuration)], folder / "slurmctld.out"))
        for node in NODES:
            processes.append(_start(["slurmd", "-D", "-N", node, "-f", str(configuration)], folder / f"{node}.out"))
        _wait_until_idle(environment)
        yield environment
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], env=environment, capture_output=True)
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()


def _write_configuration(folder: Path) -> Path:
    host = socket.gethostname().split(".")[0]
    lines = [f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=1" for name, port in NODES.items()]
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    path = folder / "slurm.conf"
    path.write_text(CONFIGURATION.format(host=host, folder=folder, nodes="\n".join(lines)))
    return path


def _start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


def _start_munge() -> subprocess.Popen[bytes]:
    runtime = Path("/run/munge")
    runtime.mkdir(exist_ok=True)
    shutil.chown(runtime, "munge", "munge")
    process = subprocess.Popen(
        ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "munged", "--foreground"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, 20, "munge does not answer")
    return process


def _wait_until_idle(environment: dict[str, str]) -> None:
    def idle() -> bool:
        listed = subprocess.run(["sinfo", "-h", "-o", "%T %D"], env=environment, capture_output=True, text=True)
        return listed.stdout.split() == ["idle", str(len(NODES))]

    _until(idle, 60, "the nodes do not become idle")


def _until(condition, seconds: float, complaint: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(complaint)
        time.sleep(0.3)
