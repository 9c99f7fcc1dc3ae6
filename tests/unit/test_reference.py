"""The reference trial against its own truth: what is in the DICOM files is what truth.csv says."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest

from nanouptake import geometry
from nanouptake.errors import DataError
from nanouptake.mp2rage import Lookup, Protocol
from nanouptake.reference import check_spec, read_spec, write_patient
from nanouptake.reference_anatomy import PATTERNS, Tumour, unit_ball

SPEC = Path(__file__).parents[2] / "resources" / "phantoms" / "reference_trial.yaml"


def small_spec() -> dict:
    spec = read_spec(SPEC)
    for key in ("mp2rage", "t1w", "planning_mr", "planning_ct"):
        spec[key]["spacing_mm"] = [v * 2.5 for v in spec[key]["spacing_mm"]]
        spec[key]["matrix"] = [round(n / 2.5) for n in spec[key]["matrix"]]
    spec["mp2rage"] |= {"snr": 0, "b1": 0.0}
    spec["anatomy"]["t1_variation"] = 0.0
    spec["timepoints"].append({"name": "post2", "uptake": 0.5})
    spec["patients"] = {
        "S1": {
            "arm": "agent",
            "drawn_on": "planning_mr",
            "tumours": [
                {"diameter_mm": 25.0, "pattern": "homogeneous", "mean_mg_ml": 0.1, "t1_s": 1.5},
                {"diameter_mm": 20.0, "pattern": "central_maximum", "mean_mg_ml": 0.06, "t1_s": 1.3},
            ],
        }
    }
    return spec


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trial") / "S1"
    write_patient(small_spec(), "S1", out)
    return out


def series(folder: Path) -> dict[str, list[pydicom.Dataset]]:
    found: dict[str, list[pydicom.Dataset]] = {}
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        ds = pydicom.dcmread(file)
        found.setdefault(ds.SeriesDescription, []).append(ds)
    return found


def affine(slices: list[pydicom.Dataset]) -> np.ndarray:
    """Index (column, row, slice in order of InstanceNumber) to LPS mm, from the headers alone."""
    first, second = slices[:2]
    along = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    matrix = np.eye(4)
    matrix[:3, 0] = along[0] * float(first.PixelSpacing[1])
    matrix[:3, 1] = along[1] * float(first.PixelSpacing[0])
    matrix[:3, 3] = np.array(first.ImagePositionPatient, float)
    matrix[:3, 2] = np.array(second.ImagePositionPatient, float) - matrix[:3, 3]
    return matrix


def truth(written: Path) -> tuple[list[dict], dict]:
    with (written / "truth.csv").open() as file:
        return list(csv.DictReader(file)), json.loads((written / "truth.json").read_text())


def r1_map(written: Path, session: str) -> tuple[np.ndarray, np.ndarray]:
    """R1 of all voxels and their positions in head LPS mm."""
    slices = series(written / session)["t1_mp2rage_sag_p3_iso_UNI_Images"]
    slices.sort(key=lambda ds: ds.InstanceNumber)
    uni = np.stack([ds.pixel_array for ds in slices]).transpose(2, 1, 0)
    pose = np.array(truth(written)[1]["head_to_scanner_lps"][f"{session}_uni"])
    index = np.stack(np.indices(uni.shape), -1)
    t1 = Lookup(Protocol(**small_spec()["mp2rage"]["protocol"])).estimate(uni).t1_s
    return 1 / t1, geometry.apply(np.linalg.inv(pose) @ affine(slices), index)


def test_maps_of_the_written_uni_give_back_the_truth(written: Path) -> None:
    rows, described = truth(written)
    pre, at_pre = r1_map(written, "pre")
    for session in ("post", "post2"):
        post, at_post = r1_map(written, session)
        for tumour in described["tumours"]:
            row = next(r for r in rows if (r["timepoint"], r["tumor"]) == (session, tumour["name"]))
            to_unit = np.array(tumour["rotation"]).T / np.array(tumour["semi_axes_mm"])[:, None]
            radius = [
                np.linalg.norm((at - tumour["centre_head_mm"]) @ to_unit.T, axis=-1)
                for at in (at_pre, at_post)
            ]
            # Voxels that lie whole inside, so that no partial volume takes part.
            core = [r < 1 - 2.2 / min(tumour["semi_axes_mm"]) for r in radius]
            assert 1 / pre[core[0]].mean() == pytest.approx(float(row["t1_pre_s"]), rel=2e-3)
            found = (post[core[1]] - 1 / float(row["t1_pre_s"])) / 6.7 * 4 / 3
            if tumour["pattern"] == "homogeneous":
                expected = np.full(found.shape, float(row["mean_mg_ml"]))
                assert 1 / post[core[1]].mean() == pytest.approx(float(row["t1_post_s"]), rel=2e-3)
            else:
                expected = float(row["mean_mg_ml"]) * (1 + 1.2 * (0.6 - radius[1][core[1]] ** 2))
            np.testing.assert_allclose(found, expected, atol=0.004)
            assert found.mean() == pytest.approx(expected.mean(), rel=0.02)
            centre = geometry.apply(
                np.array(described["head_to_scanner_lps"]["pre_uni"]), tumour["centre_head_mm"]
            )
            np.testing.assert_allclose(centre, [float(row[f"{a}_mm"]) for a in "xyz"], atol=1e-3)


def test_contours_lie_on_the_surface_and_in_their_slices(written: Path) -> None:
    found = series(written / "planning")
    structure = found.pop("RTSTRUCT")[0]
    slices = {ds.SOPInstanceUID: ds for ds in found["t1_mprage_tra_ce"]}
    spacing = float(next(iter(slices.values())).SpacingBetweenSlices)
    assert structure.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID == (
        next(iter(slices.values())).FrameOfReferenceUID
    )
    rows, described = truth(written)
    back = np.linalg.inv(np.array(described["head_to_scanner_lps"]["planning_mr"]))
    names = {s.ROINumber: s.ROIName for s in structure.StructureSetROISequence}
    tumours = {t["name"]: t for t in described["tumours"]}
    assert set(names.values()) == {"GTV_01", "GTV_02", "BrainBox"}
    for roi in structure.ROIContourSequence:
        tumour = tumours.get(names[roi.ReferencedROINumber])
        volume = 0.0
        for contour in roi.ContourSequence:
            ds = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            u, v = np.array(ds.ImageOrientationPatient, float).reshape(2, 3)
            local = points - np.array(ds.ImagePositionPatient, float)
            assert abs(local @ np.cross(u, v)).max() < 0.01
            x, y = local @ u, local @ v
            volume += abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2 * spacing / 1000
            if tumour:
                to_unit = np.array(tumour["rotation"]).T / np.array(tumour["semi_axes_mm"])[:, None]
                unit = (geometry.apply(back, points) - tumour["centre_head_mm"]) @ to_unit.T
                np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=2e-3)
        if tumour:
            expected = next(float(r["volume_ml"]) for r in rows if r["tumor"] == tumour["name"])
            assert volume == pytest.approx(expected, rel=0.03)


def test_headers_are_those_of_the_scanner_and_of_a_fictitious_person(written: Path) -> None:
    frames = set()
    for session in ("planning", "pre", "post", "post2"):
        for description, slices in series(written / session).items():
            ds = slices[0]
            frames.add(ds.FrameOfReferenceUID)
            assert ds.PatientName == "CANARY^S1"
            if description.endswith("UNI_Images"):
                assert "InversionTime" not in ds
                assert "FlipAngle" not in ds
                assert "UNI" in ds.ImageType
            if description.endswith("_INV2"):
                assert (ds.InversionTime, ds.FlipAngle, ds.RepetitionTime) == (2500, 5, 5000)
    assert len(frames) == 5  # planning MR, planning CT, and three sessions


def test_the_same_description_gives_the_same_files(tmp_path: Path) -> None:
    spec = small_spec()
    for key in ("mp2rage", "t1w", "planning_mr", "planning_ct"):
        spec[key]["spacing_mm"] = [v * 4 for v in spec[key]["spacing_mm"]]
        spec[key]["matrix"] = [n // 4 for n in spec[key]["matrix"]]
    spec["mp2rage"]["snr"] = 60
    digests = []
    for name in ("a", "b"):
        write_patient(copy.deepcopy(spec), "S1", tmp_path / name)
        digests.append(
            {
                str(p.relative_to(tmp_path / name)): hashlib.sha256(p.read_bytes()).hexdigest()
                for p in (tmp_path / name).rglob("*")
                if p.is_file()
            }
        )
    assert digests[0] == digests[1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_have_the_mean_and_are_never_negative(pattern: str) -> None:
    tumour = Tumour("T", np.zeros(3), np.array([5.0, 6, 5.5]), np.eye(3), pattern, 0.1, 1.4, np.arange(3.0))
    uptake = tumour.relative_uptake(unit_ball())
    assert uptake.mean() == pytest.approx(1, abs=1e-3)
    assert uptake.min() >= 0
    mean, t1 = tumour.truth(uptake=1.0, r1_per_mg_ml_s=6.7 * 0.75)
    assert mean == pytest.approx(0.1, rel=1e-3)
    assert t1 >= 1 / (1 / 1.4 + 6.7 * 0.75 * mean) - 1e-9  # Jensen: the mean of T1 is not 1 / mean R1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s.pop("seed"), "seed"),
        (lambda s: s["mp2rage"].update(matrix=[4, 4]), "mp2rage.matrix"),
        (lambda s: s["patients"]["P04"]["tumours"][0].update(mean_mg_ml=0.1), "mean_mg_ml"),
        (lambda s: s["patients"]["P01"]["tumours"][1].update(pattern="rim"), "pattern"),
        (lambda s: s["mp2rage"]["protocol"].update(shots_before=300), "TA"),
    ],
)
def test_impossible_descriptions_are_refused(change: object, field: str) -> None:
    spec = read_spec(SPEC)
    change(spec)
    with pytest.raises(DataError, match=field):
        check_spec(spec)
