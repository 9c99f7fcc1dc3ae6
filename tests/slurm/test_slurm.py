"""The tiny trial through a real SLURM cluster on this machine gives the bytes of the local run."""

import os
import re
import signal
import subprocess
import time

import pytest

import tiny_trial
from slurm import cluster

pytestmark = pytest.mark.slurm
PROFILE = str(tiny_trial.ROOT / "profiles/slurm")
HASTE = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]


@pytest.fixture(scope="module")
def slurm():
    if os.geteuid() or cluster.missing():
        pytest.skip(f"NO SLURM TEST: it needs root and {', '.join(cluster.PACKAGES)} (make test-slurm)")
    with cluster.cluster() as top:
        yield top


def jobs(top):
    """Return name, state, minutes allowed, memory and exit code of every job that ended, oldest first."""
    lines = (top / "jobs.log").read_text().splitlines()
    found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
    return sorted((job for job in found if job["Name"] != "true"), key=lambda job: int(job["JobId"]))


def cancel_one() -> None:
    """Cancel the first job that runs, a few seconds after it has begun."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        running = subprocess.run(
            ["squeue", "-ht", "R", "-o", "%i"], capture_output=True, text=True, check=True
        )
        if running.stdout:
            time.sleep(3)
            subprocess.run(["scancel", running.stdout.split()[0]], check=True)
            return
        time.sleep(0.5)
    raise TimeoutError("no job began")


def memory_mb(job):
    return int(re.search(r"mem=(\d+)M", job["Tres"])[1])


def test_slurm_gives_the_bytes_of_the_local_run(slurm, undisturbed, tmp_path):
    """One patient's job is cancelled, as by a node that fails, and tried again with more memory."""
    study = tiny_trial.copy_inputs(undisturbed, tmp_path / "study")
    start = time.monotonic()
    words = ["--profile", PROFILE, *HASTE, "--default-resources", "slurm_account=trial"]
    process = tiny_trial.start(study, *words, cores=None)
    try:
        cancel_one()
        status = process.wait(timeout=600)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert status == 0, (study / "run.log").read_text()[-4000:]
    print(f"\n{time.monotonic() - start:.0f} s")
    ran = jobs(slurm)
    for job in ran:
        print(*[job[k] for k in ("JobId", "JobState", "Account", "Tres", "StartTime", "EndTime")])
    states = [job["JobState"] for job in ran]
    assert sorted(states) == ["CANCELLED", *["COMPLETED"] * 3]  # two patients, the cohort
    lost = memory_mb(ran[states.index("CANCELLED")])
    assert sum(memory_mb(job) >= 2 * lost for job in ran) == 1
    assert {job["Account"] for job in ran} == {"trial"}
    assert tiny_trial.differences(tiny_trial.results(undisturbed), tiny_trial.results(study)) == []
    assert "Nothing to be done" in tiny_trial.run(study, "--profile", PROFILE, "-n", cores=None)
