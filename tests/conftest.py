"""The tiny trial, run once without disturbance on two cores."""

from pathlib import Path

import pytest

import tiny_trial

#: Runs in every Python process of the workflow; writes the thread limits that a job found at its start.
HOOK = """
import atexit, json, os, sys
names = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS NUMBA_NUM_THREADS ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
found = {name: os.environ.get(name) for name in names.split()}
def record():
    job = getattr(sys.modules["__main__"], "snakemake", None)
    if hasattr(job, "scriptdir"):
        with open(os.environ["NANOUPTAKE_HOOK"], "a") as stream:
            stream.write(json.dumps([job.rule, job.threads, found]) + "\\n")
atexit.register(record)
"""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> Path:
    """Return the study folder of two tiny patients with its results; jobs.jsonl and run.log beside them."""
    study = tiny_trial.write_study(tmp_path_factory.mktemp("undisturbed"), patients=2)
    hook = tmp_path_factory.mktemp("hook")
    (hook / "sitecustomize.py").write_text(HOOK)
    env = {"PYTHONPATH": str(hook), "NANOUPTAKE_HOOK": str(study / "jobs.jsonl")}
    tiny_trial.run(study, cores=2, env=env)
    return study
