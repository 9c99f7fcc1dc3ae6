"""From a cell of tumors.csv back to the series, and what no file may hold or be."""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys

import pytest

import tiny_trial
from nanouptake import __version__, provenance
from nanouptake.errors import DataError

pytestmark = pytest.mark.study


def command(study, *words):
    return subprocess.run(
        [sys.executable, "-m", "nanouptake.provenance", str(study), *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tiny_trial.ROOT / "workflow/scripts")},
    )


def test_one_command_says_where_a_cell_comes_from(undisturbed):
    run = command(undisturbed, "T001", "GTV1", "mean_mg_ml", "post")
    assert run.returncode == 0, run.stderr
    print(run.stdout)
    with (undisturbed / "results/cohort/tumors.csv").open(newline="") as stream:
        row = next(r for r in csv.DictReader(stream) if (r["patient"], r["tumor"]) == ("T001", "GTV1"))
    assert f"= {row['mean_mg_ml']}" in run.stdout
    rules = (
        "measure_tumors",
        "label_tumors",
        "map_uptake",
        "register_sessions",
        "register_planning",
        "map_t1",
    )
    for rule in (*rules, "ingest_session", "ingest_planning"):
        assert f"{rule} (" in run.stdout, rule
    assert f"nanouptake {__version__}" in run.stdout
    assert run.stdout.count("series UNIT1: ") == 2
    assert "changed since" not in run.stdout
    assert "T002" not in run.stdout


def test_every_file_of_a_patient_has_a_maker(undisturbed):
    known = provenance.records(undisturbed)
    top = undisturbed / "results"
    pages = ("_report.html",)
    for path in sorted(p for p in top.rglob("*") if p.is_file()):
        name = str(path.relative_to(undisturbed))
        if "/cohort/figures/" in name or name.endswith((*pages, "report.html")):
            continue
        assert name in known or name.replace(".json", ".csv") in known, name


def test_another_setting_and_other_scans_show_in_the_record(tmp_path, undisturbed):
    """The digest of the settings changes where a value is read, and only there."""
    study = tiny_trial.copy_inputs(undisturbed, tmp_path)
    file = study / "config/config.yaml"
    file.write_text(file.read_text().replace("per_mm_per_s: 6.7", "per_mm_per_s: 6.0", 1))
    tiny_trial.run(study, "results/sub-T001/sub-T001_tumors.csv", cores=2)
    before, after = (provenance.records(s) for s in (undisturbed, study))
    differ = {
        after[name]["made_by"]["rule"]
        for name in after
        if after[name]["made_by"]["settings"] != before[name]["made_by"]["settings"]
    }
    assert differ == {"map_uptake"}
    assert after.keys() <= before.keys()


def test_a_changed_file_is_told(tmp_path, undisturbed):
    study = tmp_path / "study"
    shutil.copytree(undisturbed, study)
    path = study / "results/sub-T001/ses-pre/anat/sub-T001_ses-pre_UNIT1.nii.gz"
    path.write_bytes(path.read_bytes() + b"x")
    lines = provenance.explain(study, "T001", "GTV1", "mean_mg_ml", "post")
    assert any("changed since: results/sub-T001/ses-pre/anat" in line for line in lines)
    with pytest.raises(DataError, match="no such cell"):
        provenance.explain(study, "T001", "GTV9", "mean_mg_ml", "post")


def test_files_have_the_users_mode_and_hold_no_uid(tmp_path, undisturbed):
    """Nothing is writable for everybody; with a strict umask nothing is readable for others."""
    study = tiny_trial.copy_inputs(undisturbed, tmp_path)
    run = subprocess.run(
        tiny_trial.command(study, "results/sub-T001/ses-pre/map_t1.json"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.umask(0o077),
    )
    assert run.returncode == 0, run.stderr[-2000:]
    made = [p for p in (study / "results").rglob("*") if not p.is_symlink()]
    assert len(made) > 10
    assert not [p for p in made if p.stat().st_mode & 0o077]
    for path in (undisturbed / "results").rglob("*"):
        assert not path.stat().st_mode & stat.S_IWOTH, path
    status = json.loads((undisturbed / "results/sub-T001/ses-pre/ingest.json").read_text())
    assert set(status["made_by"]["series"]) >= {"UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE"}
    assert all(len(v) == 16 for v in status["made_by"]["series"].values())
