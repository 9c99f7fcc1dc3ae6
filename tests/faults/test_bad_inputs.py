"""Bad inputs, one by one, through the steps of the workflow: each ends in a status that names the cure."""

import dataclasses
import gzip
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import RLELossless

import ingest_planning
import ingest_session
import label_tumors
import map_t1
import register_sessions
import tiny_trial
from damage import four_dimensional, in_milliseconds, of_role, phantom_in_place, two_forms, with_nan
from dicom_session import CONTENT, INV2, PROTOCOL, session, write_series
from nanouptake import geometry
from nanouptake.images import Volume, load, save
from nanouptake.reference_dicom import Grid, Study, orientation, write_rtstruct
from nanouptake.reference_dicom import write_series as write_stack
from nanouptake.steps import read_status

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is done to a good input, how the step must end, and what its words must hold."""

    damage: Callable[[Path], object]
    outcome: str = "failed"
    words: tuple[str, ...] = ()


def read_session(folder, out):
    """Run ingest of a session; return its status."""
    names = {"t1w": "T1w", "uni": "UNIT1", "inv1": "inv-1", "inv2": "inv-2", "tb1": "TB1map"}
    made = {k: str(out / f"{v}.nii.gz") for k, v in names.items()}
    made |= {f"{k}_json": str(out / f"{v}.json") for k, v in names.items()}
    made |= {"series": str(out / "series.tsv"), "status": str(out / "ingest.json")}
    ingest_session.main(str(folder), "pre", made, dataclasses.asdict(PROTOCOL), {}, {})
    return read_status(made["status"]), made


def judge(status, made, fault):
    """Check outcome and words; outputs of a failed step are empty, of another one whole."""
    state = "failed" if not status["ok"] else "flagged" if status["flags"] else "ok"
    words = status["reason"] or "; ".join(status["flags"])
    print(f"\n{state}: {words}")
    assert state == fault.outcome, words
    for word in fault.words:
        assert word in words, words
    if state == "failed":
        assert "cure: " in words
        assert "found: " in words or "wanted: " in words
        assert "file: " in words
        for path in (p for k, p in made.items() if k != "status"):
            assert Path(path).stat().st_size == 0


# ---------------------------------------------------------------- sessions as DICOM


def without(description):
    """Remove a series."""

    def damage(folder):
        for path in folder.rglob(f"*{description}_*"):
            path.unlink()

    return damage


def rename_series(old, new):
    def damage(folder):
        for path in folder.rglob(f"*{old}_*"):
            ds = pydicom.dcmread(path)
            ds.SeriesDescription = ds.SeriesDescription.replace(old, new)
            ds.save_as(path)

    return damage


def change_series(description, change):
    """Change every header of a series; change gets the dataset and the slice's number."""

    def damage(folder):
        for k, path in enumerate(sorted(folder.rglob(f"*{description}_*"))):
            ds = pydicom.dcmread(path)
            change(ds, k)
            ds.save_as(path)

    return damage


def set_tags(**tags):
    def change(ds, _):
        for name, value in tags.items():
            setattr(ds, name, value)

    return change


