"""The tiny trial through a real SLURM cluster on this machine gives the bytes of the local run."""

import os
import re
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


def test_slurm_gives_the_bytes_of_the_local_run(slurm, undisturbed, tmp_path):
    study = tiny_trial.copy_inputs(undisturbed, tmp_path / "study")
    start = time.monotonic()
    tiny_trial.run(study, "--profile", PROFILE, *HASTE, cores=None)
    print(f"\n{time.monotonic() - start:.0f} s")
    for job in jobs(slurm):
        print(job["JobId"], job["JobState"], job["Tres"], job["StartTime"], job["EndTime"])
    assert [job["JobState"] for job in jobs(slurm)] == ["COMPLETED"] * 3  # two patients, the cohort
    assert tiny_trial.differences(tiny_trial.results(undisturbed), tiny_trial.results(study)) == []
    again = tiny_trial.run(study, "--profile", PROFILE, *HASTE, "-n", cores=None)
    assert "Nothing to be done" in again
