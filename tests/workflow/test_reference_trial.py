"""The real pipeline on two reference patients, contours on the MR and on the CT, against their truth."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import canary
from nanouptake import geometry
from nanouptake.images import load
from nanouptake.registration import brain_mask, head_mask, register

pytestmark = pytest.mark.study
ROOT = Path(__file__).parents[2]
PATIENTS = ("P01", "P04")


def snakemake(study, *arguments):
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(study)]
    command += ["--cores", str(min(2, os.cpu_count() or 1)), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stderr + run.stdout


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "config").mkdir()
    for name in ("config.yaml", "phantoms.tsv"):
        (folder / "config" / name).write_text((ROOT / "config" / name).read_text())
    rows = [
        f"{p}\t{t}\tresources/reference_trial/{p}/{t}\n"
        for p in PATIENTS
        for t in ("planning", "pre", "post")
    ]
    (folder / "config/scans.tsv").write_text("patient\ttimepoint\tpath\n" + "".join(rows))
    snakemake(folder)
    return folder


@pytest.fixture(scope="session")
def truth(study):
    tables = [pd.read_csv(study / f"resources/reference_trial/{p}/truth.csv") for p in PATIENTS]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="session")
def compared(study, truth):
    found = pd.read_csv(study / "results/cohort/tumors.csv")
    return truth.merge(found, on=["patient", "timepoint", "tumor"], suffixes=("_true", ""), how="left")


def bound_of_mean(diameter_mm, mean_mg_ml):
    """Tolerated error of the mean: relative or absolute, whichever is larger, by size."""
    relative, absolute = np.select(
        [diameter_mm >= 10, diameter_mm >= 7], [(0.07, 0.002), (0.15, 0.003)], (0.25, 0.004)
    )
    return max(relative * abs(mean_mg_ml), absolute)


def test_every_tumour_of_the_truth_is_measured(compared):
    table = pd.DataFrame(
        {
            "patient": compared["patient"],
            "tumor": compared["tumor"],
            "diameter_mm": compared["diameter_mm_true"].round(1),
            "volume_error_%": (100 * (compared["volume_ml"] / compared["volume_ml_true"] - 1)).round(2),
            "mean_true": compared["mean_mg_ml_true"].round(4),
            "mean": compared["mean_mg_ml"].round(4),
        }
    )
    print("\n" + table.to_string(index=False))
    assert compared["mean_mg_ml"].notna().all()


def test_volumes(compared):
    error = (compared["volume_ml"] / compared["volume_ml_true"] - 1).abs()
    assert (error <= np.where(compared["diameter_mm_true"] >= 10, 0.03, 0.08)).all()


def test_means(compared):
    agent = compared[compared["mean_mg_ml_true"] != 0]
    assert len(agent) > 0
    for row in agent.itertuples():
        bound = bound_of_mean(row.diameter_mm_true, row.mean_mg_ml_true)
        assert abs(row.mean_mg_ml - row.mean_mg_ml_true) <= bound, (row.patient, row.tumor)


def test_placebo_reads_zero(compared):
    placebo = compared[compared["mean_mg_ml_true"] == 0]
    assert len(placebo) > 0
    assert placebo["mean_mg_ml"].abs().max() <= 0.002


@pytest.mark.parametrize(
    ("xfm", "fixed", "limit_mm"),
    [("post", "post_uni", 0.1), ("contours", None, 0.3), ("planning", "planning_mr", 0.3)],
)
def test_registration_error_at_every_tumour(study, truth, xfm, fixed, limit_mm):
    for patient in PATIENTS:
        poses = json.loads((study / f"resources/reference_trial/{patient}/truth.json").read_text())
        drawn_on = poses["drawn_on"]
        moving = fixed or drawn_on
        true = np.array(poses["head_to_scanner_lps"][moving]) @ np.linalg.inv(
            np.array(poses["head_to_scanner_lps"]["pre_uni"])
        )
        path = study / f"results/sub-{patient}/xfm/sub-{patient}_from-{xfm}_to-pre_mode-image_xfm.txt"
        centres = truth.loc[truth["patient"] == patient, ["x_mm", "y_mm", "z_mm"]].to_numpy()
        error = geometry.displacement_mm(geometry.read_itk(path), true, centres)
        print(f"{patient} {xfm} to pre: {error.round(3).tolist()} mm")
        assert error.max() <= limit_mm


def test_the_planning_space_gives_the_same_tumours(study, truth, tmp_path):
    """Both maps resampled onto the planning grid, as in the paper: linear mixing is the same there."""
    other = tmp_path / "study"
    shutil.copytree(study, other, ignore=shutil.ignore_patterns("dicom", "cohort"), symlinks=True)
    jobs = snakemake(other, "-n", "--config", "space=planning")
    assert "rule map_pre_t1" in jobs
    assert "rule register_" not in jobs
    snakemake(other, "--config", "space=planning")
    found = pd.read_csv(other / "results/cohort/tumors.csv")
    both = truth.merge(found, on=["patient", "timepoint", "tumor"], suffixes=("_true", ""), how="left")
    for row in both.itertuples():
        assert row.volume_ml == pytest.approx(row.volume_ml_true, rel=0.08)
        bound = max(bound_of_mean(row.diameter_mm_true, row.mean_mg_ml_true), 0.002)
        assert abs(row.mean_mg_ml - row.mean_mg_ml_true) <= bound, (row.patient, row.tumor)


def test_corrected_uptake_is_true_from_5_mm_on_and_its_interval_holds_it(compared):
    """No bias of partial volume is left: 5 % or 0.002 mg/ml at every size; placebo is below its limit."""
    table = compared[
        ["patient", "tumor", "mean_mg_ml_true", "mean_mg_ml", "mean_pvc_mg_ml", "mean_pvc_low_mg_ml",
         "mean_pvc_high_mg_ml", "lod_mg_ml", "sd_noise_mg_ml", "sd_contour_mg_ml"]
    ]  # fmt: skip
    print("\n" + table.round(4).to_string(index=False))
    for row in compared.itertuples():
        error = abs(row.mean_pvc_mg_ml - row.mean_mg_ml_true)
        assert error <= max(0.05 * row.mean_mg_ml_true, 0.002), (row.patient, row.tumor)
        assert row.mean_pvc_low_mg_ml <= row.mean_mg_ml_true <= row.mean_pvc_high_mg_ml
        assert row.volume_low_ml <= row.volume_ml_true <= row.volume_high_ml
        assert bool(row.below_lod) == (row.patient == "P04")


def test_the_relaxivity_is_measured_and_used(study):
    """r1 of the simulated dilutions within 1 % of their 6.7, in the uptake's sidecar and on the page."""
    summary = pd.read_csv(study / "results/phantoms/dilution/summary.csv").set_index("parameter")
    assert summary.loc["r1", "value"] == pytest.approx(6.7, rel=0.01)
    assert summary.loc["r1", "low"] <= 6.7 <= summary.loc["r1", "high"]
    sidecar = json.loads((study / "results/sub-P01/uptake/sub-P01_ses-post_space-pre_conc.json").read_text())
    assert sidecar["Agent"]["per_mm_per_s"] == pytest.approx(summary.loc["r1", "value"])
    assert sidecar["Agent"]["source"] == "dilution"
    truth = pd.read_csv(study / "resources/reference_trial/phantoms/gels/truth.csv", dtype={"vial": str})
    vials = pd.read_csv(study / "results/phantoms/gels/vials.csv", dtype={"vial": str})
    both = vials.merge(truth, on="vial", suffixes=("", "_known"))
    assert len(both) == 12
    assert (both["t1_s"] / both["t1_s_known"]).between(0.99, 1.01).all()
    page = (study / "results/report.html").read_text()
    for words in ("dilution: relaxivity", "gels: accuracy", "measured - true (ms)"):
        assert words in page


