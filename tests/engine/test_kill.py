"""A run killed at random moments and started again ends with the bytes of an undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import tiny_trial

pytestmark = pytest.mark.study
KILLS = 20


def test_twenty_kills_leave_no_trace(undisturbed, tmp_path):
    study = tiny_trial.copy_inputs(undisturbed, tmp_path / "study")
    rng = random.Random(20)
    killed = 0
    for _ in range(200):
        process = tiny_trial.start(study, cores=2)
        try:
            process.wait(timeout=rng.uniform(1.0, 4.5))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            if killed == 1:
                assert "--unlock" in refused(study)
                tiny_trial.run(study, "--unlock")
            shutil.rmtree(study / ".snakemake/locks", ignore_errors=True)  # as --unlock does, in less time
        else:
            assert process.returncode == 0, (study / "run.log").read_text()[-4000:]
            if killed >= KILLS:
                break
            shutil.rmtree(study / "results")  # whole before the twentieth kill: once more from the start
        if killed == KILLS:
            tiny_trial.run(study, cores=2)
            break
    assert killed == KILLS
    assert tiny_trial.differences(tiny_trial.results(undisturbed), tiny_trial.results(study)) == []
    assert not list((study / "results").rglob("*.part"))


def refused(study: Path) -> str:
    """Start a run that must end at once; return what it says."""
    before = (study / "run.log").stat().st_size
    process = tiny_trial.start(study)
    assert process.wait(timeout=60) == 1
    return (study / "run.log").read_bytes()[before:].decode()


def test_steps_die_with_a_killed_engine(undisturbed, tmp_path):
    """Only Snakemake itself is killed, as by a memory watchdog; its jobs must not go on writing."""
    study = tiny_trial.copy_inputs(undisturbed, tmp_path / "study")
    process = tiny_trial.start(study, cores=2)
    end = time.monotonic() + 60
    while not (registering := [pid for pid in scripts_of(study) if has_ants(pid)]):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(1)
    assert not set(registering) & set(scripts_of(study))
    while scripts_of(study):  # at their imports: they end when they begin their step
        assert time.monotonic() < end
        time.sleep(0.2)
    assert not list((study / "results").rglob("*from-*.json"))


def has_ants(pid: int) -> bool:
    """Whether a process has loaded ANTs: it is in the middle of a registration."""
    try:
        return "/ants/" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def scripts_of(study: Path) -> list[int]:
    """Return the processes that run scripts of a study."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if len(words) > 1 and words[1].startswith(f"{study}/.snakemake/scripts/"):
            found.append(int(path.parent.name))
    return found
