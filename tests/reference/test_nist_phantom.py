"""Inversion recovery and flip angles of a real ISMRM/NIST phantom (Skyra 3 T, mrbias set A) against NIST."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from nanouptake import phantoms
from nanouptake.errors import DataError
from nanouptake.inversion_recovery import Protocol
from nanouptake.t1_models import map_phantom
from nanouptake.validity import Validity
from nanouptake.variable_flip_angle import Protocol as FlipAngleProtocol
from nanouptake.vials import labels, locate, measure, read_layout

DATA = Path(os.environ.get("NANOUPTAKE_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
TABLES = Path(__file__).parents[2] / "resources/phantoms"
FOLDER = DATA / "nist_t1_phantom"


@pytest.fixture(scope="module")
def vials():
    """Return median T1 and share of usable pixels in a core of 3.5 mm of each vial, beside NIST's at 20 C."""
    if not FOLDER.exists():
        pytest.skip(f"NOT CHECKED AGAINST THE REAL PHANTOM: {FOLDER} is missing; set NANOUPTAKE_DATA")
    images = [pydicom.dcmread(p) for p in sorted(FOLDER.glob("skyra3t_20190914/*VIR*/*.dcm"))]
    times = tuple(float(d.InversionTime) / 1000 for d in images)
    found = Protocol(ti_s=times).estimate(np.stack([d.pixel_array for d in images], axis=-1))
    pixel_mm = float(images[0].PixelSpacing[0])
    table = pd.read_csv(FOLDER / "nist_batch2_t1_3t.csv")
    table = table[table["Temp (C)"] == 20].copy()
    table["vial"] = table["Solution"].str.removeprefix("T1-").astype(int)
    centres = pd.read_csv(FOLDER / "skyra3t_20190914_vial_centres_px.csv")
    row, column = np.indices(found.t1_s.shape)
    rows = []
    for c in centres.itertuples():
        core = np.hypot(row - c.row_px, column - c.col_px) * pixel_mm <= 3.5
        good = core & (found.validity == Validity.OK)
        share = good.sum() / core.sum()
        middle = np.median(found.t1_s[good]) if share > 0.5 else np.nan
        rows.append({"vial": c.vial, "share": share, "t1_ms": 1000 * middle})
    return pd.DataFrame(rows).merge(table, on="vial").set_index("vial").sort_index()


def test_inversion_recovery_reads_the_phantom(vials):
    error = 100 * (vials["t1_ms"] / vials["T1 reported (ms)"] - 1)
    print(
        "\n"
        + vials.assign(error_percent=error)[
            ["share", "t1_ms", "T1 reported (ms)", "error_percent"]
        ].to_string()
    )
    assert error.loc[1:10].abs().max() <= 5
    # T1 of 21 to 60 ms against a shortest TI of 35 ms: never reported as good.
    assert vials.loc[11:14, "t1_ms"].isna().all()


def test_relaxivity_of_nickel_chloride(vials):
    known = vials.loc[1:10]
    # The error of R1 grows with R1: weights of 1 / R1, that is T1.
    slope = np.polyfit(known["NiCl2 Concentration (mM)"], 1000 / known["t1_ms"], 1, w=known["t1_ms"])[0]
    print(f"\nr1 of NiCl2: {slope:.4f} /mM/s, NIST 0.692")
    assert slope == pytest.approx(0.692, rel=0.02)


@pytest.fixture(scope="module")
def phantom():
    """Return the folder's way through the workflow's own functions, by method."""
    if not FOLDER.exists():
        pytest.skip(f"NOT CHECKED AGAINST THE REAL PHANTOM: {FOLDER} is missing; set NANOUPTAKE_DATA")
    layout = read_layout(TABLES / "nist_t1_layout.tsv")
    truth, _ = phantoms.true_t1(layout.truth, temperature_k=293.15, tables=[TABLES], field_t=3.0)

    def through(method, **settings):
        scan = map_phantom(FOLDER / "skyra3t_20190914", method=method, protocol={})
        found = locate(
            layout,
            scan.t1,
            scan.magnitude,
            scan.validity,
            distinguishing="1",
            expected=truth["true_t1_s"].to_numpy(),
            **settings,
        )
        image = labels(found, layout, scan.t1.shape)
        return found, measure(scan.t1, scan.validity, image, layout, sd_s=scan.sd_s)

    return layout, truth, through


