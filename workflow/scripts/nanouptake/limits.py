"""What can be told from zero and what is too much, and whether the patient's zero has drifted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import ndimage, optimize

from . import geometry
from .images import Volume
from .mp2rage import Lookup
from .partial_volume import RateModel
from .uncertainty import white_matter
from .validity import Validity

DETECTION, QUANTIFICATION = 3.29, 10.0  # times the SD at zero: Currie 1968; IUPAC 1995
FAR_MM = 10.0  # from every tumour
BLOCK_MM = 12.0
PLANE_STEP_MM = 5.0


def mid_sagittal(t1_s: Volume) -> np.ndarray:
    """Return the 4 x 4 matrix that mirrors points, LPS mm, at the head's plane of symmetry.

    The plane starts sagittal through the middle of what has the T1 of brain (0.75 to 1.7 s), and is turned
    and shifted until the map, every 5 mm and smoothed by as much, is most like its mirror image.
    """
    step = np.maximum(1, np.round(PLANE_STEP_MM / t1_s.spacing_mm)).astype(int)
    brain = np.nan_to_num((t1_s.data > 0.75) & (t1_s.data < 1.7)).astype(np.float32)
    smooth = t1_s.like(ndimage.uniform_filter(brain, tuple(step)))
    points = geometry.apply(
        t1_s.affine, np.argwhere(np.ones([-(-n // s) for n, s in zip(brain.shape, step, strict=True)])) * step
    )
    to_index = np.linalg.inv(t1_s.affine)

    def values(at: np.ndarray) -> np.ndarray:
        return ndimage.map_coordinates(smooth.data, geometry.apply(to_index, at).T, order=1)

    here = values(points)
    points, here = points[here > 0.2], here[here > 0.2]
    middle = np.average(points, axis=0, weights=here)

    def mirror(p: np.ndarray) -> np.ndarray:
        normal = geometry.rotation(y_deg=10 * p[0], z_deg=10 * p[1])[:, 0]
        return geometry.rigid(
            np.eye(3) - 2 * np.outer(normal, normal), np.zeros(3), centre_mm=middle + 10 * p[2] * normal
        )

    def unlike(p: np.ndarray) -> float:
        return float(np.mean((values(geometry.apply(mirror(p), points)) - here) ** 2))

    found = optimize.minimize(unlike, np.zeros(3), method="Powell", options={"xtol": 1e-2, "ftol": 1e-4})
    return mirror(found.x)


@dataclass(frozen=True)
class Drift:
    """Concentration in white matter that took nothing up, mg/ml: its median and the SD of its regions."""

    median_mg_ml: float
    regions_sd_mg_ml: float

    @property
    def sd_mg_ml(self) -> float:
        """SD of the patient's zero: the drift itself, which is not taken off, and what varies by region."""
        return float(np.hypot(self.median_mg_ml, self.regions_sd_mg_ml))