def test_exchanged_sides_never_pass_as_ok(study, tmp_path):
    """A post scan whose left and right a conversion exchanged, at full size: the anatomy is nearly even."""
    images = {}
    for timepoint in ("pre", "post"):
        anat = study / f"results/sub-P01/ses-{timepoint}/anat/sub-P01_ses-{timepoint}"
        suffixes = ("UNIT1", "inv-2_MP2RAGE", *(["T1map"] if timepoint == "pre" else []))
        images |= {(timepoint, s): load(f"{anat}_{s}.nii.gz") for s in suffixes}
    exchanged = {}
    for suffix in ("UNIT1", "inv-2_MP2RAGE"):
        image = images["post", suffix]
        sideways = int(np.argmax(np.abs(image.affine[0, :3])))
        exchanged[suffix] = image.like(np.flip(image.data, sideways).copy())
    found = register(
        images["pre", "UNIT1"],
        exchanged["UNIT1"],
        pair="uni-uni",
        fixed_mask=brain_mask(images["pre", "T1map"], images["pre", "inv-2_MP2RAGE"]),
        moving_mask=head_mask(exchanged["inv-2_MP2RAGE"]),
        work_dir=tmp_path,
    )
    print(f"\nsides exchanged: {found.status}, {found.reason}")
    assert found.status != "ok"
    assert "mutual_information" in found.reason


