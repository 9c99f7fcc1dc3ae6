"""Contours become tumour labels and coverage on the analysis grid."""

import json
from pathlib import Path

import numpy as np

from nanouptake.contours import coverage, label_image, solids_of
from nanouptake.geometry import read_itk
from nanouptake.images import load, save, write_atomic
from nanouptake.steps import run_step

WHOLE = 0.9  # of a tumour's volume within the grid; coverage is exact to 2 % at 5 mm in voxels of 1 mm


def at_edge(part, shape):
    """Tell whether a tumour's coverage (box, fraction) reaches the outermost voxels of the grid."""
    index = np.argwhere(part[1] > 0) + [one.start for one in part[0]]
    return bool(((index == 0) | (index == np.array(shape) - 1)).any())


def main(inp, out):
    def work():
        grid = load(inp["grid"])
        matrix = read_itk(inp["xfm"])
        if inp.get("planning_to_pre"):
            matrix = matrix @ np.linalg.inv(read_itk(inp["planning_to_pre"]))
        tumours = json.loads(Path(inp["contours"]).read_text())["tumors"]
        parts, rows, flags = [], ["index\tname\tvolume_ml"], []
        solids = solids_of(tumours, inp["drawn"])
        for index, (tumour, solid) in enumerate(zip(tumours, solids, strict=True), start=1):
            part = coverage(solid, grid.shape, grid.affine, matrix=matrix)
            parts.append(part)
            volume = float(part[1].sum()) * grid.voxel_ml
            rows.append(f"{index}\t{tumour['name']}\t{volume:.6g}")
            inside = volume / solid.volume_ml
            if volume == 0:
                flags.append(f"{tumour['name']} lies outside the pre scan")
            elif inside < WHOLE and not at_edge(part, grid.shape):
                flags.append(
                    f"{tumour['name']} is too small for its voxels: {100 * inside:.0f} % of it is left"
                )
            elif inside < WHOLE:
                flags.append(
                    f"{tumour['name']} lies partly outside the pre scan: {100 * inside:.0f} % of it is inside"
                )
        labels, covered = label_image(parts, grid.shape)
        save(out["labels"], grid.like(labels))
        save(out["coverage"], grid.like(covered))
        write_atomic(out["names"], "\n".join(rows) + "\n")
        return {"flags": flags}

    outputs = [out[k] for k in ("labels", "coverage", "names")]
    run_step("label tumours", work, status=out["status"], outputs=outputs, upstream=[inp["registered"]])


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()))
