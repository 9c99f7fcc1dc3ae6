"""From a folder of DICOM or NIfTI to checked volumes with known roles."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from . import geometry, images
from .errors import DAMAGED, DataError
from .images import Volume
from .mp2rage import Protocol, combine, to_dn
from .provenance import digest

# Values are checked here, not by pydicom: its warnings print them, and UIDs may hold dates.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

#: role, modality, pattern of the series description, value that ImageType must hold, why others are out
ROLES: tuple[tuple[str, str, str, str | None], ...] = (
    ("UNIT1", "MR", r"UNI(_Images)?$", "UNI"),
    ("inv-1_MP2RAGE", "MR", r"INV1$", None),
    ("inv-2_MP2RAGE", "MR", r"INV2$", None),
    ("TB1map", "MR", r"(?!)", None),  # only as scans.tsv names it: scanners' B1 maps differ in unit
    ("T1w", "MR", r"mprage|mp_rage|mpr\b|t1.*tfl|bravo|t1w", None),
    ("CT", "CT", r"", None),
    ("RTSTRUCT", "RTSTRUCT", r"", None),
)
#: patterns of series that look like a role and are not, with the reason
SET_ASIDE: tuple[tuple[str, str], ...] = (
    (r"UNI[-_]?DEN", "denoised UNI: its T1 would be biased"),
    (r"T1_Images|T1[-_ ]?map", SCANNER_T1 := "the scanner's own T1 map: it checks the protocol"),
    (r"localizer|scout|survey", "localizer"),
)
WANTED = {
    "session": ("UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE", "T1w", "TB1map", "T1map"),
    "planning": ("T1w", "CT", "RTSTRUCT", "dseg"),
}
REQUIRED = {"session": ("UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE"), "planning": ("T1w",)}
PHASE = "phase images"
#: what pydicom raises on files that are no DICOM, or damaged
NO_DICOM: tuple[type[Exception], ...] = (InvalidDicomError, BytesLengthException, *DAMAGED)
#: the only header fields that leave the DICOM
SIDECAR = (
    "MagneticFieldStrength",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "EchoTime",
    "SliceThickness",
    "SpacingBetweenSlices",
)
TAGS = [
    *SIDECAR,
    "SeriesInstanceUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "InstanceNumber",
    "FrameOfReferenceUID",
    "PatientID",
    "NumberOfFrames",
    "SeriesNumber",
]
SPACING_MM = (0.05, 25.0)
#: fields that hold so many numbers
NUMBERS = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    **dict.fromkeys(("Rows", "Columns", "NumberOfFrames", *SIDECAR), 1),
}


@dataclass
class Series:
    """One series found in a folder."""

    uid: str
    description: str
    modality: str
    headers: list[pydicom.Dataset]
    files: list[Path]
    role: str = ""
    reason: str = ""
    flags: list[str] = field(default_factory=list)

    @property
    def image_type(self) -> tuple[str, ...]:
        """ImageType of the first image."""
        return tuple(str(v) for v in self.headers[0].get("ImageType", ()))


def read_header(path: Path) -> pydicom.Dataset:
    """Read the fields of TAGS, decoded here so that a damaged one fails here."""
    with warnings.catch_warnings(action="ignore"):  # they print values
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)
        for tag in TAGS:
            header.get(tag)
    return header


def scan_folder(folder: Path) -> tuple[list[Series], list[tuple[str, str]]]:
    """Walk a folder once; return its series and the files that are no DICOM, with the reason."""
    if not folder.is_dir():
        raise DataError(
            "the scan's folder does not exist",
            file=str(folder),
            field="path",
            wanted="a folder of DICOM or NIfTI",
            cure="correct the path in scans.tsv or bring the data",
        )
    groups: dict[tuple[str, str], Series] = {}
    others: list[tuple[str, str]] = []
    patients = set()
    for parent, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            path = Path(parent, name)
            if not path.is_file():
                others.append((str(path.relative_to(folder)), "not DICOM (a link to nothing, or no file)"))
                continue
            try:
                header = read_header(path)
            except NO_DICOM as error:
                kind = "empty file" if path.stat().st_size == 0 else type(error).__name__
                others.append((str(path.relative_to(folder)), f"not DICOM ({kind})"))
                continue
            uid = str(header.get("SeriesInstanceUID", ""))
            if not uid:
                others.append((str(path.relative_to(folder)), "DICOM without a series (DICOMDIR?)"))
                continue
            patients.add(str(header.get("PatientID", "")))
            component = "phase" if "P" in header.get("ImageType", ())[2:3] else "magnitude"
            series = groups.setdefault(
                (uid, component),
                Series(
                    uid, str(header.get("SeriesDescription", "")), str(header.get("Modality", "")), [], []
                ),
            )
            series.headers.append(header)
            series.files.append(path)
            if component == "phase":
                series.reason = PHASE
    if len(patients) > 1:
        raise DataError(
            "the folder holds more than one patient",
            file=str(folder),
            field="PatientID",
            found=f"{len(patients)} different values",
            wanted="one",
            cure="put each patient's scans in a folder of their own",
        )
    return list(groups.values()), others


def assign_roles(series: list[Series], *, kind: str, override: dict[str, str] | None = None) -> None:
    """Give every series its role or the reason why it has none.

    ``override`` maps a role to a series description and settles what the rules leave open.
    """
    override = override or {}
    for one in series:
        if one.reason:
            continue
        aside = next((why for pattern, why in SET_ASIDE if re.search(pattern, one.description, re.I)), None)
        for role, modality, pattern, image_type in ROLES:
            if role in override:
                if one.description == override[role] and one.modality == modality:
                    one.role, one.reason = role, "chosen in scans.tsv"
                    break
                continue
            fits = re.search(pattern, one.description, re.I) or (image_type and image_type in one.image_type)
            if role == "T1w" and re.search("mp2rage", one.description, re.I):
                fits = None
            if one.modality == modality and fits and aside is None:
                one.role = role
                break
        if not one.role:
            one.reason = aside or "no role in this study"
        elif one.role not in WANTED[kind]:
            one.role, one.reason = "", f"not used at a {kind} timepoint"


def choose(series: list[Series], role: str, *, folder: Path, required: bool) -> Series | None:
    """Return the one series of a role; DataError when there is none (if required) or more than one."""
    found = [s for s in series if s.role == role]
    listing = "; ".join(
        f"'{s.description}' ({s.modality}, {len(s.files)} files: {s.role or s.reason})" for s in series
    )
    if len(found) > 1 or (required and not found):
        raise DataError(
            f"{'no' if not found else len(found)} series for the role {role}",
            file=str(folder),
            field=role,
            found=listing or "no DICOM series at all",
            wanted="exactly one",
            cure=f"bring the missing series, or name the right one in scans.tsv, column series_{role}",
        )
    return found[0] if found else None


def check_numbers(one: Series) -> None:
    """Check that the fields of NUMBERS hold so many finite numbers, or nothing."""
    for tag, count in NUMBERS.items():
        bad = [p for p, h in zip(one.files, one.headers, strict=True) if not _finite(h.get(tag), count)]
        if bad:
            raise DataError(
                f"a header of series '{one.description}' is damaged",
                field=tag,
                found=f"{len(bad)} of {len(one.files)} images where it is not {count} finite numbers",
                wanted="a number" if count == 1 else f"{count} numbers",
                cure="export the series again",
            )


def _finite(value: object, count: int) -> bool:
    if value is None:
        return True
    try:
        numbers = np.atleast_1d(np.array(value, float))
    except (TypeError, ValueError):
        return False
    return numbers.shape == (count,) and bool(np.isfinite(numbers).all())


def check_stack(one: Series) -> np.ndarray:
    """Check that a series is one stack of parallel, evenly spaced slices; return their spacing in mm."""
    name = f"'{one.description}'"
    check_numbers(one)
    if any(int(h.get("NumberOfFrames", 1) or 1) > 1 for h in one.headers):
        return np.array([])  # enhanced multi-frame: dcm2niix reads it, the volume is checked afterwards
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns"):
        lacking = sum(h.get(tag) is None for h in one.headers)
        if lacking:
            raise DataError(
                f"images of series {name} lack their geometry",
                field=tag,
                found=f"{lacking} of {len(one.files)} images without it",
                cure="export the original series again (split copies of it lose their geometry)",
            )
    orientation = np.array([h.ImageOrientationPatient for h in one.headers], float)
    if np.ptp(orientation, axis=0).max() > 1e-3:
        raise DataError(
            f"series {name} holds slices of different orientation",
            field="ImageOrientationPatient",
            found=f"directions that differ by up to {np.ptp(orientation, axis=0).max():.3f}",
            wanted="parallel slices",
            cure="give one stack per series",
        )
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    along = np.sort(np.array([h.ImagePositionPatient for h in one.headers], float) @ normal)
    gaps = np.diff(along)
    if gaps.size < 2:
        raise DataError(
            f"series {name} is not a volume",
            found=f"{len(one.files)} slices",
            wanted="at least 3",
            cure="export the whole series",
        )
    usual = float(np.median(gaps))
    if usual < 1e-3 or (gaps < 0.5 * usual).any():
        raise DataError(
            f"series {name} has two images at one place",
            field="ImagePositionPatient",
            found=f"{int((gaps < 0.5 * max(usual, 1e-3)).sum())} doubled positions",
            cure="remove the doubled files or split the repetitions",
        )
    if (gaps > 1.5 * usual).any():
        lost = int(np.round(gaps[gaps > 1.5 * usual] / usual - 1).sum())
        raise DataError(
            f"series {name} lacks slices",
            field="ImagePositionPatient",
            found=f"{len(one.files)} slices, {lost} missing between them",
            wanted=f"even spacing of {usual:.3f} mm",
            cure="export the series again, whole",
        )
    if np.ptp(gaps) > 0.05 * usual:
        raise DataError(
            f"series {name} is unevenly spaced",
            field="ImagePositionPatient",
            found=f"gaps of {gaps.min():.3f} to {gaps.max():.3f} mm",
            wanted="one spacing",
            cure="export the original series",
        )
    return gaps


def convert(one: Series) -> Volume:
    """Convert one series with dcm2niix and check the volume against the DICOM geometry."""
    check_stack(one)
    program = Path(sys.executable).with_name("dcm2niix")
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch, "in"), Path(scratch, "out")
        source.mkdir()
        target.mkdir()
        for number, path in enumerate(one.files):
            (source / f"{number:05d}").symlink_to(path.resolve())
        run = subprocess.run(
            [
                str(program) if program.exists() else "dcm2niix",
                *["-z", "n", "-b", "n", "-w", "1", "-m", "1", "-f", "image", "-o"],
                str(target),
                str(source),
            ],
            capture_output=True,
            check=False,
        )
        made = sorted(target.glob("*.nii"))
        if run.returncode or len(made) != 1:
            raise DataError(
                f"dcm2niix could not convert series '{one.description}'",
                found=f"{len(made)} images, exit status {run.returncode}",
                wanted="one volume",
                cure="check that the series is one whole stack (truncated files, mixed sizes?)",
            )
        volume = images.load(made[0])
    if volume.data.dtype == np.float64 and np.abs(volume.data).max(initial=0) < 2**15:
        whole = volume.data.astype(np.int16)
        if np.array_equal(whole, volume.data):  # Hounsfield units behind a rescale slope of 1
            volume = volume.like(whole)
    if volume.data.size == 0 or volume.data.min() == volume.data.max():
        raise DataError(
            f"series '{one.description}' is constant",
            found=f"every voxel is {volume.data.flat[0]}",
            cure="export the series again",
        )
    first = one.headers[0]
    if first.get("ImagePositionPatient") is not None:
        corners = np.array([h.ImagePositionPatient for h in one.headers], float)
        index = geometry.apply(np.linalg.inv(volume.affine), corners)
        off = np.abs(index - np.round(index)).max()
        if off > 0.02 or len(one.files) not in volume.shape:
            raise DataError(
                f"the converted volume of '{one.description}' is not where its slices are",
                found=f"{off:.3f} voxels apart, shape {volume.shape}",
                cure="report this series: its geometry is unusual",
            )
    return volume


def expected_header(role: str, protocol: Protocol) -> dict[str, tuple[float, float]]:
    """Return what the protocol says of a series' header: field to (value in ms or degrees, tolerance)."""
    number = {"inv-1_MP2RAGE": 1, "inv-2_MP2RAGE": 2}.get(role)
    wanted = {"RepetitionTime": (protocol.tr_s * 1000, 1.0)}
    if number:
        wanted["InversionTime"] = ((protocol.ti1_s, protocol.ti2_s)[number - 1] * 1000, 1.0)
        wanted["FlipAngle"] = ((protocol.flip1_deg, protocol.flip2_deg)[number - 1], 0.05)
    return wanted