def test_vials_of_the_real_phantom_are_found_and_read(phantom):
    layout, truth, through = phantom
    found, table = through("inversion_recovery")
    by_hand = pd.read_csv(FOLDER / "skyra3t_20190914_vial_centres_px.csv").set_index("vial").sort_index()
    centres = found.pose.centres_mm(layout, 0, step_mm=1.0) / found.pictures.pixel_mm[0]
    off = np.hypot(*(centres - by_hand[["col_px", "row_px"]].to_numpy()).T)
    print(f"\nfound against marked by hand, pixels: median {np.median(off):.2f}, most {off.max():.2f}")
    assert np.median(off) < 1.5
    assert off.max() < 3
    compared, summary, flags = phantoms.accuracy(table, truth)
    print(compared[["vial", "known", "t1_s", "true_t1_s", "error_percent", "inside"]].round(4).to_string())
    print(summary.to_string())
    assert compared["error_percent"].iloc[:10].abs().max() <= 5
    assert (compared["inside"].iloc[10:] == "not measurable").all()
    assert "vials 11, 12, 13, 14" in flags[-1]


def test_relaxivity_of_the_real_phantom_by_the_workflow(phantom):
    _, _, through = phantom
    table = through("inversion_recovery")[1]
    known = pd.read_csv(FOLDER / "nist_batch2_t1_3t.csv")
    known = known[known["Temp (C)"] == 20].assign(vial=known["Solution"].str.removeprefix("T1-"))
    mm = known.set_index("vial")["NiCl2 Concentration (mM)"].reindex(table["vial"]).to_numpy()
    _, summary, line, flags = phantoms.relaxivity(table, mm, mg_per_ml_per_mm=1.0, form="free_intercept")
    print("\n" + summary.to_string())
    assert line.r1_per_mm_per_s == pytest.approx(0.692, rel=0.02)
    assert "11, 12, 13, 14" in flags[0]


def test_flip_angles_of_the_real_phantom_by_the_workflow(phantom):
    _, truth, through = phantom
    # The stack holds the T2 array too, of the same layout.
    with pytest.raises(DataError, match="several heights"):
        through("variable_flip_angle")
    _, table = through("variable_flip_angle", slices=(13, 18))
    compared, _, _ = phantoms.accuracy(table, truth)
    print("\nno B1+ map: T1 goes with its square")
    print(compared[["vial", "n_slices", "t1_s", "true_t1_s", "error_percent"]].round(4).to_string())
    assert compared["error_percent"].iloc[:10].abs().max() < 20


def geometry_of(header):
    """Return the affine from (column, row, 1) to LPS mm of one DICOM slice."""
    along, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    step = [float(v) for v in header.PixelSpacing]
    return np.column_stack([along * step[1], down * step[0], np.array(header.ImagePositionPatient, float)])


def test_variable_flip_angle_is_limited_by_b1(vials):
    """Without a B1 map T1 goes with B1 squared: the table is shown; vials 1 to 10 within 15 %, in order."""
    first = pydicom.dcmread(next(FOLDER.glob("skyra3t_20190914/S08*/*.dcm")))
    places = pd.read_csv(FOLDER / "skyra3t_20190914_vial_centres_px.csv")
    centres = (
        np.column_stack([places["col_px"], places["row_px"], np.ones(len(places))]) @ geometry_of(first).T
    )
    stacks = [
        [pydicom.dcmread(p) for p in folder.glob("*.dcm")] for folder in FOLDER.glob("skyra3t_20190914/*VFA*")
    ]
    stacks.sort(key=lambda s: float(s[0].FlipAngle))
    protocol = FlipAngleProtocol(
        tr_s=float(stacks[0][0].RepetitionTime) / 1000,
        flip_deg=tuple(float(s[0].FlipAngle) for s in stacks),
    )
    normal = np.cross(*np.array(stacks[0][0].ImageOrientationPatient, float).reshape(2, 3))
    for stack in stacks:
        stack.sort(key=lambda d: float(np.array(d.ImagePositionPatient, float) @ normal))
    heights = np.array([np.array(d.ImagePositionPatient, float) @ normal for d in stacks[0]])
    errors = []
    for vial, centre in zip(places["vial"], centres, strict=True):
        slice_ = int(np.argmin(np.abs(heights - centre @ normal)))
        affine = geometry_of(stacks[0][slice_])
        column, row = np.linalg.lstsq(affine[:, :2], centre - affine[:, 2], rcond=None)[0]
        rows, columns = np.indices(stacks[0][slice_].pixel_array.shape)
        core = np.hypot(rows - row, columns - column) * 0.977 <= 3.5
        data = np.stack([s[slice_].pixel_array[core] for s in stacks], axis=-1)
        found = protocol.estimate(data)
        middle = 1000 * np.median(found.t1_s[found.validity == Validity.OK])
        errors.append((vial, middle, 100 * (middle / vials.loc[vial, "T1 reported (ms)"] - 1)))
    table = pd.DataFrame(errors, columns=["vial", "t1_ms", "error_percent"]).set_index("vial").sort_index()
    print("\n" + table.to_string())
    assert (np.diff(table.loc[1:10, "t1_ms"]) < 0).all()
    assert table.loc[1:10, "error_percent"].abs().max() < 15
