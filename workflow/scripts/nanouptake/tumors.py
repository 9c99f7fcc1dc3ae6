"""What is said of one tumour, and of one patient."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .columns import TABLES, fraction_columns
from .intensity import bins_of, entropy_bits


def uptake_pattern(values: np.ndarray, depth: np.ndarray, noise_mg_ml: float) -> str:
    """Name the uptake pattern of a tumour by effect size against noise.

    Parameters
    ----------
    values : (n,) ndarray
        Concentration in mg/ml.
    depth : (n,) ndarray
        Distance from the surface over the largest such distance, 0 at the rim, 1 at the core.
    noise_mg_ml : float
        SD of the concentration in normal tissue around the tumour.

    Voxels within the outer third are left out (partial volume). Core minus middle beyond one noise SD,
    three standard errors and the SD within those shells (a heterogeneous tumour is rough at one depth
    too) is a central maximum or minimum; else an SD beyond twice the noise is heterogeneous; else
    homogeneous. Fewer than 30 voxels: undetermined.
    """
    inner = depth > 1 / 3
    core, middle = values[depth > 2 / 3], values[inner & (depth <= 2 / 3)]
    if inner.sum() < 30 or core.size < 5 or middle.size < 5 or not noise_mg_ml > 0:
        return "undetermined"
    step = core.mean() - middle.mean()
    error = np.sqrt(core.var(ddof=1) / core.size + middle.var(ddof=1) / middle.size)
    rough = np.sqrt((core.var(ddof=1) + middle.var(ddof=1)) / 2)
    if abs(step) > max(noise_mg_ml, 3 * error, rough):
        return "central maximum" if step > 0 else "central minimum"
    return "heterogeneous" if values[inner].std(ddof=1) > 2 * noise_mg_ml else "homogeneous"


def measure(
    values: np.ndarray,
    *,
    bin_edges_mg_ml: list[float],
    entropy_bin_width_mg_ml: float,
    entropy_range_mg_ml: tuple,
) -> dict[str, float]:
    """Return the first-order statistics of a tumour's voxels in mg/ml (NaN for no voxel)."""
    names = list(fraction_columns(bin_edges_mg_ml))
    if not values.size:
        keys = ["mean", "sd", "median", "p25", "p75", "min", "max", "upper_quartile_mean"]
        return {f"{k}_mg_ml": np.nan for k in keys} | dict.fromkeys(["entropy_bits", *names], np.nan)
    p25, median, p75 = np.percentile(values, [25, 50, 75])
    bins = np.bincount(np.searchsorted(bin_edges_mg_ml, values, side="left"), minlength=len(names))
    return {
        "mean_mg_ml": float(values.mean()),
        "sd_mg_ml": float(values.std(ddof=1)) if values.size > 1 else np.nan,
        "median_mg_ml": float(median),
        "p25_mg_ml": float(p25),
        "p75_mg_ml": float(p75),
        "min_mg_ml": float(values.min()),
        "max_mg_ml": float(values.max()),
        "upper_quartile_mean_mg_ml": float(values[values >= p75].mean()),
        "entropy_bits": entropy_bits(
            bins_of(values, bin_width_mg_ml=entropy_bin_width_mg_ml, range_mg_ml=entropy_range_mg_ml)
        ),
    } | dict(zip(names, bins / values.size, strict=True))


