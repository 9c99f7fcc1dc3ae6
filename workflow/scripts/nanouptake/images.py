"""The only place that opens or writes NIfTI files. In memory a volume's affine leads to LPS mm."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip

from . import geometry
from .errors import DataError

GZIP_LEVEL = 1  # isal's levels 1-3 differ by 2 % in size and by a third in time (benchmarks/t1map.py)


@dataclass(frozen=True)
class Volume:
    """A 3-D array and the 4 x 4 affine from voxel indices (i, j, k) to LPS mm at voxel centres."""

    data: np.ndarray
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along i, j, k."""
        i, j, k = self.data.shape
        return i, j, k

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between neighbouring voxel centres along i, j, k in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def like(self, data: np.ndarray) -> Volume:
        """Return another array on the same grid."""
        return Volume(data, self.affine)


def load(path: str | Path) -> Volume:
    """Read a 3-D NIfTI file whose header is unambiguous.

    Integers stay integers when the file has no scaling. Raises DataError for anything but a readable
    3-D image, for sform and qform that disagree by more than 0.01 mm at a corner, for a sheared or
    missing geometry.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = igzip.decompress(raw)
        image = nib.Nifti1Image.from_bytes(raw)
        data = np.asanyarray(image.dataobj)
        with np.errstate(all="ignore"):
            forms = (*image.get_sform(coded=True), *image.get_qform(coded=True))
    except MemoryError:
        raise  # no fault of the file: the job is tried again with more
    except OSError as error:
        raise DataError(
            "cannot read the image", file=str(path), found=error, cure="give a readable NIfTI file"
        ) from error
    except Exception as error:
        raise DataError(
            "not a whole NIfTI image",
            file=str(path),
            found=f"{type(error).__name__}: {error}" if path.stat().st_size else "an empty file",
            wanted="a .nii or .nii.gz file",
            cure="export the image again",
        ) from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise DataError(
            "the image is not three-dimensional",
            file=str(path),
            found=f"{data.ndim} dimensions {data.shape}",
            wanted="one 3-D volume",
            cure="split the series so that each file holds one volume",
        )
    return Volume(data, geometry.FLIP @ _affine(forms, data.shape, path))


def _affine(forms: tuple, shape: tuple[int, ...], path: Path) -> np.ndarray:
    """Return the RAS affine, refused where the header says two things or nothing."""
    sform, scode, qform, qcode = forms
    if not scode and not qcode:
        raise DataError(
            "the image has no position in space",
            file=str(path),
            field="sform_code, qform_code",
            found="both 0",
            wanted="at least one above 0",
            cure="convert the DICOM again with dcm2niix",
        )
    if scode and qcode:
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape])).reshape(3, -1).T
        with np.errstate(all="ignore"):
            apart = geometry.displacement_mm(sform, qform, corners).max()
        if not apart <= 0.01:
            raise DataError(
                "sform and qform place the image differently",
                file=str(path),
                found=f"{apart:.2f} mm apart",
                wanted="at most 0.01 mm",
                cure="make them agree (the programs of this field disagree on which one counts)",
            )
    affine = sform if scode else qform
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or (spacing <= 0).any():
        raise DataError(
            "the image's affine is degenerate",
            file=str(path),
            found=f"spacing {spacing}",
            wanted="three positive spacings",
            cure="convert the DICOM again with dcm2niix",
        )
    axes = affine[:3, :3] / spacing
    if abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise DataError(
            "the image is sheared",
            file=str(path),
            field="sform",
            wanted="three perpendicular axes",
            cure="convert without gantry-tilt shear or resample the image",
        )
    return np.asarray(affine, float)


def encode(volume: Volume, *, compressed: bool) -> list[bytes | memoryview]:
    """Return the content of a NIfTI file in pieces: the same volume always gives the same bytes."""
    data = volume.data.astype(np.uint8) if volume.data.dtype == bool else volume.data
    image = nib.Nifti1Image(data, None)
    ras = geometry.FLIP @ volume.affine
    image.set_qform(ras, code=1)
    image.set_sform(ras, code=1)
    header = image.header
    header.set_xyzt_units("mm", "sec")
    header.set_data_offset(352)
    header.set_slope_inter(1, 0)
    values = np.ascontiguousarray(data.astype(data.dtype.newbyteorder("<"), copy=False).T)
    pieces = [header.binaryblock + bytes(4), values.reshape(-1).view(np.uint8).data]
    return [igzip.compress(b"".join(pieces), GZIP_LEVEL, mtime=0)] if compressed else pieces


def save(path: str | Path, volume: Volume) -> None:
    """Write a volume; the file appears whole or not at all."""
    path = Path(path)
    write_atomic(path, encode(volume, compressed=path.suffix == ".gz"))


def write_atomic(path: str | Path, content: bytes | str | list[bytes | memoryview]) -> None:
    """Write a file so that a reader never sees a part of it."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            pieces = content if isinstance(content, list) else [content]
            stream.writelines(p.encode() if isinstance(p, str) else p for p in pieces)
        part.replace(path)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}; the file cannot be written; cure: free space or make the folder writable, "
            "then run again: what is done is kept",
            str(path),
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