def swap_inversions(folder):
    """INV1 holds what INV2 should and the other way round, headers and all."""
    for path in folder.rglob("*INV*"):
        path.unlink()
    write_series(folder / "deep", "t1_mp2rage_sag_INV1", INV2)
    write_series(folder / "deep", "t1_mp2rage_sag_INV2", INV2 // 2)


def phase_among_magnitude(folder):
    """Phase images in the series of INV1, as some exports have them: they are set aside."""
    write_series(folder / "more", "t1_mp2rage_sag_INV1", CONTENT["UNI_Images"], image_type="P")


def bytes_of_one(change):
    def damage(folder):
        path = next(folder.rglob("*INV2_3"))
        path.write_bytes(change(path.read_bytes()))

    return damage


def compress(ds, _):
    ds.compress(RLELossless, generate_instance_uid=False)


def raw_element(keyword, content, vr=None):
    """Put bytes into a field of one image, whatever they mean."""

    def change(ds, k):
        if k == 3:
            tag = Tag(keyword)
            vr_there = vr or dictionary_VR(tag)
            ds._dict[tag] = RawDataElement(
                tag, vr_there, len(content), content, 0, is_implicit_VR=False, is_little_endian=True
            )

    return change


def multi_frame(folder):
    """UNI as one enhanced-like file of several frames without geometry that could be checked."""
    first = sorted(folder.rglob("*UNI_Images_*"))
    ds = pydicom.dcmread(first[0])
    ds.NumberOfFrames = len(first)
    ds.PixelData = CONTENT["UNI_Images"].astype("<u2").tobytes()
    for path in first:
        path.unlink()
    ds.save_as(folder / "deep" / "t1_mp2rage_sag_UNI_Images_0")


def mixed_orientation(ds, k):
    if k == 4:
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def doubled_place(ds, k):
    if k == 4:
        ds.ImagePositionPatient = [10.0 - 3, -8, 10]


def no_position(ds, _):
    del ds.ImagePositionPatient


def empty(folder):
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.unlink()


SESSION_DICOM = {
    "UNI missing": Fault(without("UNI_Images"), words=("no series for the role UNIT1", "series_UNIT1")),
    "INV1 missing": Fault(without("INV1"), words=("no series for the role inv-1_MP2RAGE",)),
    "UNI doubled": Fault(
        lambda f: write_series(f / "again", "t1_mp2rage_sag_rpt_UNI_Images", CONTENT["UNI_Images"]),
        words=("2 series for the role UNIT1", "series_UNIT1"),
    ),
    "INV1 and INV2 swapped": Fault(swap_inversions, words=("INV1 is brighter than INV2", "swapped")),
    "UNI-DEN only": Fault(rename_series("UNI_Images", "UNI-DEN"), words=("denoised UNI",)),
    "T1_Images for UNI": Fault(rename_series("UNI_Images", "T1_Images"), words=("scanner's own T1 map",)),
    "phase among magnitude": Fault(phase_among_magnitude, outcome="flagged"),
    "truncated file": Fault(bytes_of_one(lambda b: b[:-100]), words=("dcm2niix",)),
    "zero-byte file": Fault(bytes_of_one(lambda _: b""), words=("lacks slices", "1 missing")),
    "file that is no DICOM": Fault(bytes_of_one(lambda _: b"GIF89a" * 99), words=("lacks slices",)),
    "nothing but other files": Fault(
        lambda f: (empty(f), (f / "a.txt").write_text("x")), words=("no DICOM series at all",)
    ),
    "slice missing": Fault(lambda f: next(f.rglob("*INV1_4")).unlink(), words=("lacks slices",)),
    "two patients": Fault(
        lambda f: write_series(f / "other", "localizer", INV2, patient="B"),
        words=("more than one patient", "a folder of their own"),
    ),
    "wrong inversion time": Fault(
        change_series("INV1", set_tags(InversionTime=900)), words=("found: 900; wanted: 700",)
    ),
    "wrong repetition time": Fault(
        change_series("INV2", set_tags(RepetitionTime=6000)), words=("found: 6000; wanted: 5000",)
    ),
    "a position that is no number": Fault(
        change_series("INV1", raw_element("ImagePositionPatient", b"1\\x\\3 ")),
        words=("header of series", "ImagePositionPatient", "1 of 8 images"),
    ),
    "two flip angles in one field": Fault(
        change_series("INV2", raw_element("FlipAngle", b"4\\5 ")), words=("damaged", "FlipAngle")
    ),
    "a field of an unknown kind": Fault(
        change_series("INV2", raw_element("PixelSpacing", b"1\\1 ", vr="ZZ")), words=("lacks slices",)
    ),
    "a link to nothing": Fault(
        lambda f: (f / "IM_9").symlink_to(f / "gone"), outcome="flagged", words=("no T1w",)
    ),
    "multi-frame without geometry": Fault(multi_frame, words=("not where its slices are",)),
    "compressed transfer syntax": Fault(change_series("UNI_Images", compress), outcome="flagged"),
    "slices of two orientations": Fault(
        change_series("INV2", mixed_orientation), words=("different orientation",)
    ),
    "two images at one place": Fault(
        change_series("INV1", doubled_place), words=("two images at one place",)
    ),
    "split copy without positions": Fault(
        change_series("UNI_Images", no_position), words=("lack their geometry", "export the original")
    ),
    "constant UNI": Fault(
        change_series("UNI_Images", lambda ds, _: setattr(ds, "PixelData", b"\x01\x00" * (20 * 16))),
        words=("is constant",),
    ),
    "empty folder": Fault(empty, words=("no DICOM series at all",)),
    "folder missing": Fault(lambda f: (empty(f), f.rename(f.with_name("gone"))), words=("does not exist",)),
}


@pytest.mark.parametrize("name", SESSION_DICOM)
def test_sessions_of_dicom(tmp_path, name):
    fault = SESSION_DICOM[name]
    folder = session(tmp_path / "scan")
    fault.damage(folder)
    status, made = read_session(folder, tmp_path / "out")
    judge(status, made, fault)


def test_the_same_session_without_damage(tmp_path):
    """The only flag is the missing MPRAGE: what the faults above flag or fail is their own."""
    status, made = read_session(session(tmp_path / "scan"), tmp_path / "out")
    judge(status, made, Fault(lambda _: None, "flagged", ("no T1w",)))
    values = load(made["uni"]).data.ravel()
    for damage in (phase_among_magnitude, change_series("UNI_Images", compress)):
        folder = session(tmp_path / damage.__name__ / "scan")
        damage(folder)
        status, again = read_session(folder, folder.parent / "out")
        assert len(status["flags"]) == 1
        assert np.array_equal(load(again["uni"]).data.ravel(), values)


# ---------------------------------------------------------------- sessions as NIfTI


def sidecar_of(text):
    """Write the sidecar of INV1."""

    def damage(folder):
        next(folder.glob("*inv-1_MP2RAGE.json")).write_text(text)

    return damage


def without_rotation(packed):
    """Return the file with a quaternion longer than 1."""
    raw = bytearray(gzip.decompress(packed))
    raw[256:268] = struct.pack("<3f", 1, 1, 1)
    return gzip.compress(bytes(raw), 1)


SESSION_NIFTI = {
    "NaN in UNI": Fault(of_role("UNIT1", with_nan), words=("constant or holds NaN", "finite")),
    "constant INV2": Fault(
        of_role("inv-2_MP2RAGE", lambda p, v: save(p, v.like(np.full(v.shape, 7, np.int16)))),
        words=("constant or holds NaN",),
    ),
    "sform and qform differ": Fault(of_role("UNIT1", two_forms), words=("sform and qform", "mm apart")),
    "four dimensions": Fault(of_role("UNIT1", four_dimensional), words=("not three-dimensional",)),
    "truncated gzip": Fault(
        of_role("UNIT1", lambda p, _: p.write_bytes(p.read_bytes()[:2000])), words=("not a whole NIfTI",)
    ),
    "UNI rescaled to -0.5..0.5": Fault(
        of_role("UNIT1", lambda p, v: save(p, v.like(v.data.astype(np.float32) / 4095 - 0.5))),
        words=("not on the scanner's scale",),
    ),
    "INV1 of another grid": Fault(
        of_role("inv-1_MP2RAGE", lambda p, v: save(p, Volume(v.data[:-2], v.affine))),
        words=("not on one grid",),
    ),
    "sidecar that is no JSON": Fault(sidecar_of("{"), words=("sidecar cannot be read",)),
    "sidecar that is a list": Fault(sidecar_of("[]"), words=("sidecar cannot be read",)),
    "sidecar with a time that is no number": Fault(
        sidecar_of('{"InversionTime": NaN}'), words=("found: nan", "wanted: 0.7")
    ),
    "affine that is no rotation": Fault(
        of_role("UNIT1", lambda p, _: p.write_bytes(without_rotation(p.read_bytes()))),
        words=("NIfTI",),
    ),
    "times in ms": Fault(in_milliseconds, words=("found: 700", "wanted: 0.7")),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One tiny patient's scans."""
    return tiny_trial.write_study(tmp_path_factory.mktemp("tiny"), patients=1) / "scans/T001"


def copy_scan(source, target):
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize("name", SESSION_NIFTI)
def test_sessions_of_nifti(tmp_path, tiny, name):
    fault = SESSION_NIFTI[name]
    folder = copy_scan(tiny / "pre", tmp_path / "scan")
    fault.damage(folder)
    status, made = read_session(folder, tmp_path / "out")
    judge(status, made, fault)


# ---------------------------------------------------------------- planning: images and RTSTRUCT

STUDY = Study(
    entropy="faults", patient="F1", session="planning", word="X",
    birth_date="19500101", date="20300101", time="080000",
)  # fmt: skip
BOX = Grid(
    shape=(40, 40, 20), spacing_mm=np.array([1.0, 1.0, 2.0]), axes=orientation("axial"), centre_mm=np.zeros(3)
)


def ring(radius_mm, z_mm, *, centre=(0.0, 0.0), n=40):
    angle = np.arange(n) * 2 * np.pi / n
    return np.column_stack(
        [centre[0] + radius_mm * np.cos(angle), centre[1] + radius_mm * np.sin(angle), np.full(n, z_mm)]
    )


def ball(radius_mm=6.0, *, centre=(0.0, 0.0, 0.0)):
    """Outlines of a sphere on the slices of BOX: (slice, points)."""
    heights = (np.arange(BOX.shape[2]) - (BOX.shape[2] - 1) / 2) * BOX.spacing_mm[2]
    return [
        (k, ring(np.sqrt(radius_mm**2 - (z - centre[2]) ** 2), z, centre=centre[:2]))
        for k, z in enumerate(heights)
        if abs(z - centre[2]) < radius_mm - 0.1
    ]


def write_planning(folder, rois, *, grid=BOX, edit=None, change=None):
    """Write an MR and an RTSTRUCT; edit gets the RTSTRUCT's dataset, change the folder."""
    pixels = np.random.default_rng(2).integers(10, 900, grid.shape[::-1]).astype(np.uint16)
    written = write_stack(
        folder, study=STUDY, grid=grid, pixels=pixels, number=3, frame="mr",
        header={"SeriesDescription": "t1_mprage_tra_ce", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"]},
    )  # fmt: skip
    write_rtstruct(folder, study=STUDY, on=written, rois=rois, types=dict.fromkeys(rois, "GTV"))
    path = next(p for p in folder.rglob("*") if p.is_file() and pydicom.dcmread(p).Modality == "RTSTRUCT")
    if edit:
        ds = pydicom.dcmread(path)
        edit(ds)
        ds.save_as(path)
    if change:
        change(path)


def another_frame(ds):
    for roi in ds.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3.4"


def of_first_roi(change):
    def edit(ds):
        change(ds.ROIContourSequence[0])

    return edit


def points_only(roi):
    del roi.ContourSequence[1:]
    roi.ContourSequence[0].ContourGeometricType = "POINT"
    roi.ContourSequence[0].ContourData = ["1", "2", "3"]


def one_open(roi):
    roi.ContourSequence[1].ContourGeometricType = "OPEN_PLANAR"


def renamed(name):
    def edit(ds):
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.StructureSetROISequence[0].ROIName = name

    return edit


TWO = {"GTV 1": ball(), "GTV 2": ball(4, centre=(10.0, 8.0, 6.0))}
PLANNING = {
    "no RTSTRUCT": ({"change": lambda p: p.unlink()}, Fault(dict, words=("no RTSTRUCT",))),
    "two RTSTRUCT": (
        {"change": lambda p: p.with_name("copy").write_bytes(p.read_bytes())},
        Fault(dict, words=("more than one RTSTRUCT", "approved")),
    ),
    "RTSTRUCT truncated": (
        {"change": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2])},
        Fault(dict, words=("RTSTRUCT",)),
    ),
    "another frame of reference": ({"edit": another_frame}, Fault(dict, words=("frame of reference",))),
    "no contours drawn": (
        {"edit": of_first_roi(lambda roi: setattr(roi, "ContourSequence", []))},
        Fault(dict, "ok"),
    ),
    "only points": ({"edit": of_first_roi(points_only)}, Fault(dict, "ok")),
    "an open contour": (
        {"edit": of_first_roi(one_open)},
        Fault(dict, words=("GTV_1 cannot be used", "no closed polygon")),
    ),
    "no name matches": (
        {"edit": lambda ds: [setattr(r, "ROIName", f"P{r.ROINumber}") for r in ds.StructureSetROISequence]},
        Fault(dict, words=("no structure is a tumour", "P1", "^GTV")),
    ),
    "two structures of one name": (
        {"edit": renamed("GTV 2")},
        Fault(dict, words=("two tumours have one name",)),
    ),
    "name ../../x": ({"edit": renamed("GTV/../../../../tmp/x")}, Fault(dict, "ok")),
    "name of 300 characters": ({"edit": renamed("GTV" + "9" * 297)}, Fault(dict, "ok")),
    "name in Chinese": ({"edit": renamed("GTV 脑转移瘤")}, Fault(dict, "ok")),
}  # fmt: skip


def names_of(content):
    """Write the table of names beside a label image."""

    def damage(folder):
        next(folder.glob("*_dseg.tsv")).write_bytes(content)

    return damage


def plan(folder, out):
    made = {k: str(out / f"{k}.nii.gz") for k in ("t1w", "ct", "labels")}
    made |= {"contours": str(out / "c.json"), "series": str(out / "s.tsv"), "status": str(out / "p.json")}
    ingest_planning.main(str(folder), made, {}, "^GTV")
    return read_status(made["status"]), made


@pytest.mark.parametrize("name", PLANNING)
def test_planning(tmp_path, name):
    arguments, fault = PLANNING[name]
    write_planning(tmp_path / "scan", TWO, **arguments)
    status, made = plan(tmp_path / "scan", tmp_path / "out")
    judge(status, made, fault)
    if fault.outcome == "ok":
        content = json.loads(Path(made["contours"]).read_text())
        names = [t["name"] for t in content["tumors"]]
        left_out = name in ("no contours drawn", "only points")
        assert len(names) == (1 if left_out else 2)
        assert ("GTV_1" in [n for n, _ in content["set_aside"]]) == left_out
        assert all(Path(n).name == n and len(n) <= 64 and n.isascii() for n in names)


NAMES = {
    "names in Latin-1": Fault(names_of("index\tname\n1\tGTVä\n".encode("latin-1")), words=("UTF-8",)),
    "a row without a name": Fault(names_of(b"index\tname\n1\n"), words=("table of names",)),
    "names separated by commas": Fault(names_of(b"index,name\n1,GTV1\n"), words=("tabs",)),
    "names saved by a spreadsheet": Fault(names_of(b"\xef\xbb\xbfindex\tname\r\n1\tGTV1\r\n"), "ok"),
    "no table of names": Fault(lambda f: next(f.glob("*_dseg.tsv")).unlink(), words=("no table of names",)),
}


@pytest.mark.parametrize("name", NAMES)
def test_planning_of_nifti(tmp_path, tiny, name):
    folder = copy_scan(tiny / "planning", tmp_path / "scan")
    NAMES[name].damage(folder)
    status, made = plan(folder, tmp_path / "out")
    judge(status, made, NAMES[name])


@pytest.mark.parametrize("kind", ["DICOM", "RTSTRUCT", "NIfTI"])
def test_damaged_bytes_end_in_a_status(tmp_path, tiny, kind):
    """Bytes of a header drawn by lot: the step ends with a status; an exception would stop the whole run."""
    draw = random.Random(7)
    if kind == "DICOM":
        files = sorted(p for p in session(tmp_path / "scan").rglob("*") if p.is_file())
    elif kind == "NIfTI":
        files = sorted(copy_scan(tiny / "pre", tmp_path / "scan").glob("*.nii.gz"))
    else:
        write_planning(tmp_path / "scan", TWO)
        written = [p for p in (tmp_path / "scan").rglob("*") if p.is_file()]
        files = [p for p in written if pydicom.dcmread(p).Modality == "RTSTRUCT"]
    ended = {True: 0, False: 0}
    for _ in range(40):
        path = draw.choice(files)
        whole = path.read_bytes()
        raw = bytearray(gzip.decompress(whole) if kind == "NIfTI" else whole)
        first, last = (0, 348) if kind == "NIfTI" else (128, min(len(raw), 4000))
        for _ in range(3):
            raw[draw.randrange(first, last)] = draw.randrange(256)
        path.write_bytes(gzip.compress(bytes(raw), 1) if kind == "NIfTI" else raw)
        read = plan if kind == "RTSTRUCT" else read_session
        status, _ = read(tmp_path / "scan", tmp_path / "out")
        assert status["ok"] or "cure: " in status["reason"]
        ended[status["ok"]] += 1
        path.write_bytes(whole)
    print(f"\n40 damaged: {ended[False]} failed with a reason, {ended[True]} read all the same")
    assert ended[False] > 3


# ---------------------------------------------------------------- tumours on the grid


def label(tmp_path, rois, *, grid_shift=(0.0, 0.0, 0.0), grid=BOX):
    """Run planning ingest and labelling onto a grid of 1 mm; return the status and the table of names."""
    write_planning(tmp_path / "scan", rois, grid=grid)
    status, made = plan(tmp_path / "scan", tmp_path / "out")
    assert status["ok"], status["reason"]
    out = tmp_path / "out"
    affine = np.eye(4)
    affine[:3, 3] = np.array(grid_shift) - 20
    save(out / "grid.nii.gz", Volume(np.zeros((41, 41, 41), np.uint8), affine))
    geometry.write_itk(out / "xfm.txt", np.eye(4))
    inputs = {"grid": out / "grid.nii.gz", "xfm": out / "xfm.txt", "contours": made["contours"]}
    inputs |= {"drawn": made["labels"], "registered": made["status"]}
    names = {k: out / f"l_{k}.nii.gz" for k in ("labels", "coverage")}
    names |= {"names": out / "names.tsv", "status": out / "labelled.json"}
    label_tumors.main(inputs, names)
    rows = [line.split("\t") for line in names["names"].read_text().splitlines()[1:]]
    return read_status(names["status"]), {row[1]: float(row[2]) for row in rows}


def test_a_tumour_outside_the_field_of_view_is_flagged(tmp_path):
    status, volumes = label(tmp_path, TWO, grid_shift=(60.0, 0, 0))
    judge(status, {}, Fault(dict, "flagged", ("GTV_1 lies outside", "GTV_2 lies outside")))
    assert volumes == {"GTV_1": 0, "GTV_2": 0}


def test_a_tumour_cut_by_the_edge_is_flagged(tmp_path):
    status, volumes = label(tmp_path, {"GTV": ball()}, grid_shift=(20.0, 0, 0))
    judge(status, {}, Fault(dict, "flagged", ("GTV lies partly outside", "%")))
    assert volumes["GTV"] == pytest.approx(
        0.5 * 4 / 3 * np.pi * 0.216 + 0.05 * np.pi * 0.36,
        rel=0.02,  # the voxels begin 0.5 mm before
    )


def test_a_tumour_of_three_voxels_keeps_its_volume(tmp_path):
    small = {"GTV": [(9, ring(0.7, -1.0)), (10, ring(0.7, 1.0))]}
    status, volumes = label(tmp_path, small)
    assert status["ok"]
    assert 0.001 < volumes["GTV"] < 0.008


def test_holes_and_keyholes_are_open(tmp_path):
    """A ring drawn as two polygons and as one keyhole polygon has the same volume."""
    outer = [k for k, _ in ball()]
    heights = {k: p[0, 2] for k, p in ball()}
    holes = {"GTV": [(k, r) for k in outer for r in (ring(9, heights[k]), ring(4, heights[k]))]}
    keyhole = {
        "GTV": [
            (k, np.vstack([ring(9, heights[k]), ring(9, heights[k])[:1], ring(4, heights[k])[::-1],
                           ring(4, heights[k])[-1:]]))
            for k in outer
        ]
    }  # fmt: skip
    _, first = label(tmp_path / "a", holes)
    _, second = label(tmp_path / "b", keyhole)
    assert first["GTV"] == pytest.approx(second["GTV"], rel=0.01)
    area = np.pi * (81 - 16)
    assert first["GTV"] * 1000 == pytest.approx(area * 2 * len(outer), rel=0.1)


def test_oblique_slices_keep_the_volume(tmp_path):
    tilt = geometry.rotation(x_deg=25)
    grid = dataclasses.replace(BOX, axes=orientation("axial", tilt=tilt))
    outlines = [(k, points @ tilt.T) for k, points in ball()]
    _, volumes = label(tmp_path, {"GTV": outlines}, grid=grid)
    assert volumes["GTV"] == pytest.approx(4 / 3 * np.pi * 0.216, rel=0.05)


# ---------------------------------------------------------------- registration


def register(out, made):
    """Map T1 of the pre scan and register the post scan to it; return the status."""
    out.mkdir()
    protocol = dataclasses.asdict(PROTOCOL) | {"shots_before": 44, "shots_after": 88}
    mapped = {k: str(out / f"{k}.nii.gz") for k in ("t1", "validity")}
    mapped |= {"sidecar": str(out / "t1.json"), "status": str(out / "map.json")}
    pre, post = made["pre"], made["post"]
    map_t1.main(pre["uni"], pre["inv2"], pre["tb1"], pre["status"], mapped, protocol)
    inputs = {"fixed": pre["uni"], "fixed_inv2": pre["inv2"], "fixed_t1": mapped["t1"]}
    inputs |= {"moving": post["uni"], "moving_inv2": post["inv2"]}
    inputs |= {"fixed_status": mapped["status"], "moving_status": post["status"]}
    result = {"xfm": str(out / "xfm.txt"), "status": str(out / "registered.json")}
    register_sessions.main(inputs, result, "post", 1)
    return read_status(result["status"])


def stored_from_right_to_left(path, volume):
    """Write the same image with its first axis reversed, and the affine that says so."""
    reverse = np.diag([-1.0, 1, 1, 1])
    reverse[0, 3] = volume.shape[0] - 1
    save(path, Volume(volume.data[::-1].copy(), volume.affine @ reverse))


@pytest.mark.parametrize(
    ("name", "change", "outcome"),
    [
        ("a phantom in place of the head", phantom_in_place, "flagged"),
        ("stored from right to left", stored_from_right_to_left, "ok"),
    ],
)
def test_registrations(tmp_path, tiny, name, change, outcome):
    """What is no head never passes as ok; another storage order with its affine is the same image."""
    folders = {}
    for timepoint in ("pre", "post"):
        source = copy_scan(tiny / timepoint, tmp_path / f"scan_{timepoint}")
        if timepoint == "post":
            for path in source.glob("*.nii.gz"):
                change(path, load(path))
        status, folders[timepoint] = read_session(source, tmp_path / timepoint)
        assert status["ok"], status["reason"]
    print("\n" + name)
    status = register(tmp_path / "out", folders)
    words = status["reason"] or "; ".join(status["flags"])
    state = "failed" if not status["ok"] else "flagged" if status["flags"] else "ok"
    print(f"\n{state}: {words}")
    if outcome == "ok":
        assert status["ok"]
    else:
        assert state in ("failed", "flagged")
        assert "regist" in words