def protocol_table(volumes: dict[str, tuple[Volume, dict]], protocol: Protocol) -> list[dict]:
    """Return one row per MP2RAGE image and field: what the header says (None: nothing), what the config."""
    return [
        {"image": role, "field": name, "header": side.get(name), "config": value / scale, "unit": unit}
        for role, (_, side) in volumes.items()
        if role not in ("T1w", "TB1map")
        for name, (value, _) in expected_header(role, protocol).items()
        for scale, unit in [(1000, "s") if name.endswith("Time") else (1, "degrees")]
    ]


def check_sidecar(fields: dict[str, float], role: str, protocol: Protocol, *, file: str) -> None:
    """Compare a BIDS sidecar, in seconds and degrees, with the protocol, as far as it has the fields."""
    for name, (value, tolerance) in expected_header(role, protocol).items():
        scale = 1000 if name.endswith("Time") else 1
        found = fields.get(name)
        if found is not None and not abs(found * scale - value) <= tolerance:  # NaN is no match
            raise DataError(
                "the sidecar contradicts the configured MP2RAGE protocol",
                file=file,
                field=name,
                found=f"{found:g}",
                wanted=f"{value / scale:g} (config, mp2rage)",
                cure="correct the config if the protocol changed; sidecars hold seconds, not milliseconds",
            )