def contralateral_drift(concentration: Volume, t1_pre_s: np.ndarray, labels: np.ndarray) -> Drift:
    """Return the drift between two scans, from the white matter on the other side of the tumours.

    White matter 10 mm or more from every tumour counts where its mirror image is nearer to a tumour than to
    none: within 30 mm of one. Where that leaves fewer than 1,000 voxels, all white matter 10 mm from tumours
    counts. Regions are blocks of 12 mm with at least 100 such voxels; the SD of their medians is robust.
    """
    spacing = concentration.spacing_mm
    near = ndimage.distance_transform_edt(labels == 0, sampling=spacing) if labels.any() else None
    white = white_matter(t1_pre_s) & np.isfinite(concentration.data)
    if near is not None:
        white &= near >= FAR_MM
        index = np.argwhere(white)
        mirror = mid_sagittal(concentration.like(t1_pre_s))
        to_mirror = np.linalg.inv(concentration.affine) @ mirror @ concentration.affine
        there = np.rint(geometry.apply(to_mirror, index)).astype(int)
        inside = ((there >= 0) & (there < labels.shape)).all(axis=1)
        opposite = np.zeros(len(index), bool)
        opposite[inside] = near[tuple(there[inside].T)] <= 3 * FAR_MM
        if opposite.sum() >= 1000:
            white[tuple(index[~opposite].T)] = False
    index = np.argwhere(white)
    if len(index) < 1000:
        return Drift(float("nan"), float("nan"))
    values = concentration.data[white]
    blocks = (index // np.maximum(1, np.round(BLOCK_MM / spacing)).astype(int)) @ [1_000_000, 1_000, 1]
    order = np.argsort(blocks, kind="stable")
    starts = np.flatnonzero(np.diff(blocks[order], prepend=-1))
    medians = [float(np.median(part)) for part in np.split(values[order], starts[1:]) if part.size >= 100]
    middle = float(np.median(values))
    away = np.abs(np.array(medians) - middle)
    return Drift(middle, 1.4826 * float(np.median(away)) if len(medians) > 2 else 0.0)


def upper_limit_mg_ml(
    lookup: Lookup, *, t1_pre_s: float, noise_ratio: float, r1_per_mm_per_s: float, mg_per_ml_per_mm: float
) -> float:
    """Return the concentration in mg/ml above which a voxel's noise is more than a tenth of it again.

    Parameters
    ----------
    lookup : Lookup
    t1_pre_s : float
        T1 of the tissue before infusion.
    noise_ratio : float
        SD of the noise over the signal per unit of M0 (Protocol.signal).
    r1_per_mm_per_s, mg_per_ml_per_mm : float
        As for the concentration map.

    UNI is nearly flat below T1 of about 0.2 s: one scan there cannot tell concentrations apart.
    """
    scale = mg_per_ml_per_mm / r1_per_mm_per_s
    amounts = np.linspace(0.005, 2.0, 800)
    t1 = 1 / (1 / t1_pre_s + amounts / scale)
    gain = np.hypot(*RateModel(lookup).gradient(*lookup.protocol.signal(t1)))
    good = (scale * noise_ratio * gain <= 0.1 * amounts) & (t1 > lookup.t1_range_s[0])
    return float(amounts[good].max()) if good.any() else float("nan")


def tumor_limits(
    row: Mapping[str, float],
    concentration: np.ndarray,
    validity: np.ndarray,
    own: np.ndarray,
    *,
    uloq_mg_ml: float,
) -> dict[str, float | bool]:
    """Return a tumour's limits and what they say of it.

    Parameters
    ----------
    row : mapping
        From uncertainty.tumor_intervals.
    concentration, validity : ndarray
        The map in mg/ml and its codes.
    own : bool ndarray
        The tumour's voxels.
    uloq_mg_ml : float
        From upper_limit_mg_ml.
    """
    zero = row["sd_zero_mg_ml"]
    values, codes = concentration[own], validity[own]
    above = np.isin(codes, [Validity.T1_BELOW_RANGE]) | (np.nan_to_num(values) > uloq_mg_ml)
    return {
        "lod_mg_ml": DETECTION * zero,
        "loq_mg_ml": QUANTIFICATION * zero,
        "below_lod": bool(row["mean_pvc_mg_ml"] < DETECTION * zero),
        "uloq_mg_ml": uloq_mg_ml,
        "above_uloq_fraction": float(above.mean()) if own.any() else float("nan"),
        "pvc_ill_posed": bool(row["width_voxels"] < 3),
    }


def with_intervals(frame: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """Return a table of tumours with the columns of the intervals before the pattern, and their flags."""
    frame = frame.copy()
    intervals = intervals.drop(columns="tumor").set_axis(frame.index)  # both in the order of the contours
    intervals.insert(
        list(intervals.columns).index("uloq_mg_ml"), "voxel_lod_mg_ml", DETECTION * frame["noise_mg_ml"]
    )
    notes = (
        (intervals["below_lod"].astype(bool), "mean below the detection limit"),
        (intervals["above_uloq_fraction"] > 0, "voxels above the upper limit of quantification"),
        (intervals["pvc_ill_posed"].astype(bool), "partial-volume correction is ill-posed"),
    )
    for where, words in notes:
        frame.loc[where, "flags"] = [f"{old}; {words}" if old else words for old in frame.loc[where, "flags"]]
    place = list(frame.columns).index("pattern")
    return pd.concat([frame.iloc[:, :place], intervals, frame.iloc[:, place:]], axis=1)
