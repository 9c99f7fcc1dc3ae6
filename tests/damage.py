"""What is done to the NIfTI files of a tiny patient, for tests of faults."""

import json

import nibabel as nib
import numpy as np

from nanouptake import geometry
from nanouptake.images import load, save


def of_role(role, change):
    """Change one NIfTI file of a tiny patient; change gets the path and the volume."""

    def damage(folder):
        path = next(folder.glob(f"*_{role}.nii.gz"))
        change(path, load(path))

    return damage


def with_nan(path, volume):
    data = volume.data.astype(np.float32)
    data[5:9, 5:9, 5:9] = np.nan
    save(path, volume.like(data))


def two_forms(path, _):
    image = nib.load(path)
    shifted = image.affine.copy()
    shifted[:3, 3] += 5
    image.set_qform(shifted, code=1)
    image.set_sform(image.affine, code=1)
    image.to_filename(path)


def four_dimensional(path, volume):
    nib.Nifti1Image(np.stack([volume.data] * 2, -1), np.diag([4.0, 4, 4, 1])).to_filename(path)


def in_milliseconds(folder):
    """Sidecars in ms, as dcm2niix never writes them."""
    for path in folder.glob("*MP2RAGE.json"):
        header = json.loads(path.read_text())
        header["InversionTime"] *= 1000
        path.write_text(json.dumps(header))


def phantom_in_place(path, volume):
    """Write a ball of even signal: UNI of one T1, or a magnitude."""
    points = geometry.apply(volume.affine, np.indices(volume.shape).reshape(3, -1).T)
    ball_of = (np.linalg.norm(points - [5, -8, 3], axis=1) < 70).reshape(volume.shape)
    rng = np.random.default_rng(4)
    noise = rng.integers(0, 4096, volume.shape) if "UNIT1" in path.name else rng.integers(0, 9, volume.shape)
    level = 1500 if "UNIT1" in path.name else 3000
    level += 500 * ("inv-2" in path.name) + rng.integers(-40, 40, volume.shape)
    save(path, volume.like(np.where(ball_of, level, noise).astype(np.int16)))
