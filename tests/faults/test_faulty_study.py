"""Whole runs with bad patients, bad sheets, no space and no right to write: the others lose nothing."""

import csv
import os
import resource
import shutil
import subprocess

import numpy as np
import pytest

import tiny_trial
from damage import four_dimensional, in_milliseconds, of_role, phantom_in_place, two_forms, with_nan
from nanouptake.images import load, save

pytestmark = pytest.mark.study
FAILED_DATA = 3


def no_tumour_names(folder):
    table = next(folder.glob("*_dseg.tsv"))
    table.write_text("index\tname\n1\tPTV\n2\tBrainstem\n")


def outside(path, volume):
    """Write the labels 400 mm away."""
    moved = volume.affine.copy()
    moved[:3, 3] += 400
    save(path, type(volume)(volume.data, moved))


def phantom_scanned(folder):
    for path in folder.glob("*.nii.gz"):
        phantom_in_place(path, load(path))


def one_voxel_each(path, volume):
    """Keep one voxel of every label: a contour that is moved leaves them all."""
    data = np.zeros_like(volume.data)
    for label in (1, 2):
        data[tuple(np.argwhere(volume.data == label)[3])] = label
    save(path, volume.like(data))


def in_metres(folder):
    for path in folder.glob("*.nii.gz"):
        image = load(path)
        save(path, type(image)(image.data, np.diag([1e-3, 1e-3, 1e-3, 1]) @ image.affine))


def nothing_but_noise(folder):
    rng = np.random.default_rng(3)
    for path in folder.glob("*.nii.gz"):
        image, top = load(path), 4096 if "UNIT1" in path.name else 50
        save(path, image.like(rng.integers(0, top, image.shape).astype(np.int16)))


#: patient: timepoint, damage, status of that timepoint, what its reason holds
BAD = {
    "B01": ("pre", of_role("UNIT1", with_nan), "failed", "NaN"),
    "B02": ("post", lambda f: next(f.glob("*inv-2*.nii.gz")).unlink(), "failed", "inv-2_MP2RAGE"),
    "B03": ("planning", no_tumour_names, "failed", "no structure is a tumour"),
    "B04": ("pre", of_role("UNIT1", lambda p, _: p.write_bytes(p.read_bytes()[:999])), "failed", "NIfTI"),
    "B05": ("post", shutil.rmtree, "failed", "does not exist"),
    "B06": ("post", of_role("UNIT1", two_forms), "failed", "sform and qform"),
    "B07": ("pre", in_milliseconds, "failed", "seconds, not milliseconds"),
    "B08": ("post", phantom_scanned, "flagged", "mutual_information"),
    "B09": ("planning", of_role("dseg", outside), "flagged", "lies outside"),
    "B10": ("post", of_role("UNIT1", four_dimensional), "failed", "not three-dimensional"),
    "B11": ("planning", of_role("dseg", one_voxel_each), "flagged", "too small for its voxels"),
    "B12": ("pre", in_metres, "failed", "a size that no scanner makes"),
    "B13": ("post", nothing_but_noise, "failed", "registration post to pre failed"),
}  # fmt: skip


