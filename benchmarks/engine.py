"""What the engine costs: planning and reruns of large studies, and process starts and imports per job.

Run: .venv/bin/python benchmarks/engine.py overhead        # one reference patient, about 4 minutes
     .venv/bin/python benchmarks/engine.py scale 10 100    # real rules, stubbed bodies
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
#: Runs in every Python process of the workflow: keeps the job's description and what the process used.
RECORDER = """
import atexit, os, pickle, resource, sys, tempfile
def record():
    job = getattr(sys.modules["__main__"], "snakemake", None)
    if job is None or not hasattr(job, "scriptdir"):
        return
    used = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = sum(u.ru_utime + u.ru_stime for u in used)
    handle, _ = tempfile.mkstemp(dir=os.environ["NANOUPTAKE_RECORDS"])
    with open(handle, "wb") as stream:
        pickle.dump((job, cpu_s, max(u.ru_maxrss for u in used) / 1024), stream)
atexit.register(record)
"""


def run(study: Path, *words: str, checkout: Path = ROOT, **env: str) -> tuple[float, float, float]:
    """Run snakemake on a study; return wall s, CPU s of all its processes, its peak memory in MB."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # every job would compile the package anew
    words = ("-m", "snakemake", "-s", str(checkout / "Snakefile"), "--directory", str(study), *words)
    start = time.perf_counter()
    with (study / "snakemake.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=log, stderr=log, env={**os.environ, **ONE_THREAD, **env}
        )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit((study / "snakemake.log").read_text()[-4000:])
    return time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def replay(records: list, study: Path) -> tuple[float, float]:
    """Run the recorded jobs again, one after another in this process; return wall s and CPU s."""
    os.chdir(study)
    sys.path.insert(0, str(ROOT / "workflow/scripts"))
    start = time.perf_counter()
    for job, *_ in records:
        runpy.run_path(str(ROOT / "workflow/scripts" / f"{job.rule}.py"), init_globals={"snakemake": job})
    return time.perf_counter() - start, sum(os.times()[:4])


def overhead(patient: str) -> None:
    """Compare a run on one core with the same functions in one process."""
    with tempfile.TemporaryDirectory() as top:
        study, hooks, records = (Path(top, name) for name in ("study", "hooks", "records"))
        shutil.copytree(ROOT / "config", study / "config")
        hooks.mkdir()
        records.mkdir()
        (hooks / "sitecustomize.py").write_text(RECORDER)
        sheet = study / "config/scans.tsv"
        header, *rows = sheet.read_text().splitlines()
        sheet.write_text("\n".join([header, *[r for r in rows if r.startswith(patient)]]) + "\n")
        run(study, "--cores", "1", "reference_trial")
        env = {"PYTHONPATH": str(hooks), "NANOUPTAKE_RECORDS": str(records)}
        wall, cpu, _ = run(study, "--cores", "1", **env)
        found = [
            pickle.loads(p.read_bytes())
            for p in sorted(records.iterdir(), key=lambda p: p.stat().st_mtime_ns)
        ]
        print("rule                       CPU s   peak MB   input MB")
        for job, cpu_s, peak_mb in found:
            size = sum(os.path.getsize(study / p) for p in job.input) / 2**20
            print(f"{job.rule:24s} {cpu_s:7.1f} {peak_mb:9.0f} {size:10.1f}")
        sys.stdout.flush()
        shutil.rmtree(study / "results")
        for job, *_ in found:
            for path in (*job.output, *job.log):
                (study / path).parent.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if not child:
            os.environ.update(ONE_THREAD)
            wall_alone, cpu_alone = replay(found, study)
            print(
                f"{len(found)} jobs: workflow {wall:.1f} s ({cpu:.1f} CPU s), one process {wall_alone:.1f} s "
                f"({cpu_alone:.1f} CPU s), overhead {100 * (wall / wall_alone - 1):.0f} % "
                f"({100 * (cpu / cpu_alone - 1):.0f} % in CPU s)"
            )
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit("the replay failed")


def stubbed_checkout(target: Path) -> Path:
    """Copy the workflow with every script replaced by one that only makes the outputs."""
    for name in ("workflow", "config", "resources", "profiles"):
        shutil.copytree(
            ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "reference_trial")
        )
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / name, target)
    # Every output holds an innocent status, whatever the file is for.
    (target / "stub").write_text('{"ok": true, "flags": [], "reason": "", "step": "", "details": {}}')
    stub = f'shell: "tee {{output}} < {target}/stub > /dev/null"'
    for path in (target / "workflow/rules").glob("*.smk"):
        rules, count = re.subn(r'script:\n\s+"[^"]+"', stub, path.read_text())
        path.write_text(rules)
        assert count or path.name == "common.smk", path
    return target


def add_patients(study: Path, first: int, last: int, *, files: int) -> None:
    """Add rows and raw folders of empty files; their content does not matter to stubs."""
    sheet = study / "config/scans.tsv"
    with sheet.open("a", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        if not stream.tell():
            writer.writerow(["patient", "timepoint", "path"])
        for number in range(first, last + 1):
            for timepoint in ("planning", "pre", "post"):
                folder = study / f"raw/S{number:05d}/{timepoint}"
                folder.mkdir(parents=True)
                for k in range(files):
                    (folder / f"{k:05d}").touch()
                writer.writerow([f"S{number:05d}", timepoint, folder.relative_to(study)])


def scale(sizes: list[int], *, files: int, cores: int) -> None:
    """Print the costs of a fresh plan, the run with stubs, the no-op rerun and one more patient."""
    print("patients  fresh -n        run with stubs          no-op             one more patient")
    for size in sizes:
        with tempfile.TemporaryDirectory() as top:
            checkout, study = stubbed_checkout(Path(top, "checkout")), Path(top, "study")
            shutil.copytree(ROOT / "config", study / "config")
            (study / "config/scans.tsv").write_text("")
            add_patients(study, 1, size, files=files)
            words = ("--cores", str(cores), "--quiet")
            plan = run(study, "-n", *words, checkout=checkout)
            whole = run(study, *words, checkout=checkout)
            again = run(study, *words, checkout=checkout)
            add_patients(study, size + 1, size + 1, files=files)
            more = run(study, *words, checkout=checkout)
        each_ms = 1e3 * whole[1] / size
        print(
            f"{size:8d}  {plan[0]:5.1f} s {plan[2]:4.0f} MB  {whole[0]:7.1f} s ({each_ms:4.0f} CPU ms each)"
            f"  {again[0]:5.1f} s {again[2]:4.0f} MB   {more[0]:5.1f} s {more[2]:4.0f} MB",
            flush=True,
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("overhead", "scale"))
    parser.add_argument("sizes", nargs="*", type=int, default=[10, 100])
    parser.add_argument("--patient", default="P01")
    parser.add_argument("--files", type=int, default=20, help="raw files per scan")
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    if given.what == "overhead":
        overhead(given.patient)
    else:
        scale(given.sizes, files=given.files, cores=given.cores)


if __name__ == "__main__":
    main()