def tumor_rows(
    *,
    concentration: np.ndarray,
    t1_pre_s: np.ndarray,
    t1_post_s: np.ndarray,
    labels: np.ndarray,
    coverage: np.ndarray,
    names: pd.DataFrame,
    spacing_mm: np.ndarray,
    bin_edges_mg_ml: list[float],
    entropy_bin_width_mg_ml: float,
    entropy_range_mg_ml: tuple[float, float],
) -> pd.DataFrame:
    """Return one row per tumour, in the columns of the data dictionary without patient and timepoint.

    Maps share one grid; concentration in mg/ml and T1 in seconds are NaN where unknown. names has the
    columns index, name, volume_ml.
    """
    from scipy import ndimage

    rows = []
    boxes = ndimage.find_objects(labels, max_label=int(names["index"].max()))
    margin = np.ceil(6 / spacing_mm).astype(int)
    for index, name, volume in names[["index", "name", "volume_ml"]].itertuples(index=False):
        flags = []
        box = boxes[index - 1]
        if box is None:
            values = t_pre = t_post = np.array([])
            unknown, pattern = 0, "undetermined"
            flags.append("no voxel is covered by more than half")
        else:
            box = tuple(
                slice(max(0, s.start - m), min(n, s.stop + m))
                for s, m, n in zip(box, margin, labels.shape, strict=True)
            )
            own = labels[box] == index
            known = own & np.isfinite(concentration[box])
            values = concentration[box][known].astype(float)
            t_pre, t_post = t1_pre_s[box][known].astype(float), t1_post_s[box][known].astype(float)
            unknown = int((own & ~known).sum())
            inner = ndimage.distance_transform_edt(own, sampling=spacing_mm)
            outer = ndimage.distance_transform_edt(~own, sampling=spacing_mm)
            around = (outer > 2) & (outer <= 5) & (labels[box] == 0) & (coverage[box] == 0)
            normal = concentration[box][around]
            normal = normal[np.isfinite(normal)]
            noise = (
                1.4826 * float(np.median(np.abs(normal - np.median(normal)))) if normal.size > 20 else np.nan
            )
            pattern = uptake_pattern(values, (inner / max(inner.max(), 1e-6))[known], noise)
            if unknown:
                flags.append(f"{unknown} voxels without a concentration")
            if inner.max() < 1.5 * float(spacing_mm.min()):
                flags.append("less than three voxels wide: partial volume decides the number")
        rows.append(
            {
                "tumor": name,
                "n_voxels": values.size,
                "n_unknown_voxels": unknown,
                "volume_ml": volume,
                "diameter_mm": (6000 * volume / np.pi) ** (1 / 3),
            }
            | measure(
                values,
                bin_edges_mg_ml=bin_edges_mg_ml,
                entropy_bin_width_mg_ml=entropy_bin_width_mg_ml,
                entropy_range_mg_ml=entropy_range_mg_ml,
            )
            | {
                "t1_pre_s": float(t_pre.mean()) if t_pre.size else np.nan,
                "t1_post_s": float(t_post.mean()) if t_post.size else np.nan,
                "pattern": pattern,
                "flags": "; ".join(flags),
            }
        )
    return pd.DataFrame(rows)


def patient_table(
    tumors: pd.DataFrame,
    *,
    infusion_to_scan_min: dict[tuple[str, str], float] | None = None,
    registration_quality: dict[tuple[str, str], float] | None = None,
) -> pd.DataFrame:
    """Return one row per patient and post timepoint; tumours without a mean are left out of the means.

    infusion_to_scan_min and registration_quality give the value of (patient, timepoint) where it is known.
    """
    minutes, quality = infusion_to_scan_min or {}, registration_quality or {}
    rows = []
    for (patient, timepoint), group in tumors.groupby(["patient", "timepoint"], sort=True):
        known = group.dropna(subset=["mean_mg_ml"])
        weights = known["volume_ml"].sum()
        rows.append(
            {
                "patient": patient,
                "timepoint": timepoint,
                "n_tumors": len(known),
                "mean_mg_ml": known["mean_mg_ml"].mean(),
                "upper_quartile_mean_mg_ml": known["upper_quartile_mean_mg_ml"].mean(),
                "sd_mg_ml": known["mean_mg_ml"].std(),
                "entropy_bits": known["entropy_bits"].mean(),
                "total_volume_ml": group["volume_ml"].sum(),
                "volume_weighted_mean_mg_ml": (known["mean_mg_ml"] * known["volume_ml"]).sum() / weights
                if weights
                else np.nan,
                "normal_tissue_mg_ml": known["baseline_mg_ml"].median()
                if "baseline_mg_ml" in known
                else np.nan,
                "white_matter_mg_ml": group["white_matter_mg_ml"].iloc[0]
                if "white_matter_mg_ml" in group
                else np.nan,
                "registration_gradient_correlation": quality.get((str(patient), str(timepoint)), np.nan),
                "infusion_to_scan_min": minutes.get((str(patient), str(timepoint)), np.nan),
            }
        )
    names = list(TABLES["patients"])
    return pd.DataFrame(rows, columns=names[: names.index("kmeans_group")])