def check_header(one: Series, role: str, protocol: Protocol) -> None:
    """Compare the timings in the header with the configured protocol; DataError names both values."""
    check_numbers(one)
    for name, (value, tolerance) in expected_header(role, protocol).items():
        found = one.headers[0].get(name)
        if found is None:
            one.flags.append(f"{role}: header lacks {name}")
        elif abs(float(found) - value) > tolerance:
            raise DataError(
                f"the scan's header contradicts the configured MP2RAGE protocol ('{one.description}')",
                field=name,
                found=f"{float(found):g}",
                wanted=f"{value:g} (config, mp2rage)",
                cure="correct the config if the protocol changed; check that INV1 and INV2 are not swapped",
            )


def sidecar(one: Series) -> dict[str, float]:
    """Return the whitelisted header fields, times in seconds as in BIDS."""
    found = {}
    for name in SIDECAR:
        value = one.headers[0].get(name)
        if value is not None:
            found[name] = float(value) / (1000 if name.endswith("Time") else 1)
    return found


def read_nifti_folder(folder: Path, *, kind: str) -> dict[str, tuple[Volume, dict]] | None:
    """Return volume and sidecar per role when the folder holds BIDS-named NIfTI; None when it has none."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*.nii*")):
        for role in WANTED[kind]:
            if re.search(rf"(^|_){role}\.nii(\.gz)?$", path.name, re.IGNORECASE):
                found[role].append(path)
    if not found:
        return None
    for role in REQUIRED[kind]:
        if len(found[role]) != 1:
            raise DataError(
                f"{len(found[role]) or 'no'} NIfTI files for the role {role}",
                file=str(folder),
                found=[p.name for paths in found.values() for p in paths],
                wanted="exactly one",
                cure=f"name it …_{role}.nii.gz",
            )
    result = {}
    for role, paths in found.items():
        if len(paths) != 1:
            raise DataError(
                f"{len(paths)} NIfTI files for the role {role}",
                file=str(folder),
                found=", ".join(p.name for p in paths),
                wanted="one",
                cure="keep one",
            )
        volume = images.load(paths[0])
        if not np.isfinite(volume.data).all() or volume.data.min() == volume.data.max():
            raise DataError(
                "the image is constant or holds NaN",
                file=str(paths[0]),
                wanted="finite values that differ",
                cure="convert the scan again",
            )
        result[role] = (volume, read_sidecar(paths[0].with_name(paths[0].name.split(".nii")[0] + ".json")))
    return result


def read_sidecar(path: Path) -> dict[str, float]:
    """Return the numbers of a BIDS sidecar whose keys are in SIDECAR; nothing where there is none."""
    try:
        fields = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return {k: fields[k] for k in SIDECAR if isinstance(fields.get(k), int | float)}
    except DAMAGED as error:
        raise DataError(
            "the sidecar cannot be read",
            file=str(path),
            found=type(error).__name__,
            wanted="a JSON object",
            cure="convert the scan again, or remove the sidecar (the protocol is then not checked)",
        ) from error


def uni_of_phase(magnitudes: list[Volume], phases: list[Volume]) -> Volume:
    """Return UNI, 0..4095, of the magnitude and phase images of INV1 and INV2.

    The phase of air takes every value: the range found tells the unit (4096 or 8192 steps or 2 pi a turn).
    Raises DataError for any other range, and for grids that differ.
    """
    signals = []
    for number, (size, angle) in enumerate(zip(magnitudes, phases, strict=True), start=1):
        found = float(np.ptp(angle.data))
        turn = next((t for t in (2 * np.pi, 4096.0, 8192.0) if 0.95 * t <= found <= t + 1e-3), None)
        if turn is None:
            raise DataError(
                f"the unit of the phase of INV{number} is not known",
                found=f"a range of {found:.4g}",
                wanted="a turn of 4096 or 8192 steps or 2 pi",
                cure="export the phase images unscaled, or bring the scanner's UNI",
            )
        if size.shape != angle.shape or not np.allclose(size.affine, angle.affine, atol=0.01):
            raise DataError(
                f"magnitude and phase of INV{number} lie on different grids",
                found=f"{size.shape} and {angle.shape}",
                cure="export both images of the same scan",
            )
        signals.append(size.data * np.exp(1j * (2 * np.pi / turn) * angle.data.astype(np.float64)))
    return magnitudes[0].like(to_dn(np.nan_to_num(combine(*signals))))


def check_spacing(volumes: dict[str, tuple[Volume, dict]], folder: Path) -> None:
    """Check that every image's voxels have a size that scanners make."""
    low, high = SPACING_MM
    for role, (volume, _) in volumes.items():
        if not ((volume.spacing_mm > low) & (volume.spacing_mm < high)).all():
            raise DataError(
                f"the voxels of {role} have a size that no scanner makes",
                file=str(folder),
                field="spacing",
                found=" x ".join(f"{s:.3g}" for s in volume.spacing_mm) + " mm",
                wanted=f"{low:g} to {high:g} mm",
                cure="convert the DICOM again (an affine in m or um instead of mm?)",
            )


