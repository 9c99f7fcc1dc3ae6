"""Contours become the volume that was drawn: analytic solids, holes, oblique planes, label images."""

import json
from pathlib import Path

import numpy as np
import pytest

import ingest_planning
import label_tumors
from nanouptake import geometry, images
from nanouptake.contours import Solid, Structure, Voxels, coverage, safe_name, usable
from nanouptake.errors import DataError
from nanouptake.images import Volume

GRID = np.eye(4)
GRID[:3, 3] = -20.0


def circle(radius_mm, z, centre=(0.0, 0.0), n=90):
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x, y = centre[0] + radius_mm * np.cos(angle), centre[1] + radius_mm * np.sin(angle)
    return np.column_stack([x, y, np.full(n, z)])


def covered_ml(solid, affine=GRID):
    return (
        float(coverage(solid, (41, 41, 41), affine)[1].sum()) * Volume(np.zeros((1, 1, 1)), affine).voxel_ml
    )


@pytest.mark.parametrize("plane", ["axial", "oblique"])
@pytest.mark.parametrize("spacing_mm", [1.0, 1.7])
def test_a_sphere_has_its_volume_and_place(plane, spacing_mm):
    turn = np.eye(3) if plane == "axial" else geometry.rotation(x_deg=25, y_deg=-15, z_deg=10)
    centre = np.array([0.3, -0.4, 0.2])
    heights = np.arange(-7, 7.01, spacing_mm)
    rings = [circle(np.sqrt(64 - z**2), z) @ turn.T + centre for z in heights]
    box, fraction = coverage(Solid(rings), (41, 41, 41), GRID)
    assert fraction.sum() / 1000 == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.015)
    index = np.argwhere(fraction > 0)
    weights = fraction[tuple(index.T)]
    found = (index + [s.start for s in box] - 20).T @ weights / weights.sum()
    # The topmost plane of an uneven stack may lie up to one spacing below the pole.
    assert np.abs(found - centre).max() <= 0.2


def test_holes_are_open_however_they_are_drawn():
    planes = np.arange(-6.0, 7.0)
    outer, inner = [circle(9, z) for z in planes], [circle(4, z) for z in planes]
    keyholes = [
        np.vstack([o, o[:1], i[:1], i[::-1], i[:1], o[:1]]) for o, i in zip(outer, inner, strict=True)
    ]
    expected = np.pi * (81 - 16) * planes.size / 1000
    assert covered_ml(Solid(outer + inner)) == pytest.approx(expected, rel=0.01)
    assert covered_ml(Solid(keyholes)) == pytest.approx(expected, rel=0.01)


def test_the_grid_may_lie_anywhere():
    """A solid seen from a turned grid through a transform has the same volume."""
    rings = [circle(np.sqrt(49 - z**2), z) for z in np.arange(-6.5, 7)]
    solid = Solid(rings)
    matrix = geometry.rigid(geometry.rotation(x_deg=20, z_deg=33), np.array([2.0, -3, 1]))
    fraction = coverage(solid, (41, 41, 41), GRID, matrix=matrix)[1]
    assert fraction.sum() / 1000 == pytest.approx(solid.volume_ml, rel=0.01)


def test_unusable_drawings_are_refused():
    with pytest.raises(DataError, match="single plane"):
        Solid([circle(5, 0)])
    with pytest.raises(DataError, match="not planar"):
        Solid([circle(5, 0), circle(5, 1) + np.outer(np.linspace(0, 1, 90), [0, 0, 1])])
    twice = [Structure("GTV", n, "1", [circle(3, 0), circle(3, 1)]) for n in (1, 2)]
    with pytest.raises(DataError, match="one name"):
        usable(twice, "^GTV")


@pytest.mark.parametrize("name", ["../../x", "GTV " + "9" * 300, "\u817f\u7624", "a/b", ".hidden"])
def test_names_stay_inside_results(name):
    safe = safe_name(name)
    assert safe == Path(safe).name
    assert not safe.startswith(".")
    assert len(safe) <= 64
    assert safe != safe_name(name + "'")


def sphere_labels(radius_mm):
    """Two spheres of which one is a tumour by its name, on a planning grid of 0.5 x 0.5 x 1 mm."""
    affine = np.diag([0.5, 0.5, 1.0, 1.0])
    affine[:3, 3] = [-20, -20, -20]
    points = geometry.apply(affine, np.indices((81, 81, 41)).reshape(3, -1).T)
    labels = np.zeros(len(points), np.uint8)
    labels[np.linalg.norm(points - [5.2, 0.1, 0.3], axis=1) < radius_mm] = 3
    labels[np.linalg.norm(points + [9, 9, 9], axis=1) < 4] = 7
    return Volume(labels.reshape(81, 81, 41), affine)


@pytest.mark.parametrize(("diameter_mm", "tolerance"), [(5, 0.06), (10, 0.03)])
def test_a_label_image_keeps_its_volume(diameter_mm, tolerance):
    labels = sphere_labels(diameter_mm / 2)
    expected = np.pi / 6 * (diameter_mm / 10) ** 3
    assert covered_ml(Voxels(labels, 3)) == pytest.approx(expected, rel=tolerance)
    with pytest.raises(DataError, match="label 9"):
        Voxels(labels, 9)


def test_nifti_planning_with_labels_goes_through_both_steps(tmp_path):
    folder, out = tmp_path / "planning", tmp_path / "out"
    folder.mkdir()
    labels = sphere_labels(5)
    images.save(folder / "P_dseg.nii.gz", labels)
    images.save(folder / "P_T1w.nii.gz", labels.like(labels.data.astype(np.int16) * 100 + 1))
    (folder / "P_dseg.tsv").write_text("index\tname\n3\tGTV 1\n7\tBrainstem\n")
    made = {k: str(out / k) for k in ("status", "series")}
    made |= {k: str(out / f"{k}.nii.gz") for k in ("t1w", "ct", "labels")} | {"contours": str(out / "c.json")}
    ingest_planning.main(folder, made, {}, "^GTV")
    assert json.loads(Path(made["status"]).read_text())["reason"] == ""
    content = json.loads(Path(made["contours"]).read_text())
    assert content["tumors"] == [{"name": "GTV_1", "label": 3}]
    assert content["set_aside"] == [["Brainstem", "not a tumour by its name"]]
    grid, xfm = out / "grid.nii.gz", out / "xfm.txt"
    images.save(grid, Volume(np.zeros((41, 41, 41), np.uint8), GRID))
    geometry.write_itk(xfm, np.eye(4))
    inputs = {"grid": grid, "xfm": xfm, "contours": made["contours"], "drawn": made["labels"]}
    inputs["registered"] = made["status"]
    names = {k: out / f"l_{k}.nii.gz" for k in ("labels", "coverage")}
    names |= {"names": out / "names.tsv", "status": out / "labelled.json"}
    label_tumors.main(inputs, names)
    volume = float(names["names"].read_text().splitlines()[1].split("\t")[2])
    assert volume == pytest.approx(np.pi / 6, rel=0.03)
