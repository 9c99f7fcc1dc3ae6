"""DICOM of the reference trial: image series as a 3 T Siemens scanner writes them, and RTSTRUCT."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from .reference_anatomy import Tumour

MR_STORAGE = UID("1.2.840.10008.5.1.4.1.1.4")
CT_STORAGE = UID("1.2.840.10008.5.1.4.1.1.2")
RT_STORAGE = UID("1.2.840.10008.5.1.4.1.1.481.3")
STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"
CONTOUR_STEP_MM = 0.5


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Voxels of a series in scanner LPS mm; axes run along columns, rows and slices of the images."""

    shape: tuple[int, int, int]
    spacing_mm: np.ndarray
    axes: np.ndarray  # columns: directions in which the column, row and slice indices rise
    centre_mm: np.ndarray

    @property
    def affine(self) -> np.ndarray:
        """The 4 x 4 matrix from (column, row, slice) to scanner LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.axes * self.spacing_mm
        matrix[:3, 3] = self.centre_mm - matrix[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return matrix


def orientation(plane: str, *, tilt: np.ndarray | None = None) -> np.ndarray:
    """Return the axes of sagittal (P, F, L) or axial (L, P, H) images, tilted by a rotation."""
    axes = {
        "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
        "axial": np.eye(3),
    }[plane]
    return axes if tilt is None else tilt @ axes


@dataclass(frozen=True, kw_only=True)
class Study:
    """Who and when; entropy makes all UIDs."""

    entropy: str
    patient: str
    session: str
    word: str
    birth_date: str
    date: str
    time: str

    def uid(self, *parts: object) -> UID:
        """Return the UID of this study's object with the given name."""
        return generate_uid(entropy_srcs=["|".join([self.entropy, self.patient, *map(str, parts)])])

    def common(self) -> Dataset:
        """Return the patient and study part of a header."""
        ds = Dataset()
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = self.date
        ds.InstanceCreationDate = self.date
        ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = self.time
        ds.AccessionNumber = f"{self.word}{self.patient}"
        ds.Manufacturer = "SIEMENS"
        ds.InstitutionName = f"{self.word} HOSPITAL"
        ds.InstitutionAddress = f"{self.word} STREET 1"
        ds.ReferringPhysicianName = f"{self.word}^REFERRER"
        ds.OperatorsName = f"{self.word}^OPERATOR"
        ds.StationName = f"{self.word}MRC1"
        ds.StudyDescription = "Head^Brain"
        ds.PatientName = f"{self.word}^{self.patient}"
        ds.PatientID = f"{self.word}-MRN-{self.patient}"
        ds.PatientBirthDate = self.birth_date
        ds.PatientSex = "O"
        ds.PatientAge = "130Y"
        ds.PatientWeight = "70"
        ds.PatientComments = f"{self.word} comment"
        ds.StudyInstanceUID = self.uid(self.session, "study")
        ds.StudyID = "1"
        return ds


@dataclass(frozen=True, kw_only=True)
class Written:
    """What an RTSTRUCT needs of a series that was written."""

    study_uid: str
    series_uid: str
    frame_uid: str
    class_uid: str
    instance_uids: list[str] = field(repr=False)
    grid: Grid