def check_session(volumes: dict[str, Volume]) -> None:
    """Check that INV1, INV2 and UNI are one scan and that UNI is a UNI."""
    uni = volumes["UNIT1"]
    for role in ("inv-1_MP2RAGE", "inv-2_MP2RAGE"):
        other = volumes[role]
        if other.shape != uni.shape or np.abs(other.affine - uni.affine).max() > 1e-2:
            raise DataError(
                f"{role} and UNIT1 are not on one grid",
                found=f"{other.shape} and {uni.shape}",
                cure="give INV1, INV2 and UNI of the same acquisition",
            )
    low, high = float(uni.data.min()), float(uni.data.max())
    if low < 0 or high > 4095 or high < 2048:
        raise DataError(
            "the UNI image is not on the scanner's scale",
            field="UNIT1",
            found=f"{low:g} to {high:g}",
            wanted="0 to 4095",
            cure="export the original UNI images (not a T1 map, not rescaled)",
        )
    # Of the voxels with signal, INV2 is the brighter one for nearly all tissue.
    inv1, inv2 = volumes["inv-1_MP2RAGE"].data, volumes["inv-2_MP2RAGE"].data
    bright = inv2 > np.percentile(inv2[::4, ::4, ::4], 90)
    if np.median(inv1[bright].astype(float)) > np.median(inv2[bright].astype(float)):
        raise DataError(
            "INV1 is brighter than INV2",
            field="inv-1_MP2RAGE, inv-2_MP2RAGE",
            wanted="the second inversion to be the brighter one, as it is for nearly all tissue",
            cure="the two are swapped: correct the roles in scans.tsv",
        )