def test_a_new_phantom_scan_reruns_from_the_uptake_on(study):
    """By the plan: the phantom, the uptake and what follows; no ingest, T1 map, registration or label."""
    sheet = study / "config/phantoms.tsv"
    before = sheet.read_text()
    scan = study / "data/dilution_again"
    shutil.copytree(study / "resources/reference_trial/phantoms/dilution", scan)
    try:
        sheet.write_text(before.replace("resources/reference_trial/phantoms/dilution", str(scan)))
        plan = snakemake(study, "-n")
    finally:
        sheet.write_text(before)
        shutil.rmtree(study / "data")
    rules = set(re.findall(r"^(?:local)?rule (\w+):", plan, re.MULTILINE))
    assert {"map_phantom", "measure_phantom", "map_uptake", "measure_tumors", "write_report"} <= rules
    assert not rules & {"ingest_session", "ingest_planning", "map_t1", "label_tumors"}
    assert not [r for r in rules if r.startswith("register")]
    assert "phantom=gels" not in plan


@pytest.fixture(scope="session")
def grown(study):
    """Return the study after a run, its plan with one more scan set (P01's scans as NIfTI), and that run."""
    first = (study / "results/cohort/tumors.csv").read_text()
    assert "Nothing to be done" in snakemake(study, "-n")
    for timepoint in ("pre", "post"):
        target = study / f"nifti/{timepoint}"
        target.mkdir(parents=True)
        for path in (study / f"results/sub-P01/ses-{timepoint}/anat").glob("*"):
            if re.search(r"(T1w|UNIT1|MP2RAGE)\.", path.name):
                (target / path.name).write_bytes(path.read_bytes())
    sheet = study / "config/scans.tsv"
    paths = {"planning": "resources/reference_trial/P01/planning", "pre": "nifti/pre", "post": "nifti/post"}
    sheet.write_text(sheet.read_text() + "".join(f"N01\t{t}\t{p}\n" for t, p in paths.items()))
    plan = snakemake(study, "-n")
    before = {p: p.read_bytes() for p in (study / "results/sub-P01").rglob("*") if p.is_file()}
    snakemake(study)
    return first, plan, before


def test_a_new_patient_runs_alone_and_changes_no_other(study, grown):
    first, plan, before = grown
    jobs = re.findall(r"^(?:local)?rule (\w+):\n(.*?)(?=^\S|\Z)", plan, re.MULTILINE | re.DOTALL)
    aggregates = {name for name, body in jobs if "wildcards:" not in body}
    assert aggregates == {"collect_cohort", "draw_figures", "write_report", "all"}
    owners = set(re.findall(r"wildcards: patient=(\w+)", plan))
    assert owners == {"N01"}
    for path, content in before.items():
        assert path.read_bytes() == content, path
    after = (study / "results/cohort/tumors.csv").read_text()
    assert set(first.splitlines()) <= set(after.splitlines())
    assert "Nothing to be done" in snakemake(study, "-n")


def test_nifti_gives_the_numbers_of_the_dicom(study, grown):
    table = pd.read_csv(study / "results/cohort/tumors.csv").set_index(["patient", "tumor"])
    dicom, nifti = table.loc["P01"], table.loc["N01"]
    assert list(dicom.index) == list(nifti.index)
    for column in ("volume_ml", "mean_mg_ml", "upper_quartile_mean_mg_ml", "t1_pre_s"):
        assert nifti[column].to_numpy() == pytest.approx(dicom[column].to_numpy(), rel=0.01), column


def test_no_identity_leaves_the_dicom(study, grown):
    """Every byte of results, logs and the engine's own records, unpacked, is free of the canaries."""
    words = (b"CANARY", b"19010203", b"20310405")
    for top in ("results", "logs", ".snakemake"):
        assert sum(p.is_file() for p in (study / top).rglob("*")) > 20
        assert canary.holding(study / top, words) == []
    # The search finds what is there: the scans are full of them.
    assert len(canary.holding(study / "resources/reference_trial/P01/pre", words)) > 500


def test_the_search_for_canaries_finds_them_in_every_layer(tmp_path):
    import base64
    import gzip
    import struct
    import zlib

    text = b"Comment\0\0" + zlib.compress(b"CANARY")
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", len(text)) + b"zTXt" + text + b"0000"
    (tmp_path / "a.png").write_bytes(png)
    (tmp_path / "b.html").write_bytes(b'<img src="data:image/png;base64,' + base64.b64encode(png) + b'">')
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(b"x CANARY x"))
    (tmp_path / base64.b64encode(b"results/CANARY/x").decode()).write_bytes(b"")
    (tmp_path / "clean.txt").write_bytes(b"nothing")
    assert len(canary.holding(tmp_path, (b"CANARY",))) == 4