def write_series(
    folder: Path,
    *,
    study: Study,
    grid: Grid,
    pixels: np.ndarray,
    number: int,
    frame: str,
    header: dict[str, Any],
    modality: str = "MR",
) -> Written:
    """Write a series, one file per slice with names that mean nothing.

    Parameters
    ----------
    pixels : ndarray
        uint16, shape (slice, row, column).
    frame : str
        Name of the frame of reference; series with one name share its UID.
    header : dict
        DICOM keywords and values of this series; they override the common ones.
    """
    ds = study.common()
    ds.Modality = modality
    ds.SOPClassUID = CT_STORAGE if modality == "CT" else MR_STORAGE
    ds.SeriesInstanceUID = study.uid(study.session, "series", number)
    ds.SeriesNumber = number
    ds.SeriesTime = ds.ContentTime = f"{study.time[:2]}{20 + number:02d}00"
    ds.AcquisitionNumber = 1
    ds.FrameOfReferenceUID = study.uid("frame", frame)
    ds.PositionReferenceIndicator = ""
    ds.PatientPosition = "HFS"
    ds.BodyPartExamined = "HEAD" if modality == "CT" else "BRAIN"
    ds.ImageOrientationPatient = [f"{v:.10f}" for v in (*grid.axes[:, 0], *grid.axes[:, 1])]
    ds.PixelSpacing = [f"{v:g}" for v in (grid.spacing_mm[1], grid.spacing_mm[0])]
    ds.SliceThickness = f"{grid.spacing_mm[2]:g}"
    ds.SpacingBetweenSlices = f"{grid.spacing_mm[2]:g}"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = grid.shape[1], grid.shape[0]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    window = np.percentile(pixels[pixels.shape[0] // 2], [2, 99])
    ds.WindowCenter, ds.WindowWidth = str(round(window.mean())), str(max(1, round(np.ptp(window))))
    for keyword, value in header.items():
        setattr(ds, keyword, value)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta = meta
    name = hashlib.sha256(ds.SeriesInstanceUID.encode()).hexdigest()
    target = folder / "DICOM" / name[:4].upper() / name[4:12].upper()
    target.mkdir(parents=True, exist_ok=True)
    affine = grid.affine
    uids: list[str] = []
    for k in range(grid.shape[2]):
        position = affine[:3, 2] * k + affine[:3, 3]
        uid = study.uid(study.session, "image", number, k)
        uids.append(uid)
        ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = uid
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = [f"{v:.8f}" for v in position]
        ds.SliceLocation = f"{affine[:3, 2] @ position / grid.spacing_mm[2]:.6f}"
        ds.PixelData = np.ascontiguousarray(pixels[k], "<u2").tobytes()
        file = target / hashlib.sha256(uid.encode()).hexdigest()[:12].upper()
        ds.save_as(file, enforce_file_format=True)
    return Written(
        study_uid=ds.StudyInstanceUID,
        series_uid=ds.SeriesInstanceUID,
        frame_uid=ds.FrameOfReferenceUID,
        class_uid=ds.SOPClassUID,
        instance_uids=uids,
        grid=grid,
    )


def ellipse_on_slice(
    tumour: Tumour, *, head_to_scanner: np.ndarray, affine: np.ndarray, index: int
) -> np.ndarray | None:
    """Return the tumour's outline in the plane of a slice, (n, 3) scanner LPS mm; None where it misses.

    The outline is the exact ellipse in which the surface meets the plane, its points at most
    CONTOUR_STEP_MM apart.
    """
    linear = head_to_scanner[:3, :3]
    centre = linear @ tumour.centre_mm + head_to_scanner[:3, 3]
    to_unit = tumour.to_unit @ linear.T
    u, v = (affine[:3, a] / np.linalg.norm(affine[:3, a]) for a in (0, 1))
    normal = np.cross(u, v)
    start = centre + normal * (normal @ (affine[:3, 2] * index + affine[:3, 3] - centre))
    # |B p + d| = 1 in the plane's coordinates p.
    basis = to_unit @ np.stack([u, v], 1)
    offset = to_unit @ (start - centre)
    form = basis.T @ basis
    middle = -np.linalg.solve(form, basis.T @ offset)
    size2 = 1 - offset @ offset + middle @ form @ middle
    if size2 <= 1e-4:
        return None
    values, vectors = np.linalg.eigh(form)
    semi = np.sqrt(size2 / values)
    n = max(24, int(np.ceil(2 * np.pi * semi.max() / CONTOUR_STEP_MM)))
    angle = np.arange(n) * 2 * np.pi / n
    flat = middle + (vectors * semi @ np.stack([np.cos(angle), np.sin(angle)])).T
    return start + flat @ np.stack([u, v])


def write_rtstruct(
    folder: Path,
    *,
    study: Study,
    on: Written,
    rois: dict[str, list[tuple[int, np.ndarray]]],
    types: dict[str, str],
) -> None:
    """Write an RTSTRUCT; rois gives (slice index, points) pairs by name, types the interpreted type."""
    ds = study.common()
    ds.Manufacturer = f"{study.word} PLANNING"
    ds.Modality = "RTSTRUCT"
    ds.SOPClassUID = RT_STORAGE
    ds.SOPInstanceUID = study.uid(study.session, "rtstruct")
    ds.StudyInstanceUID = on.study_uid
    ds.SeriesInstanceUID = study.uid(study.session, "series", "rtstruct")
    ds.SeriesNumber = 99
    ds.SeriesDescription = "RTSTRUCT"
    ds.FrameOfReferenceUID = on.frame_uid
    ds.StructureSetLabel = "GTV"
    ds.StructureSetDate, ds.StructureSetTime = study.date, study.time
    ds.ApprovalStatus = "UNAPPROVED"

    def image(k: int) -> Dataset:
        item = Dataset()
        item.ReferencedSOPClassUID = on.class_uid
        item.ReferencedSOPInstanceUID = on.instance_uids[k]
        return item

    series = Dataset()
    series.SeriesInstanceUID = on.series_uid
    series.ContourImageSequence = Sequence([image(k) for k in range(len(on.instance_uids))])
    referenced = Dataset()
    referenced.ReferencedSOPClassUID = STUDY_MANAGEMENT
    referenced.ReferencedSOPInstanceUID = on.study_uid
    referenced.RTReferencedSeriesSequence = Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = on.frame_uid
    frame.RTReferencedStudySequence = Sequence([referenced])
    ds.ReferencedFrameOfReferenceSequence = Sequence([frame])
    structures, contours, observations = [], [], []
    for number, (name, outlines) in enumerate(rois.items(), 1):
        structure = Dataset()
        structure.ROINumber = number
        structure.ReferencedFrameOfReferenceUID = on.frame_uid
        structure.ROIName = name
        structure.ROIGenerationAlgorithm = "MANUAL"
        structures.append(structure)
        contour = Dataset()
        contour.ROIDisplayColor = [255, 40 * number % 256, 0]
        contour.ReferencedROINumber = number
        items = []
        for k, points in outlines:
            item = Dataset()
            item.ContourImageSequence = Sequence([image(k)])
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourData = [f"{v:.2f}" for v in points.ravel()]
            items.append(item)
        contour.ContourSequence = Sequence(items)
        contours.append(contour)
        observation = Dataset()
        observation.ObservationNumber = number
        observation.ReferencedROINumber = number
        observation.RTROIInterpretedType = types[name]
        observation.ROIInterpreter = ""
        observations.append(observation)
    ds.StructureSetROISequence = Sequence(structures)
    ds.ROIContourSequence = Sequence(contours)
    ds.RTROIObservationsSequence = Sequence(observations)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = RT_STORAGE
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    name = hashlib.sha256(ds.SOPInstanceUID.encode()).hexdigest().upper()
    target = folder / "DICOM" / name[:4]
    target.mkdir(parents=True, exist_ok=True)
    ds.save_as(target / name[:12], enforce_file_format=True)
