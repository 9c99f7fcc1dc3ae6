"""Registration of small digital heads with known transforms, and what it says of wrong ones."""

import numpy as np
import pytest
from scipy import ndimage

from nanouptake import geometry, registration
from nanouptake.errors import DataError
from nanouptake.images import Volume

SHAPE, SPACING = (64, 80, 72), 2.5
GRID = np.diag([SPACING, SPACING, SPACING, 1.0])
GRID[:3, 3] = -0.5 * SPACING * (np.array(SHAPE) - 1)


def head(points):
    """Return a head without symmetry: scalp, brain, 150 blobs of two tissues; points are (n, 3) mm."""
    radius = np.linalg.norm(points / [62.0, 80.0, 70.0], axis=1)
    rng = np.random.default_rng(5)
    blobs = np.zeros(len(points))
    for _ in range(150):
        centre, size = rng.uniform(-60, 60, 3), rng.uniform(4, 9)
        blobs += rng.choice([-1, 1]) * np.exp(-0.5 * ((points - centre) ** 2).sum(axis=1) / size**2)
    tissue = 1 / (1 + np.exp(-6 * blobs))
    brain = 1 / (1 + np.exp((radius - 0.85) * 60))
    scalp = np.exp(-0.5 * ((radius - 0.97) / 0.03) ** 2)
    return (100 + 80 * tissue) * brain + 200 * scalp


def scanned(pose, *, seed):
    points = geometry.apply(np.linalg.inv(pose) @ GRID, np.indices(SHAPE).reshape(3, -1).T)
    clean = head(points).reshape(SHAPE)
    rng = np.random.default_rng(seed)
    return Volume(np.hypot(clean + 2 * rng.standard_normal(SHAPE), 2 * rng.standard_normal(SHAPE)), GRID)


@pytest.fixture(scope="module")
def fixed():
    return scanned(np.eye(4), seed=1)


@pytest.fixture(scope="module")
def brain():
    points = geometry.apply(GRID, np.indices(SHAPE).reshape(3, -1).T)
    return (np.linalg.norm(points / [62.0, 80.0, 70.0], axis=1) < 0.85).reshape(SHAPE)


def target_error_mm(found, true):
    points = np.random.default_rng(0).uniform(-45, 45, (200, 3))
    return geometry.displacement_mm(found, true, points).max()


@pytest.mark.parametrize("turn_deg", [8, 60])
def test_a_known_pose_is_found(fixed, brain, tmp_path, turn_deg):
    """To a fifth of the 2.5 mm voxel; the full-size pairs are judged in tests/workflow."""
    pose = geometry.rigid(
        geometry.rotation(x_deg=turn_deg / 3, y_deg=-turn_deg / 4, z_deg=turn_deg), np.array([7.0, -5.0, 9.0])
    )
    moving = scanned(pose, seed=2)
    found = registration.register(fixed, moving, pair="t1w-t1w", fixed_mask=brain, work_dir=tmp_path)
    assert found.status == "ok", found.reason
    assert target_error_mm(found.matrix, pose) <= 0.5
    assert not list(tmp_path.iterdir())


def test_the_matrix_is_the_same_bit_for_bit(fixed, brain, tmp_path):
    moving = scanned(geometry.rigid(np.eye(3), np.array([3.0, 2.0, -4.0])), seed=3)
    first, second = (
        registration.register(fixed, moving, pair="t1w-t1w", fixed_mask=brain, work_dir=tmp_path)
        for _ in range(2)
    )
    assert first.matrix.tobytes() == second.matrix.tobytes()


def test_another_head_fails(fixed, brain, tmp_path):
    rng = np.random.default_rng(9)
    smooth = ndimage.gaussian_filter(rng.standard_normal(SHAPE), 3)
    other = Volume(np.where(brain, 100 + 60 * smooth / smooth.std(), 0).clip(0), GRID)
    found = registration.register(fixed, other, pair="t1w-t1w", fixed_mask=brain, work_dir=tmp_path)
    assert found.status == "failed"
    with pytest.raises(DataError, match="look at both images"):
        found.raise_if_failed("other")


@pytest.mark.parametrize("offset_mm", [1.5, 3.0])
def test_a_displaced_result_is_flagged(fixed, brain, offset_mm):
    moving = scanned(np.eye(4), seed=4)
    wrong = geometry.rigid(np.eye(3), np.array([offset_mm, 0, 0]))
    right = registration.quality(fixed, moving, brain, np.eye(4))
    measures = registration.quality(fixed, moving, brain, wrong)
    assert registration.verdict("t1w-t1w", right)[0] == "ok"
    assert registration.verdict("t1w-t1w", measures)[0] != "ok"


@pytest.mark.parametrize("fault", ["constant", "empty mask"])
def test_an_image_without_a_head_is_refused(fixed, brain, tmp_path, fault):
    moving = fixed.like(np.full(SHAPE, 7.0)) if fault == "constant" else fixed
    mask = brain & False if fault == "empty mask" else brain
    with pytest.raises(DataError, match=r"constant|empty"):
        registration.register(fixed, moving, pair="t1w-t1w", fixed_mask=mask, work_dir=tmp_path)
