"""T1 map of the pre scan on the planning grid: UNI is resampled once, by B-spline."""

import numpy as np
from scipy.ndimage import map_coordinates

from nanouptake.concentration import code_where_unknown, relative_b1, resample
from nanouptake.geometry import read_itk
from nanouptake.images import load, save
from nanouptake.mp2rage import Lookup, Protocol, from_dn
from nanouptake.steps import run_step
from nanouptake.validity import Validity


def main(inp, out, protocol):
    def work():
        grid, own = load(inp["grid"]), load(inp["validity"])
        matrix = np.linalg.inv(read_itk(inp["planning_to_pre"]))
        uni, inside = resample(load(inp["uni"]), shape=grid.shape, affine=grid.affine, matrix=matrix)
        to_index = np.linalg.inv(own.affine) @ matrix @ grid.affine
        index = np.indices(grid.shape).reshape(3, -1)
        nearest = map_coordinates(
            own.data,
            to_index[:3, :3] @ index + to_index[:3, 3:],
            order=0,
            cval=Validity.OUTSIDE_FIELD_OF_VIEW,
        ).reshape(grid.shape)
        b1 = relative_b1(inp["tb1"], shape=grid.shape, affine=grid.affine, matrix=matrix)
        found = Lookup(Protocol(**protocol)).estimate(from_dn(uni), b1=b1)
        code = code_where_unknown(nearest, found.validity, inside)
        t1 = np.where(code == Validity.OK, found.t1_s, np.float32(np.nan))
        save(out["t1"], grid.like(t1))
        save(out["validity"], grid.like(code))

    outputs = [out["t1"], out["validity"]]
    run_step("map T1 of pre", work, status=out["status"], outputs=outputs, upstream=[inp["registered"]])


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()), s.params.protocol)