def statuses(study):
    with (study / "results/cohort/scans.csv").open(newline="") as stream:
        return {(r["patient"], r["timepoint"]): (r["status"], r["reason"]) for r in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Return a study of the good patient T001 and the bad ones after its run, its exit status and words."""
    study = tiny_trial.write_study(tmp_path_factory.mktemp("faulty"), patients=1)
    scans = tiny_trial.rows(1)
    for patient, (timepoint, damage, *_) in BAD.items():
        for when in ("planning", "pre", "post"):
            folder = study / f"scans/{patient}/{when}"
            shutil.copytree(study / f"scans/T001/{when}", folder)
            scans.append((patient, when, f"scans/{patient}/{when}"))
        damage(study / f"scans/{patient}/{timepoint}")
    tiny_trial.write_sheet(study, scans)
    process = tiny_trial.start(study, cores=2)
    return study, process.wait(), (study / "run.log").read_text()


def test_every_bad_patient_costs_one_line_with_its_reason(faulty):
    study, status, words = faulty
    assert status == FAILED_DATA, words[-3000:]
    table = statuses(study)
    for patient, (timepoint, _, wanted, reason) in BAD.items():
        found, why = table[patient, timepoint]
        print(f"{patient} {timepoint}: {found}: {why}")
        assert found == wanted
        assert reason in why
        if wanted == "failed":
            assert "cure: " in why
            assert f"failed: patient {patient}" in words
    assert "3 flagged, 10 failed" in words
    assert table["T001", "post"] == ("ok", "")


def test_the_good_patient_has_the_bytes_of_a_run_without_the_others(faulty, undisturbed):
    study = faulty[0]
    alone, beside = (
        {k: v for k, v in tiny_trial.results(s).items() if k.startswith("sub-T001/")}
        for s in (undisturbed, study)
    )
    assert len(alone) > 20
    assert tiny_trial.differences(alone, beside) == []


def test_a_repaired_patient_runs_alone(faulty):
    """After the repair only that patient's jobs and the aggregates run, and its line is ok."""
    study = faulty[0]
    shutil.rmtree(study / "scans/B01/pre")
    shutil.copytree(study / "scans/T001/pre", study / "scans/B01/pre")
    process = tiny_trial.start(study, cores=2)
    assert process.wait() == FAILED_DATA  # the others still fail
    words = (study / "run.log").read_text().rpartition("Building DAG")[2]
    owners = {line.split("=")[1].split(",")[0] for line in words.splitlines() if "wildcards: patient" in line}
    assert owners == {"B01"}
    assert statuses(study)["B01", "post"][0] == "ok"


GOOD_ROW = "T001\tpre\tscans/T001/pre\n"
SHEETS = {
    "empty sheet": ("", "sheet of scans is empty"),
    "duplicate row": (GOOD_ROW * 2, "listed twice"),
    "bad id": (GOOD_ROW.replace("T001", "../T001", 1), "not allowed"),
    "no post": (GOOD_ROW + GOOD_ROW.replace("pre", "planning"), "has no post scan"),
}
CONFIGS = {
    "unknown key": ("registration:\n", "registration:\n  speed: 9\n", "registration.speed"),
    "ms for s": ("ti1_s: 0.7", "ti1_s: 700", "mp2rage.ti1_s"),
    "impossible timing": ("shots_before: 44", "shots_before: 120", "TA is negative"),
}


@pytest.mark.parametrize("name", [*SHEETS, *CONFIGS])
def test_bad_sheets_and_configs_stop_before_the_first_job(tmp_path, name):
    tiny_trial.write_config(tmp_path)
    tiny_trial.write_sheet(tmp_path, tiny_trial.rows(1))
    if name in SHEETS:
        text, message = SHEETS[name]
        (tmp_path / "config/scans.tsv").write_text("patient\ttimepoint\tpath\n" + text)
    else:
        old, new, message = CONFIGS[name]
        file = tmp_path / "config/config.yaml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
    run = subprocess.run(tiny_trial.command(tmp_path), capture_output=True, text=True, check=False)
    words = run.stdout + run.stderr
    print(next((line for line in words.splitlines() if message in line), words[-500:]))
    assert run.returncode != 0
    assert message in words
    assert "cure: " in words
    assert not (tmp_path / "results").exists()


def test_a_disk_that_takes_no_more(tmp_path, undisturbed):
    """Files of more than 100 kB cannot be written: the run fails, keeps what is whole, ends well later."""
    study = tiny_trial.copy_inputs(undisturbed, tmp_path)
    run = subprocess.run(
        tiny_trial.command(study, "--retries", "0"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    words = run.stdout + run.stderr
    assert run.returncode == 1, words[-2000:]
    assert "free space" in words
    assert not list(study.glob("results/**/.*.part"))
    tiny_trial.run(study, cores=2)
    assert tiny_trial.differences(tiny_trial.results(undisturbed), tiny_trial.results(study)) == []


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_results_folder_that_cannot_be_written(tmp_path, undisturbed):
    """Nothing of it changes, the words name the file, and with the right to write the run ends well."""
    study = tmp_path / "study"
    shutil.copytree(undisturbed, study, copy_function=shutil.copy2)
    sheet = study / "config/scans.tsv"
    sheet.write_text(sheet.read_text().replace("T002\tpost\tscans/T002/post", "T002\tpost\tscans/T001/post"))
    before = tiny_trial.results(study)
    folders = [study / "results", *(p for p in (study / "results").rglob("*") if p.is_dir())]
    modes = {p: p.stat().st_mode for p in folders}
    # Root may write everywhere, unless it gives that up.
    give_up = [
        "--bounding-set",
        "-dac_override,-dac_read_search",
        "--inh-caps",
        "-dac_override,-dac_read_search",
    ]
    prefix = ["setpriv", *give_up] if os.geteuid() == 0 else []
    for folder in folders:
        folder.chmod(0o555)
    try:
        command = [*prefix, *tiny_trial.command(study, "--retries", "0")]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    words = run.stdout + run.stderr
    print("\n".join(line for line in words.splitlines() if "ermission" in line)[:600])
    assert run.returncode == 1
    assert "ermission denied" in words
    assert tiny_trial.differences(before, tiny_trial.results(study)) == []
    tiny_trial.run(study, cores=2)