class Ingested(NamedTuple):
    """What a folder holds: volume and sidecar by role, RTSTRUCT, what was found, flags, protocol check."""

    volumes: dict[str, tuple[Volume, dict]]
    rtstruct: Path | None
    series: list[Series]
    others: list[tuple[str, str]]
    flags: list[str]
    protocol_check: dict[str, float]


def series_digests(found: Ingested) -> dict[str, str]:
    """Return what identifies each role's series and nobody: its UID hashed; of NIfTI the voxels' digest."""
    uids = {s.role: s.uid for s in found.series if s.role}
    return {
        role: digest(uids[role].encode() if role in uids else np.ascontiguousarray(volume.data).tobytes())
        for role, (volume, _) in found.volumes.items()
    } | {role: digest(uid.encode()) for role, uid in uids.items()}


def check_protocol(
    uni: Volume, scanner_t1: Volume | None, protocol: Protocol | None, check: dict | None
) -> tuple[dict[str, float], list[str]]:
    """Compare the protocol with a scanner's own T1 map; return the figures and flags (nothing without a map).

    ``check`` holds limit_ms and refuse. A map whose median is above 20 is in ms.
    """
    if scanner_t1 is None or protocol is None:
        return {}, []
    if scanner_t1.shape != uni.shape or np.abs(scanner_t1.affine - uni.affine).max() > 1e-2:
        return {}, ["the scanner's T1 map lies on another grid than UNI: the protocol was not checked"]
    from . import protocol_check

    settings = {"limit_ms": 3.0, "refuse": True} | (check or {})
    seconds = scanner_t1.data.astype(np.float64)
    if np.median(seconds[seconds > 0]) > 20:
        seconds /= 1000
    try:
        result = protocol_check.check(uni.data, seconds, protocol)
    except DataError as error:
        return {}, [f"the protocol was not checked: {error.problem} ({error.found})"]
    return protocol_check.details(result), protocol_check.judge(result, **settings)


