"""A real MIM RTSTRUCT against the masks that MIRP made of it (theibsi/data_sets, STS_002)."""

import os
from pathlib import Path

import numpy as np
import pytest
import shapely

from nanouptake import images
from nanouptake.contours import Solid, coverage, pixel_centre_mask, read_rtstruct, usable

DATA = Path(os.environ.get("NANOUPTAKE_DATA", Path(__file__).resolve().parents[3] / "shared/data"))
FOLDER = DATA / "rtstruct/STS_002"


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("kind", ["MR_T1", "CT"])
def test_real_contours_give_the_reference_mask_and_the_polygons_volume(kind):
    rtstruct, mask_file = FOLDER / f"dicom/{kind}/mask/RS.dcm", FOLDER / f"nifti/{kind}_mask.nii.gz"
    for path in (rtstruct, mask_file):
        if not path.exists():
            pytest.skip(f"NOT CHECKED AGAINST REAL CONTOURS: {path} is missing; set NANOUPTAKE_DATA")
    (tumour,), aside = usable(read_rtstruct(rtstruct), "^GTV")
    assert not aside
    reference = images.load(mask_file)
    assert np.array_equal(pixel_centre_mask(tumour, reference), reference.data > 0)
    heights = np.unique([c[0, 2] for c in tumour.contours])
    area = sum(shapely.Polygon(c[:, :2]).area for c in tumour.contours)
    expected_ml = area * np.median(np.diff(heights)) / 1000
    solid = Solid(tumour)
    _, fraction = coverage(solid, reference.shape, reference.affine, supersampling=3)
    assert solid.volume_ml == pytest.approx(expected_ml, rel=0.01)
    assert fraction.sum() * reference.voxel_ml == pytest.approx(expected_ml, rel=0.01)
