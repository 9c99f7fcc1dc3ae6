"""DICOM series are recognised by their headers, bad ones are refused by name, and nothing is guessed."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from dicom_session import CONTENT, INV2, PROTOCOL, RNG, SHAPE, session, write_series
from nanouptake.errors import DataError
from nanouptake.ingest import ingest, series_table
from nanouptake.mp2rage import Lookup
from nanouptake.protocol_check import main as protocol_of_folder


def read(folder, **kwargs):
    return ingest(folder, kind="session", protocol=PROTOCOL, **kwargs)


def scanner_t1(protocol):
    """T1 in ms as the scanner writes it, made with a protocol."""
    t1 = Lookup(protocol).estimate(CONTENT["UNI_Images"].astype(np.uint16)).t1_s
    return np.round(1000 * np.nan_to_num(t1)).clip(0, 4095).astype(int)


def test_the_scanners_t1_map_checks_the_protocol(tmp_path):
    write_series(session(tmp_path), "t1_mp2rage_sag_T1_Images", scanner_t1(PROTOCOL))
    found = read(tmp_path)
    assert found.protocol_check["rms_ms"] < 0.5
    assert not [f for f in found.flags if "protocol" in f]
    assert "it checks the protocol" in series_table(found.series, found.others)
    words = protocol_of_folder(str(tmp_path))
    for line in ("tr_s: 5.0", "ti2_s: 2.5", "shots_before: 48", "shots_after: 96"):
        assert line in words


def test_another_protocol_in_the_scanners_t1_map_stops_the_scan(tmp_path):
    other = replace(PROTOCOL, shots_before=72, shots_after=72)
    write_series(session(tmp_path), "t1_mp2rage_sag_T1_Images", scanner_t1(other))
    with pytest.raises(DataError, match="not the one this scan was made with") as error:
        read(tmp_path)
    assert "shots_before: 72, shots_after: 72" in error.value.wanted
    found = read(tmp_path, check={"limit_ms": 3.0, "refuse": False})
    assert "overridden" in found.flags[-1]


def test_a_session_is_read_with_values_and_geometry(tmp_path):
    write_series(session(tmp_path), "t1_mp2rage_sag_UNI-DEN", CONTENT["UNI_Images"])
    (tmp_path / "notes.txt").write_text("no DICOM")
    volumes, _, series, others, *_ = read(tmp_path)
    assert set(volumes) == {"UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE"}
    volume, side = volumes["inv-2_MP2RAGE"]
    assert side["InversionTime"] == pytest.approx(2.5)
    # Pixel (row 3, column 5) of slice 2 lies at IPP + 5 * row direction + 3 * column direction, LPS mm.
    index = np.linalg.inv(volume.affine) @ [10 - 2, -8 + 5, 10 - 3, 1]
    assert np.allclose(index, np.round(index), atol=1e-3)
    assert volume.data[tuple(np.round(index[:3]).astype(int))] == INV2[2, 3, 5]
    table = series_table(series, others)
    assert "denoised" in table
    assert "notes" not in table


def swap(ds, _):
    ds.InversionTime = 2500


def truncated(folder):
    path = next(folder.rglob("*INV1_3"))
    path.write_bytes(path.read_bytes()[:-100])


def zero_bytes(folder):
    next(folder.rglob("*INV1_3")).write_bytes(b"")


def again(folder):
    write_series(folder / "again", "t1_mp2rage_sag_rpt_UNI_Images", CONTENT["UNI_Images"])


def other_patient(folder):
    write_series(folder / "other", "localizer", INV2, patient="B")


def without_position(ds, k):
    if k == 2:
        del ds.ImagePositionPatient


FAULTS = {
    "no UNI": ({"leave_out": ("UNI_Images",)}, None, "no series for the role UNIT1"),
    "no INV1": ({"leave_out": ("INV1",)}, None, "no series for the role inv-1"),
    "two UNI": ({}, again, "2 series for the role UNIT1"),
    "two patients": ({}, other_patient, "more than one patient"),
    "slice missing": ({"INV1": {"skip": (3,)}}, None, "lacks slices"),
    "zero-byte slice": ({}, zero_bytes, "lacks slices"),
    "truncated slice": ({}, truncated, "dcm2niix|constant|converted"),
    "wrong timing": ({"INV1": {"change": swap}}, None, "found: 2500; wanted: 700"),
    "no position": ({"INV2": {"change": without_position}}, None, "lack their geometry"),
    "phase only": ({"INV1": {"image_type": "P"}}, None, "no series for the role inv-1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path, fault):
    arguments, damage, message = FAULTS[fault]
    session(tmp_path, **arguments)
    if damage:
        damage(tmp_path)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_swapped_inversions_are_noticed_even_with_swapped_headers(tmp_path):
    write_series(tmp_path, "t1_mp2rage_sag_INV1", INV2)
    write_series(tmp_path, "t1_mp2rage_sag_INV2", INV2 // 2)
    write_series(tmp_path, "t1_mp2rage_sag_UNI_Images", CONTENT["UNI_Images"])
    with pytest.raises(DataError, match="swapped"):
        read(tmp_path)


def test_an_override_settles_two_candidates(tmp_path):
    again(session(tmp_path))
    volumes, *_ = read(tmp_path, override={"UNIT1": "t1_mp2rage_sag_UNI_Images"})
    assert "UNIT1" in volumes


def test_scanner_t1_map_is_no_uni(tmp_path):
    session(tmp_path, leave_out=("UNI_Images",))
    write_series(tmp_path, "t1_mp2rage_sag_T1_Images", CONTENT["UNI_Images"])
    with pytest.raises(DataError, match="scanner's own T1 map"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", ["", "_PHS"])
def test_uni_is_made_of_phase_images_where_the_scanner_made_none(tmp_path, suffix):
    session(tmp_path, leave_out=("UNI_Images",))
    phases = RNG.integers(0, 4096, (2, *SHAPE))
    for number, phase in enumerate(phases, start=1):
        write_series(tmp_path / "phase", f"t1_mp2rage_sag_INV{number}{suffix}", phase, image_type="P")
    volumes, _, _, _, flags, _ = read(tmp_path)
    assert "made of INV1 and INV2" in flags[0]
    s1, s2 = CONTENT["INV1"], CONTENT["INV2"]
    turn = np.cos((phases[1] - phases[0]) * 2 * np.pi / 4096)
    wanted = np.round(4095 * (s1 * s2 * turn / (s1**2.0 + s2**2.0) + 0.5))
    volume = volumes["UNIT1"][0]
    for k, row, column in ((0, 0, 0), (2, 3, 5), (7, 19, 15)):
        index = np.round(np.linalg.inv(volume.affine) @ [10 - k, -8 + column, 10 - row, 1])[:3].astype(int)
        assert volume.data[tuple(index)] == wanted[k, row, column]


def test_a_phase_of_unknown_unit_is_refused(tmp_path):
    session(tmp_path, leave_out=("UNI_Images",))
    for number in (1, 2):
        phase = RNG.integers(0, 1000, SHAPE)
        write_series(tmp_path / "phase", f"t1_mp2rage_sag_INV{number}", phase, image_type="P")
    with pytest.raises(DataError, match="unit of the phase"):
        read(tmp_path)


def test_nothing_identifying_reaches_the_sidecar(tmp_path):
    def canary(ds, _):
        ds.InstitutionName, ds.PatientBirthDate, ds.StudyDate = "CANARY", "19010203", "20310405"

    session(tmp_path, INV1={"change": canary})
    volumes, *_ = read(tmp_path)
    assert all(isinstance(v, float) for _, side in volumes.values() for v in side.values())


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "nowhere")


def test_the_writer_writes_what_pydicom_reads(tmp_path):
    write_series(tmp_path, "x_INV1", INV2)
    assert pydicom.dcmread(tmp_path / "x_INV1_0").pixel_array.tolist() == INV2[0].tolist()