def ingest(
    folder: Path,
    *,
    kind: str,
    protocol: Protocol | None,
    override: dict[str, str] | None = None,
    check: dict | None = None,
) -> Ingested:
    """Read a timepoint's folder; with a protocol, check headers and the scanner's own T1 map against it."""
    series, others = scan_folder(folder)
    if not series and (nifti := read_nifti_folder(folder, kind=kind)) is not None:
        check_spacing(nifti, folder)
        if kind == "session":
            scanner_t1 = nifti.pop("T1map", (None,))[0]
            check_session({role: v for role, (v, _) in nifti.items()})
            for role in REQUIRED[kind]:
                if protocol is not None:
                    check_sidecar(nifti[role][1], role, protocol, file=f"{folder}/…_{role}.json")
            figures, found = check_protocol(nifti["UNIT1"][0], scanner_t1, protocol, check)
            return Ingested(nifti, None, [], others, found, figures)
        if "dseg" not in nifti:
            raise DataError(
                "no label image in the planning folder",
                file=str(folder),
                found=sorted(nifti),
                wanted="…_dseg.nii.gz and …_dseg.tsv (index, name)",
                cure="bring the label image, or the DICOM with its RTSTRUCT",
            )
        return Ingested(nifti, None, [], others, [], {})
    assign_roles(series, kind=kind, override=override)
    volumes: dict[str, tuple[Volume, dict]] = {}
    rtstruct, flags = None, []
    phases = [
        s
        for n in (1, 2)
        for s in series
        if s.reason == PHASE and re.search(rf"INV{n}(?!\d)", s.description, re.I)
    ]
    by_phase = kind == "session" and len(phases) == 2 and all(s.role != "UNIT1" for s in series)
    for role in WANTED[kind]:
        if role == "T1map":
            continue
        required = role in REQUIRED[kind] and not (role == "UNIT1" and by_phase)
        one = choose(series, role, folder=folder, required=required)
        if one is None:
            continue
        if role == "RTSTRUCT":
            if len(one.files) > 1:
                raise DataError(
                    "more than one RTSTRUCT file",
                    file=str(folder),
                    found=len(one.files),
                    wanted=1,
                    cure="keep the approved one",
                )
            rtstruct = one.files[0]
            continue
        if protocol is not None and kind == "session" and role not in ("T1w", "TB1map"):
            check_header(one, role, protocol)
        volumes[role] = (convert(one), sidecar(one))
        flags += one.flags
    if by_phase:
        inversions = [volumes[f"inv-{n}_MP2RAGE"][0] for n in (1, 2)]
        volumes["UNIT1"] = (uni_of_phase(inversions, [convert(s) for s in phases]), {})
        flags.append("UNI was made of INV1 and INV2 with their phase images: the folder has none")
    check_spacing(volumes, folder)
    checked: dict[str, float] = {}
    if kind == "session":
        check_session({role: v for role, (v, _) in volumes.items()})
        maps = [s for s in series if s.reason == SCANNER_T1]
        if len(maps) == 1:
            own = convert(maps[0])
            checked, found = check_protocol(volumes["UNIT1"][0], own, protocol, check)
            flags += found
    elif rtstruct is None:
        raise DataError(
            "no RTSTRUCT in the planning folder",
            file=str(folder),
            found="; ".join(f"'{s.description}' ({s.modality})" for s in series),
            cure="export the structure set together with its images",
        )
    return Ingested(volumes, rtstruct, series, others, flags, checked)


def series_table(series: list[Series], others: list[tuple[str, str]]) -> str:
    """Return series.tsv: every series and every file that is no DICOM, its role or why it has none.

    File names and folders stay out of it: they can hold a patient's name.
    """
    lines = ["series\tdescription\tn_files\trole\treason"]
    ordered = sorted(series, key=lambda s: (s.description, s.uid))
    for number, one in enumerate(ordered, start=1):
        description = re.sub(r"\s+", " ", one.description)
        lines.append(f"{number}\t{description}\t{len(one.files)}\t{one.role}\t{one.reason}")
    for reason, count in sorted({r: [o[1] for o in others].count(r) for _, r in others}.items()):
        lines.append(f"\t\t{count}\t\t{reason}")
    return "\n".join(lines) + "\n"
