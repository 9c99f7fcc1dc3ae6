"""Files keep their geometry and their bytes; headers that say two things are refused."""

import nibabel as nib
import numpy as np
import pytest

from nanouptake import geometry, images
from nanouptake.concentration import concentration, noise_sd, resample
from nanouptake.errors import DataError
from nanouptake.images import Volume

TURN = geometry.rotation(x_deg=8, y_deg=-5, z_deg=12)
AFFINE = geometry.rigid(TURN, np.array([3.0, -20.0, 7.0])) @ np.diag([1.0, 1.2, 0.8, 1.0])


def test_round_trip_agrees_with_nibabel_and_repeats_its_bytes(tmp_path):
    volume = Volume(np.arange(60, dtype=np.uint16).reshape(3, 4, 5), AFFINE)
    images.save(tmp_path / "a.nii.gz", volume)
    images.save(tmp_path / "b.nii.gz", volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    again = images.load(tmp_path / "a.nii.gz")
    assert again.data.dtype == np.uint16
    assert np.array_equal(again.data, volume.data)
    assert np.allclose(again.affine, AFFINE, atol=1e-5)
    ras = nib.load(tmp_path / "a.nii.gz").affine
    assert np.allclose(np.diag([-1, -1, 1, 1]) @ ras, AFFINE, atol=1e-5)


def test_itk_files_are_read_by_ants_alike(tmp_path):
    """ANTs itself is the judge of what the file means."""
    import ants

    geometry.write_itk(tmp_path / "x.txt", AFFINE)
    assert np.array_equal(geometry.read_itk(tmp_path / "x.txt"), AFFINE)
    point = np.array([11.0, -3.0, 25.0])
    theirs = ants.read_transform(str(tmp_path / "x.txt")).apply_to_point(tuple(point))
    assert np.allclose(theirs, geometry.apply(AFFINE, point), atol=1e-4)


def nifti(tmp_path, data, change):
    image = nib.Nifti1Image(data, np.diag([1.0, 1, 1, 1]))
    change(image)
    nib.save(image, tmp_path / "x.nii")
    return tmp_path / "x.nii"


@pytest.mark.parametrize(
    ("shape", "change", "message"),
    [
        ((3, 3, 3, 2), lambda i: None, "not three-dimensional"),
        ((3, 3, 3), lambda i: i.set_qform(np.diag([-1.0, 1, 1, 1]), code=1), "place the image differently"),
        (
            (3, 3, 3),
            lambda i: (i.set_sform(None, code=0), i.set_qform(None, code=0)),
            "no position in space",
        ),
        (
            (3, 3, 3),
            lambda i: i.set_sform(np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
            "sheared|differently",
        ),
    ],
)
def test_ambiguous_headers_are_refused(tmp_path, shape, change, message):
    with pytest.raises(DataError, match=message):
        images.load(nifti(tmp_path, np.zeros(shape, np.float32), change))


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bjunk", b"no image at all" * 50])
def test_garbage_is_no_image(tmp_path, content):
    (tmp_path / "x.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match="not a whole NIfTI"):
        images.load(tmp_path / "x.nii.gz")


def test_resampling_a_smooth_field_is_exact_to_a_thousandth():
    """A cubic polynomial of the coordinates is reproduced by cubic B-splines away from the edge."""
    shape = (24, 24, 24)
    grid = Volume(np.zeros(shape), np.eye(4))
    matrix = geometry.rigid(
        geometry.rotation(z_deg=7.0, x_deg=-4.0), np.array([0.3, -0.6, 0.2]), centre_mm=np.full(3, 11.5)
    )

    def field(points):
        x, y, z = np.moveaxis(points, -1, 0)
        return 1 + 0.1 * x - 0.02 * y * z + 0.003 * x**2

    index = np.moveaxis(np.indices(shape), 0, -1)
    moving = grid.like(field(index.astype(float)).astype(np.float32))
    values, inside = resample(moving, shape=shape, affine=grid.affine, matrix=matrix)
    core = (slice(8, 16),) * 3
    assert inside[core].all()
    assert np.abs(values[core] - field(geometry.apply(matrix, index))[core]).max() < 2e-3
    assert np.isnan(values[~inside]).all()


def test_concentration_by_hand_and_noise_from_corners():
    """0.2 mM at 6.7 /mM/s on 1.5 s is 0.2667 mg/ml; a placebo's noise keeps its sign."""
    post = 1 / (1 / 1.5 + 6.7 * 0.2)
    factors = {"r1_per_mm_per_s": 6.7, "mg_per_ml_per_mm": 4 / 3}
    assert concentration(1.5, post, **factors) == pytest.approx(0.26667, abs=1e-5)
    assert concentration(1.5, 1.51, **factors) < 0
    rng = np.random.default_rng(0)
    air = np.hypot(*rng.normal(0, 7.0, (2, 64, 64, 64)))
    air[16:48, 16:48, 16:48] += 500
    assert noise_sd(air) == pytest.approx(7.0, rel=0.1)
