"""A real SLURM cluster on one machine: munge, a controller and virtual nodes, on loopback alone.

Run as root: python tests/slurm/cluster.py [--install] -- COMMAND...    runs a command with the cluster up

Everything lives in one folder of its own. Snakemake's job step removes SLURM_CONF from the environment,
so /etc/slurm/slurm.conf must exist: it becomes a link, and a file that stands there already is left alone
and ends the matter. The daemons are children of this process and end with it, killed or not.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
SYSTEM_CONF = Path("/etc/slurm/slurm.conf")
CONF = """
ClusterName=nanouptake
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={top}/munge/socket
CredType=cred/munge
MpiDefault=none
# Without cgroups: containers cannot delegate them.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={top}/jobs.log
SchedulerParameters=batch_sched_delay=1,sched_interval=3,bf_interval=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
# A node may claim more than the machine has.
SlurmdParameters=config_overrides
DefMemPerCPU=500
KillWait=5
ReturnToService=2
StateSaveLocation={top}/state
SlurmdSpoolDir={top}/spool-%n
SlurmctldPidFile={top}/slurmctld.pid
SlurmdPidFile={top}/slurmd-%n.pid
"""


def missing() -> list[str]:
    """Return the programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


def install() -> None:
    """Install Debian's packages."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        subprocess.run([*apt, *words], check=True, env=env, stdout=subprocess.DEVNULL)


def write_configuration(top: Path, *, nodes: int, cpus: int, memory_mb: int, port: int) -> Path:
    """Write slurm.conf and munge's key; return the former's path."""
    host = socket.gethostname().split(".")[0]
    lines = [CONF.format(host=host, port=port, top=top)]
    for n in range(1, nodes + 1):
        (top / f"spool-n{n}").mkdir()
        lines.append(
            f"NodeName=n{n} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + n} CPUs={cpus} "
            f"RealMemory={memory_mb} State=UNKNOWN"
        )
    lines.append(f"PartitionName=main Nodes=n[1-{nodes}] Default=YES DefaultTime=60 MaxTime=1440 State=UP")
    for name in ("munge", "state", "etc"):
        (top / name).mkdir(mode=0o711 if name == "munge" else 0o755)
    key = top / "munge/key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    (top / "etc/cgroup.conf").write_text("CgroupAutomount=no\n")
    conf = top / "etc/slurm.conf"
    conf.write_text("\n".join(lines) + "\n")
    return conf


def wait_for_nodes(nodes: int, *, seconds: float) -> None:
    """Wait until every node takes jobs and a job has run on every one; TimeoutError with SLURM's words."""
    end = time.monotonic() + seconds
    while True:
        said = subprocess.run(["sinfo", "-hN", "-o", "%T"], capture_output=True, text=True, check=False)
        if said.stdout.split().count("idle") == nodes:
            break
        if time.monotonic() > end:
            raise TimeoutError(f"nodes are not up after {seconds:.0f} s: {said.stdout}{said.stderr}")
        time.sleep(0.5)
    subprocess.run(
        ["srun", "-Q", f"-N{nodes}", f"-n{nodes}", "-t1", "--mem=10", "true"], check=True, timeout=60
    )


@contextmanager
def cluster(*, nodes: int = 2, cpus: int = 2, memory_mb: int = 16000, port: int = 16817) -> Iterator[Path]:
    """Bring the cluster up; yield its folder, where jobs.log lists the jobs; stop what was started."""
    if os.geteuid():
        raise PermissionError("SLURM's daemons need root")
    if SYSTEM_CONF.is_symlink() and not SYSTEM_CONF.exists():
        SYSTEM_CONF.unlink()  # the link of a cluster that was killed
    if SYSTEM_CONF.exists():
        raise FileExistsError(f"{SYSTEM_CONF} exists: this machine has a SLURM already, which is left alone")
    top = Path(tempfile.mkdtemp(prefix="slurm-"))
    top.chmod(0o755)
    daemons: list[subprocess.Popen] = []

    def start(*words: str) -> None:
        with (top / "daemons.log").open("ab") as log:
            daemons.append(
                subprocess.Popen(
                    ["setpriv", "--pdeathsig", "TERM", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    try:
        conf = write_configuration(top, nodes=nodes, cpus=cpus, memory_mb=memory_mb, port=port)
        SYSTEM_CONF.parent.mkdir(parents=True, exist_ok=True)
        SYSTEM_CONF.symlink_to(conf)
        munge = {
            "key-file": "key",
            "socket": "socket",
            "pid-file": "pid",
            "log-file": "log",
            "seed-file": "seed",
        }
        start("munged", "-F", "--force", *[f"--{k}={top}/munge/{v}" for k, v in munge.items()])
        while not (top / "munge/socket").exists() and daemons[0].poll() is None:
            time.sleep(0.1)
        start("slurmctld", "-D", "-f", str(conf))
        for n in range(1, nodes + 1):
            start("slurmd", "-D", "-f", str(conf), "-N", f"n{n}")
        try:
            wait_for_nodes(nodes, seconds=60)
        except (TimeoutError, subprocess.SubprocessError):
            print((top / "daemons.log").read_text()[-4000:], file=sys.stderr)
            raise
        yield top
    finally:
        if SYSTEM_CONF.is_symlink():
            subprocess.run(["scancel", "--user=root"], check=False, timeout=10, capture_output=True)
            end = time.monotonic() + 10
            while (
                time.monotonic() < end
                and subprocess.run(["squeue", "-h"], capture_output=True, check=False, timeout=10).stdout
            ):
                time.sleep(0.5)
            SYSTEM_CONF.unlink()
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(top, ignore_errors=True)


def main() -> int:
    """Install where asked, then run the command with the cluster up."""
    words = sys.argv[1:]
    if words[:1] == ["--install"]:
        words = words[1:]
        if missing():
            install()
    if words[:1] == ["--"]:
        words = words[1:]
    with cluster():
        return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
