"""Profiles and shells are the patient's, whatever grid the tumour was sampled on."""

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from nanouptake import geometry
from nanouptake.images import Volume
from nanouptake.intensity import bins_of, entropy_bits
from nanouptake.profiles import distribution, shape_of, white_matter_drift
from nanouptake.tumors import uptake_pattern

CENTRE = np.array([12.0, -7.0, 30.0])
NAMES = pd.DataFrame({"index": [1], "name": ["GTV1"]})


def uptake(points):
    """Two-sided but asymmetric in every axis: a flipped or swapped axis cannot pass."""
    x, y, z = np.moveaxis(points - CENTRE, -1, 0)
    return 0.1 + 0.004 * x - 0.002 * y + 0.001 * z + 0.03 * np.exp(-(x**2 + y**2 + z**2) / 30)


def sampled(linear, half=32):
    """Return the tumour (ellipsoid, 9 x 7 x 8 mm) on a grid with the given voxel axes."""
    affine = geometry.rigid(linear, np.zeros(3))
    affine[:3, 3] = CENTRE - linear @ np.full(3, half)
    points = geometry.apply(affine, np.moveaxis(np.indices((2 * half + 1,) * 3), 0, -1))
    labels = ((((points - CENTRE) / (9, 7, 8)) ** 2).sum(axis=-1) <= 1).astype(np.uint8)
    return Volume(np.where(labels > 0, uptake(points), 0.01), affine), labels


SHEAR = np.array([[1, 0.3, 0], [0, 1, 0.2], [0, 0, 1]])
GRIDS = {
    "flipped left-right": np.diag([-1.0, 1, 1]),
    "axes permuted": np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]]),
    "rotated": geometry.rotation(x_deg=20, y_deg=-35, z_deg=50),
    "sheared": SHEAR,
    "all": SHEAR @ geometry.rotation(x_deg=20, y_deg=-35, z_deg=50) @ np.diag([-1.0, 1, 1]),
}


def measured(linear):
    volume, labels = sampled(linear * 0.6)
    volume.data[labels == 0] += np.random.default_rng(0).normal(0, 0.005, (labels == 0).sum())
    return distribution(volume, labels, NAMES, entropy_bin_width_mg_ml=0.005, entropy_range_mg_ml=(-0.1, 0.5))


@pytest.fixture(scope="module")
def straight():
    return measured(np.eye(3))


@pytest.mark.parametrize("grid", GRIDS)
def test_profiles_agree_on_any_grid(straight, grid):
    found = measured(GRIDS[grid])
    for line, axis in (("horizontal", 0), ("vertical", 1)):
        a, b = (d.profiles[d.profiles["line"] == line].set_index("position_mm") for d in (straight, found))
        both = a.join(b, lsuffix="_a", rsuffix="_b", how="inner")
        deep = both[both["inside_a"] & both["inside_b"] & (abs(both.index) < 6)]
        assert len(deep) > 15
        assert abs(deep["mg_ml_a"] - deep["mg_ml_b"]).max() < 0.002
        true = uptake(CENTRE + np.outer(deep.index, np.eye(3)[axis]))
        assert abs(deep["mg_ml_b"] - true).max() < 0.002
    for column in ("core_mg_ml", "middle_mg_ml", "rim_mg_ml", "baseline_mg_ml"):
        assert found.columns[column][0] == pytest.approx(straight.columns[column][0], abs=0.002)
    assert found.columns["baseline_mg_ml"][0] == pytest.approx(0.01, abs=0.001)
    assert found.columns["noise_mg_ml"][0] == pytest.approx(0.005, rel=0.1)
    assert found.columns["peak_to_valley_centre"][0] == pytest.approx(
        straight.columns["peak_to_valley_centre"][0], abs=0.05
    )


def test_peak_to_valley_tells_a_hole_from_a_peak():
    volume, labels = sampled(np.eye(3) * 0.6)
    depth = shape_of(volume, labels, 1).depth
    for profile, centre, edge in ((0.16 - 0.06 * depth, 1.0, 1.4), (0.1 + 0.08 * depth, 1.5, 1.3)):
        data = volume.data.copy()
        data[labels == 1] = profile
        row = distribution(
            volume.like(data), labels, NAMES, entropy_bin_width_mg_ml=0.005, entropy_range_mg_ml=(-0.1, 0.5)
        ).columns.iloc[0]
        assert row["peak_to_valley_centre"] == pytest.approx(centre, abs=0.12)
        assert row["peak_to_valley_edge"] == pytest.approx(edge, abs=0.15)


def test_the_correction_removes_the_small_sample_bias_of_entropy():
    rng = np.random.default_rng(3)
    draws = rng.integers(0, 32, (400, 120))  # true entropy 5 bits
    raw = np.mean([entropy_bits(d) for d in draws])
    corrected = np.mean([entropy_bits(d, corrected=True) for d in draws])
    assert raw < 4.85
    assert corrected == pytest.approx(5.0, abs=0.03)


def test_a_value_on_an_edge_counts_above_it():
    assert bins_of(np.array([0.3]), bin_width_mg_ml=0.1, range_mg_ml=(0.0, 1.0)).tolist() == [3]


def test_patterns_of_known_tumours_are_named():
    """Sphere of 14 mm at 1 mm, noise 0.006 mg/ml; the heterogeneous one is a smooth random field."""
    rng = np.random.default_rng(11)
    grid = np.moveaxis(np.indices((25,) * 3), 0, -1) - 12
    radius = np.linalg.norm(grid, axis=-1)
    ball = radius <= 7
    depth = 1 - radius[ball] / 7
    right = 0
    for _ in range(50):
        rough = ndimage.gaussian_filter(rng.normal(size=ball.shape), 2)[ball]
        true = {
            "homogeneous": np.full(depth.size, 0.08),
            "heterogeneous": 0.08 + 0.03 * (rough - rough.mean()) / rough.std(),
            "central minimum": 0.1 - 0.08 * depth,
            "central maximum": 0.05 + 0.08 * depth,
        }
        noisy = {k: v + rng.normal(0, 0.006, depth.size) for k, v in true.items()}
        right += sum(uptake_pattern(v, depth, 0.006) == k for k, v in noisy.items())
    assert right >= 0.95 * 200


def test_drift_of_white_matter_is_read_far_from_tumours():
    rng = np.random.default_rng(12)
    t1 = np.full((40, 40, 40), 1.35)
    t1[5:35, 5:35, 5:20] = 0.9
    labels = np.zeros(t1.shape, np.uint8)
    labels[18:22, 18:22, 16:19] = 1
    conc = 0.003 + rng.normal(0, 0.005, t1.shape)
    conc[labels > 0] = 0.1
    conc[t1 > 1] = 0.02
    volume = Volume(conc, np.eye(4))
    assert white_matter_drift(volume, t1, labels) == pytest.approx(0.003, abs=0.0005)
    assert np.isnan(white_matter_drift(volume, t1 + 1, labels))
