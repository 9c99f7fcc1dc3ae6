"""How uptake is distributed inside a tumour: anatomical line profiles, shells, central section."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from . import geometry
from .images import Volume
from .intensity import bins_of, entropy_bits, first_order, matlab_entropy_bits, volume_histogram

LINES = {"horizontal": (1.0, 0.0, 0.0), "vertical": (0.0, 1.0, 0.0)}  # patient left, posterior (LPS)
AROUND_MM = (2.0, 5.0)  # distance of normal tissue from the tumour's voxels
SECTION_HALF_MM = 20
THRESHOLDS_MG_ML = np.round(np.arange(0, 0.301, 0.01), 2)


class Shape(NamedTuple):
    """Voxels of a tumour: LPS mm (n, 3), concentration (n,), depth 0 at the rim to 1 at the core (n,)."""

    points_mm: np.ndarray
    values: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


def shape_of(concentration: Volume, labels: np.ndarray, index: int) -> Shape:
    """Return a tumour's voxels and the normal tissue around it, whatever the grid (also a sheared one).

    Distances are between voxel centres in mm: depth counts from the nearest voxel outside; normal holds
    the known concentrations 2 to 5 mm away from the tumour's voxels and in no tumour.
    """
    own = np.argwhere(labels == index)
    if not len(own):
        none = np.array([])
        return Shape(np.zeros((0, 3)), none, none, none)
    from scipy.spatial import cKDTree

    # A box that holds every point within the distance, also where the axes are not perpendicular.
    rows = np.linalg.norm(np.linalg.inv(concentration.affine[:3, :3]), axis=1)
    margin = np.ceil(rows * AROUND_MM[1]).astype(int) + 1
    low = np.maximum(own.min(axis=0) - margin, 0)
    high = np.minimum(own.max(axis=0) + margin + 1, labels.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    label, conc = labels[box], concentration.data[box]
    points = geometry.apply(concentration.affine, np.argwhere(np.ones(label.shape, bool)) + low)
    inside = (label == index).ravel()
    depth = cKDTree(points[~inside]).query(points[inside])[0]
    away = cKDTree(points[inside]).query(points[~inside], distance_upper_bound=AROUND_MM[1] + 1)[0]
    free = (label.ravel()[~inside] == 0) & (away > AROUND_MM[0]) & (away <= AROUND_MM[1])
    normal = conc.ravel()[~inside][free].astype(float)
    values = conc.ravel()[inside].astype(float)
    known = np.isfinite(values)
    span = depth.max() - depth.min()
    share = (depth - depth.min()) / span if span > 0 else np.zeros_like(depth)
    return Shape(points[inside][known], values[known], share[known], normal[np.isfinite(normal)])


def sample(volume: Volume, points_mm: np.ndarray, *, order: int = 1) -> np.ndarray:
    """Return a volume at points in LPS mm, (n, 3), linear between voxel centres (order 0: nearest).

    NaN outside the volume and beside an unknown voxel.
    """
    index = geometry.apply(np.linalg.inv(volume.affine), points_mm)
    return ndimage.map_coordinates(
        volume.data.astype(float), index.T, order=order, mode="constant", cval=np.nan, prefilter=False
    )


def line_profile(
    concentration: Volume,
    mask: np.ndarray,
    *,
    centre_mm: np.ndarray,
    direction: tuple[float, float, float],
    half_length_mm: float,
    baseline_mg_ml: float,
    step_mm: float = 0.5,
) -> pd.DataFrame:
    """Return concentration along a line in the patient's axes, outside the tumour the baseline.

    Parameters
    ----------
    concentration : Volume
        mg/ml, any orientation of the grid.
    mask : ndarray
        True in the tumour, on the same grid.
    centre_mm : (3,) ndarray
        Where the line passes, LPS mm.
    direction : tuple
        Unit vector in LPS: (1, 0, 0) towards the patient's left, (0, 1, 0) towards posterior.
    half_length_mm, step_mm : float
        Reach to both sides, and distance between samples.
    baseline_mg_ml : float
        Mean of the normal tissue just around.

    Returns
    -------
    DataFrame
        position_mm (0 at the centre), mg_ml, inside.
    """
    n = int(np.ceil(half_length_mm / step_mm))
    position = np.arange(-n, n + 1) * step_mm
    points = centre_mm + position[:, None] * np.asarray(direction)
    values = sample(concentration, points)
    covered = sample(concentration.like(mask.astype(float)), points)
    inside = np.nan_to_num(covered) >= 0.5
    return pd.DataFrame(
        {"position_mm": position, "mg_ml": np.where(inside, values, baseline_mg_ml), "inside": inside}
    )


def peak_to_valley(depth: np.ndarray, values: np.ndarray, *, noise_mg_ml: float) -> tuple[float, float]:
    """Return mean uptake of the centre, and the highest shell towards the edge, over the lowest shell.

    Six shells of equal depth, at least three voxels each; the rim shell (partial volume) is left out.
    A central minimum has (1, more than 1), a central maximum (more than 1, 1 or more). NaN with
    fewer than three shells or where the lowest shell is not above the noise of a voxel.
    """
    shell = np.minimum((depth * 6).astype(int), 5)
    means = np.array([values[shell == k].mean() for k in range(1, 6) if (shell == k).sum() >= 3])
    if means.size < 3 or not means.min() > noise_mg_ml:
        return float("nan"), float("nan")
    return float(means[-1] / means.min()), float(means[:-1].max() / means.min())


def section(concentration: Volume, mask: np.ndarray, centre_mm: np.ndarray) -> pd.DataFrame:
    """Return the axial section through a point every 1 mm: x_mm (left), y_mm (posterior), mg_ml, inside."""
    axis = np.arange(-SECTION_HALF_MM, SECTION_HALF_MM + 1.0)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    points = centre_mm + np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    covered = np.nan_to_num(sample(concentration.like(mask.astype(float)), points))
    return pd.DataFrame(
        {
            "x_mm": x.ravel(),
            "y_mm": y.ravel(),
            "mg_ml": sample(concentration, points),
            "inside": covered.round(3),
        }
    )


def white_matter_drift(concentration: Volume, t1_pre_s: np.ndarray, labels: np.ndarray) -> float:
    """Return the median concentration in white matter far from tumours, mg/ml: 0 is wanted.

    White matter is where T1 before infusion is 0.75 to 1.05 s, also in all six neighbours, 10 mm or more
    from every tumour along the axes. NaN with fewer than 1000 such voxels.
    """
    white = ndimage.binary_erosion((t1_pre_s > 0.75) & (t1_pre_s < 1.05))
    far = ndimage.generate_binary_structure(3, 1)
    near = ndimage.binary_dilation(
        labels > 0, structure=far, iterations=int(np.ceil(10 / concentration.spacing_mm.min()))
    )
    values = concentration.data[white & ~near]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size >= 1000 else float("nan")


class Distribution(NamedTuple):
    """Rows by tumour: further columns of the table of tumours, and three long tables."""

    columns: pd.DataFrame
    profiles: pd.DataFrame
    sections: pd.DataFrame
    histograms: pd.DataFrame


def distribution(
    concentration: Volume,
    labels: np.ndarray,
    names: pd.DataFrame,
    *,
    entropy_bin_width_mg_ml: float,
    entropy_range_mg_ml: tuple[float, float],
) -> Distribution:
    """Return how uptake is distributed in every tumour of a patient at one timepoint.

    Parameters
    ----------
    concentration : Volume
        mg/ml, NaN where unknown.
    labels : ndarray
        Tumour numbers on the same grid, 0 elsewhere.
    names : DataFrame
        Columns index and name.
    entropy_bin_width_mg_ml, entropy_range_mg_ml
        The histogram of the entropies.
    """
    rows, lines, sections, histograms = [], [], [], []
    for index, name in names[["index", "name"]].itertuples(index=False):
        shape = shape_of(concentration, labels, index)
        values, normal, depth = shape.values, shape.normal, shape.depth
        enough = normal.size > 20
        baseline = float(normal.mean()) if enough else np.nan
        noise = 1.4826 * float(np.median(np.abs(normal - np.median(normal)))) if enough else np.nan
        bins = bins_of(values, bin_width_mg_ml=entropy_bin_width_mg_ml, range_mg_ml=entropy_range_mg_ml)
        statistics = first_order(values)
        shells = {
            "rim": depth <= 1 / 3,
            "middle": (depth > 1 / 3) & (depth <= 2 / 3),
            "core": depth > 2 / 3,
        }
        centre, edge = peak_to_valley(depth, values, noise_mg_ml=noise)
        rows.append(
            {
                "tumor": name,
                "p10_mg_ml": statistics["p10"],
                "p90_mg_ml": statistics["p90"],
                "skewness": statistics["skew"],
                "kurtosis": statistics["kurt"],
                "entropy_corrected_bits": entropy_bits(bins, corrected=True),
                "entropy_matlab_bits": matlab_entropy_bits(values),
            }
            | {f"{k}_mg_ml": float(values[m].mean()) if m.any() else np.nan for k, m in shells.items()}
            | {
                "peak_to_valley_centre": centre,
                "peak_to_valley_edge": edge,
                "baseline_mg_ml": baseline,
                "noise_mg_ml": noise,
            }
        )
        fractions = volume_histogram(values, THRESHOLDS_MG_ML)
        histograms.append(
            pd.DataFrame({"tumor": name, "threshold_mg_ml": THRESHOLDS_MG_ML, "fraction": fractions})
        )
        if not values.size:
            continue
        middle = shape.points_mm.mean(axis=0)
        reach = float(np.abs(shape.points_mm - middle).max()) + 6
        mask = labels == index
        for line, direction in LINES.items():
            profile = line_profile(
                concentration,
                mask,
                centre_mm=middle,
                direction=direction,
                half_length_mm=reach,
                baseline_mg_ml=baseline,
            )
            lines.append(profile.assign(tumor=name, line=line)[["tumor", "line", *profile.columns]])
        cut = section(concentration, mask, middle)
        sections.append(cut.assign(tumor=name)[["tumor", *cut.columns]])

    def joined(frames: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns))

    return Distribution(
        pd.DataFrame(rows),
        joined(lines, ("tumor", "line", "position_mm", "mg_ml", "inside")),
        joined(sections, ("tumor", "x_mm", "y_mm", "mg_ml", "inside")),
        joined(histograms, ("tumor", "threshold_mg_ml", "fraction")),
    )
