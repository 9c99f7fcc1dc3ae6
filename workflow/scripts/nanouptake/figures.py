"""Figures, one function each; every figure is made from tables or maps alone."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from .images import Volume, write_atomic

STYLE: Any = {
    "svg.hashsalt": "nanouptake",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
BLUE, VERMILION = "#0072B2", "#D55E00"  # Okabe and Ito, safe for colour-blind readers
CONCENTRATION_LIMITS_MG_ML = (0.0, 0.3)  # the paper's fixed scale


def save_figure(figure: Figure, png: str | Path | io.BytesIO, svg: str | Path | None = None) -> None:
    """Write a figure as PNG (a file or a buffer) and, if asked, SVG: the same figure, the same bytes."""
    with mpl.rc_context(STYLE):
        for path, form, metadata in ((png, "png", {"Software": None}), (svg, "svg", {"Date": None})):
            if path is not None:
                buffer = io.BytesIO()
                figure.savefig(buffer, format=form, dpi=130, metadata=metadata, bbox_inches="tight")
                if isinstance(path, io.BytesIO):
                    path.write(buffer.getvalue())
                else:
                    write_atomic(path, buffer.getvalue())


def patient_picture(
    t1_pre: Volume, t1_post: np.ndarray, concentration: np.ndarray, coverage: np.ndarray, labels: np.ndarray
) -> Figure:
    """T1 before and after and uptake, axial through the largest tumour, with its contour.

    Parameters
    ----------
    t1_pre : Volume
        T1 in seconds; its affine gives the anatomical directions.
    t1_post, concentration, coverage, labels : ndarray
        On the same grid: seconds, mg/ml, fraction of the voxel inside a tumour, label numbers.
    """
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    largest = labels == int(np.argmax(counts))
    centre = np.argwhere(largest).mean(axis=0) if counts.any() else np.array(labels.shape) / 2
    # The voxel axis closest to the patient's head-foot axis is looked along.
    directions = t1_pre.affine[:3, :3] / t1_pre.spacing_mm
    axis_of = [int(np.argmax(np.abs(directions[row]))) for row in range(3)]
    slices: list = [slice(None)] * 3
    slices[axis_of[2]] = round(float(centre[axis_of[2]]))

    def plane(data: np.ndarray) -> np.ndarray:
        image = data[tuple(slices)]
        if axis_of[0] < axis_of[1]:
            image = image.T  # rows: anterior-posterior, columns: left-right
        if directions[1, axis_of[1]] < 0:
            image = image[::-1]
        return image[:, ::-1] if directions[0, axis_of[0]] < 0 else image

    extent_x = t1_pre.spacing_mm[axis_of[0]] * t1_pre.shape[axis_of[0]]
    extent_y = t1_pre.spacing_mm[axis_of[1]] * t1_pre.shape[axis_of[1]]
    extent = (0, extent_x, extent_y, 0)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6))
        panels = figure.subplots(1, 3)
        low, high = CONCENTRATION_LIMITS_MG_ML
        for axes, data, title, limits, colours, unit in (
            (panels[0], t1_pre.data, "T1 before", (0.3, 3.0), "gray", "s"),
            (panels[1], t1_post, "T1 after", (0.3, 3.0), "gray", "s"),
            (panels[2], concentration, "uptake", (low, high), "viridis", "mg/ml"),
        ):
            drawn = axes.imshow(plane(data), cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent)
            cover = plane(coverage)
            if cover.max() > 0.5:
                x = (np.arange(cover.shape[1]) + 0.5) * extent_x / cover.shape[1]
                y = (np.arange(cover.shape[0]) + 0.5) * extent_y / cover.shape[0]
                axes.contour(x, y, cover, levels=[0.5], colors=VERMILION, linewidths=0.9)
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
            figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02, label=unit)
        return figure
