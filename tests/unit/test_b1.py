"""A B1 map enters the T1 map: the truth comes back where the nominal field would be wrong."""

import json

import numpy as np
import pytest

import map_t1
from nanouptake import geometry, images
from nanouptake.concentration import relative_b1
from nanouptake.errors import DataError
from nanouptake.images import Volume
from nanouptake.mp2rage import Protocol, to_dn

PROTOCOL = {
    "tr_s": 5.0, "ti1_s": 0.7, "ti2_s": 2.5, "flip1_deg": 4.0, "flip2_deg": 5.0,
    "echo_spacing_s": 0.00718, "shots_before": 44, "shots_after": 88,
}  # fmt: skip
SHAPE = (24, 20, 16)


@pytest.fixture
def scan(tmp_path):
    """T1 1.2 s under a field from 80 to 120 % along x; the B1 map has voxels of 4 mm and a shifted origin."""
    i = np.indices(SHAPE)[0]
    b1 = 0.8 + 0.4 * i / (SHAPE[0] - 1)
    uni = Protocol(**PROTOCOL).uni(np.full(SHAPE, 1.2), b1)
    images.save(tmp_path / "uni.nii.gz", Volume(to_dn(uni), np.eye(4)))
    inv2 = np.zeros(SHAPE)
    inv2[3:-3, 3:-3, 3:-3] = 500
    images.save(tmp_path / "inv2.nii.gz", Volume(inv2.astype(np.int16), np.eye(4)))
    affine = np.diag([4.0, 4, 4, 1])
    affine[:3, 3] = -4
    x = geometry.apply(affine, np.indices((8, 8, 8)).reshape(3, -1).T)[:, 0]
    percent = (80 + 40 * x / (SHAPE[0] - 1)).reshape(8, 8, 8)
    images.save(tmp_path / "tb1.nii.gz", Volume(percent.astype(np.float32), affine))
    (tmp_path / "ingest.json").write_text(json.dumps({"ok": True, "flags": [], "reason": ""}))
    return tmp_path


def mapped(folder, tb1):
    names = {"t1": "t1.nii.gz", "validity": "v.nii.gz", "sidecar": "t1.json", "status": "status.json"}
    out = {k: str(folder / v) for k, v in names.items()}
    map_t1.main(
        folder / "uni.nii.gz", folder / "inv2.nii.gz", folder / tb1, folder / "ingest.json", out, PROTOCOL
    )
    assert json.loads((folder / "status.json").read_text())["reason"] == ""
    return images.load(out["t1"]).data


def test_t1_is_true_with_the_map_and_biased_without(scan):
    (scan / "none.nii.gz").write_bytes(b"")
    with_map, without = mapped(scan, "tb1.nii.gz"), mapped(scan, "none.nii.gz")
    # 12 bits of UNI are 0.6 ms here.
    assert np.nanmax(np.abs(with_map - 1.2)) < 1.5e-3
    assert np.nanmax(np.abs(without - 1.2)) > 20e-3


def test_a_map_in_other_units_is_refused(tmp_path):
    images.save(tmp_path / "b1.nii.gz", Volume(np.full((4, 4, 4), 800.0, np.float32), np.eye(4)))
    with pytest.raises(DataError, match="not in percent"):
        relative_b1(tmp_path / "b1.nii.gz", shape=(2, 2, 2), affine=np.eye(4))
