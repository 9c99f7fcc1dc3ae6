"""One MP2RAGE session of very small DICOM series, for tests of what is read and what is refused."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from nanouptake.mp2rage import Protocol

PROTOCOL = Protocol(
    tr_s=5.0,
    ti1_s=0.7,
    ti2_s=2.5,
    flip1_deg=4.0,
    flip2_deg=5.0,
    echo_spacing_s=0.00718,
    shots_before=48,
    shots_after=96,
)
SHAPE = (8, 20, 16)  # slices, rows, columns
RNG = np.random.default_rng(5)
INV2 = RNG.integers(500, 900, SHAPE)
CONTENT = {"INV1": INV2 // 2, "INV2": INV2, "UNI_Images": RNG.integers(0, 4096, SHAPE)}


def write_series(folder, description, pixels, *, patient="A", skip=(), change=None, image_type="M"):
    folder.mkdir(parents=True, exist_ok=True)
    uid = generate_uid(entropy_srcs=[description, patient])
    number = description.rpartition("INV")[2]
    for k, plane in enumerate(pixels):
        if k in skip:
            continue
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = MRImageStorage
        ds.SOPInstanceUID = generate_uid(entropy_srcs=[uid, str(k)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID = uid, generate_uid(entropy_srcs=[patient])
        ds.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame", patient])
        ds.PatientID, ds.PatientName, ds.Modality = patient, "NOBODY^X", "MR"
        ds.Manufacturer, ds.SeriesDescription = "SIEMENS", description
        ds.SeriesNumber, ds.InstanceNumber = 1 + sum(map(ord, description)) % 97, k + 1
        ds.ImageType = ["ORIGINAL", "PRIMARY", image_type, "ND"]
        ds.MagneticFieldStrength, ds.RepetitionTime, ds.EchoTime = 3, 5000, 2.98
        if number in ("1", "2"):
            ds.InversionTime, ds.FlipAngle = {"1": (700, 4), "2": (2500, 5)}[number]
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        ds.ImagePositionPatient = [10.0 - k, -8, 10]
        ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = [1, 1], 1, 1
        ds.Rows, ds.Columns = plane.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
        ds.PixelData = plane.astype("<u2").tobytes()
        if change:
            change(ds, k)
        ds.save_as(folder / f"{description}_{k}", enforce_file_format=True)


def session(folder, *, leave_out=(), **changes):
    for name, pixels in CONTENT.items():
        if name not in leave_out:
            write_series(folder / "deep", f"t1_mp2rage_sag_{name}", pixels, **changes.get(name, {}))
    return folder
