"""The data dictionary: name, unit and meaning of every column of every table, in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from .images import write_atomic


class Column(NamedTuple):
    """Unit and meaning of a column."""

    unit: str
    meaning: str


_KEYS = {
    "patient": Column("", "the study's pseudonym"),
    "timepoint": Column("", "planning, pre, post, post2, ..."),
}
_TUMOR = _KEYS | {"tumor": Column("", "name of the structure in the planning system")}
_VIAL = {
    "vial": Column("", "name in the layout"),
    "n_voxels": Column("1", "voxels of the core, clear of wall and bubbles"),
    "n_slices": Column("1", "slices that agree with each other"),
    "known": Column("1", "share of the core's voxels whose T1 the sequence can tell"),
    "t1_s": Column("s", "median T1; empty where half of the core is beyond the range"),
    "t1_sd_s": Column("s", "SD over the voxels (1.4826 median absolute deviations)"),
    "t1_se_s": Column("s", "standard error of the median from that SD"),
    "model_sd_s": Column("s", "SD of one voxel that the T1 model expects from noise, median"),
}
TABLES: dict[str, dict[str, Column]] = {
    "tumors": _KEYS
    | {
        "tumor": Column("", "name of the structure in the planning system"),
        "n_voxels": Column("1", "voxels covered by more than half and with known concentration"),
        "n_unknown_voxels": Column("1", "voxels covered by more than half without a concentration"),
        "volume_ml": Column("ml", "sum of the coverage of all voxels"),
        "diameter_mm": Column("mm", "diameter of the sphere of that volume"),
        "mean_mg_ml": Column("mg/ml", "mean concentration over the voxels"),
        "sd_mg_ml": Column("mg/ml", "standard deviation over the voxels (n - 1)"),
        "median_mg_ml": Column("mg/ml", "median"),
        "p25_mg_ml": Column("mg/ml", "25th percentile, linear interpolation between order statistics"),
        "p75_mg_ml": Column("mg/ml", "75th percentile, linear interpolation between order statistics"),
        "min_mg_ml": Column("mg/ml", "smallest voxel"),
        "max_mg_ml": Column("mg/ml", "largest voxel"),
        "upper_quartile_mean_mg_ml": Column("mg/ml", "mean of the voxels at or above p75_mg_ml"),
        "entropy_bits": Column("bit", "entropy of the histogram with the config's fixed bins"),
        "p10_mg_ml": Column("mg/ml", "10th percentile, linear interpolation between order statistics"),
        "p90_mg_ml": Column("mg/ml", "90th percentile, linear interpolation between order statistics"),
        "skewness": Column("1", "skewness (IBSI KE2A)"),
        "kurtosis": Column("1", "kurtosis in excess of 3 (IBSI IPH6)"),
        "entropy_corrected_bits": Column("bit", "entropy_bits with Miller and Madow's small-sample term"),
        "entropy_matlab_bits": Column("bit", "MATLAB's entropy(): 256 bins over 0 to 1 mg/ml, rest clipped"),
        "rim_mg_ml": Column("mg/ml", "mean of the outer third of the depth below the surface"),
        "middle_mg_ml": Column("mg/ml", "mean of the middle third of the depth"),
        "core_mg_ml": Column("mg/ml", "mean of the inner third of the depth"),
        "peak_to_valley_centre": Column("1", "innermost of six shells over the lowest, rim left out"),
        "peak_to_valley_edge": Column("1", "highest shell outside the centre over the lowest, rim left out"),
        "baseline_mg_ml": Column("mg/ml", "mean of normal tissue 2 to 5 mm around"),
        "noise_mg_ml": Column("mg/ml", "SD of that tissue (1.4826 median absolute deviations)"),
        "t1_pre_s": Column("s", "mean T1 before infusion"),
        "t1_post_s": Column("s", "mean T1 after infusion"),
        "white_matter_mg_ml": Column(
            "mg/ml", "median of the patient's white matter 10 mm from tumours: drift"
        ),
        "mean_pvc_mg_ml": Column("mg/ml", "mean of the tissue inside the contour, partial volume taken out"),
        "mean_pvc_low_mg_ml": Column("mg/ml", "lower end of its 95 % interval"),
        "mean_pvc_high_mg_ml": Column("mg/ml", "upper end of its 95 % interval"),
        "p75_pvc_mg_ml": Column("mg/ml", "75th percentile, partial volume and noise taken out"),
        "p75_pvc_low_mg_ml": Column("mg/ml", "lower end of its 95 % interval"),
        "p75_pvc_high_mg_ml": Column("mg/ml", "upper end of its 95 % interval"),
        "upper_quartile_mean_pvc_mg_ml": Column(
            "mg/ml", "mean of the upper quarter, partial volume and noise taken out"
        ),
        "upper_quartile_mean_pvc_low_mg_ml": Column("mg/ml", "lower end of its 95 % interval"),
        "upper_quartile_mean_pvc_high_mg_ml": Column("mg/ml", "upper end of its 95 % interval"),
        "volume_low_ml": Column("ml", "lower end of the volume's 95 % interval"),
        "volume_high_ml": Column("ml", "upper end of the volume's 95 % interval"),
        "sd_noise_mg_ml": Column("mg/ml", "SD of mean_pvc_mg_ml from the noise of both scans"),
        "sd_partial_volume_mg_ml": Column("mg/ml", "SD of mean_pvc_mg_ml from the tissue around"),
        "sd_registration_mg_ml": Column("mg/ml", "SD of mean_pvc_mg_ml from the registrations"),
        "sd_contour_mg_ml": Column("mg/ml", "SD of mean_pvc_mg_ml from the contour's surface"),
        "sd_r1_mg_ml": Column("mg/ml", "SD of mean_pvc_mg_ml from r1"),
        "sd_protocol_mg_ml": Column(
            "mg/ml", "SD of mean_pvc_mg_ml from timings and an unknown transmit field"
        ),
        "sd_drift_mg_ml": Column("mg/ml", "SD of mean_pvc_mg_ml from the patient's zero"),
        "lod_mg_ml": Column("mg/ml", "detection limit of the tumour's mean: 3.29 SD at zero"),
        "loq_mg_ml": Column("mg/ml", "lower limit of quantification of the mean: 10 SD at zero"),
        "below_lod": Column("", "True where mean_pvc_mg_ml is below lod_mg_ml"),
        "voxel_lod_mg_ml": Column("mg/ml", "detection limit of one voxel: 3.29 noise_mg_ml"),
        "uloq_mg_ml": Column("mg/ml", "upper limit of quantification of a voxel: noise above a tenth again"),
        "above_uloq_fraction": Column("1", "fraction of the tumour's voxels above uloq_mg_ml"),
        "pvc_ill_posed": Column("", "True where the contour is less than three voxels wide"),
        "contralateral_mg_ml": Column("mg/ml", "median of white matter opposite the tumours: drift"),
        "pattern": Column("", "homogeneous, heterogeneous, central minimum or maximum; undetermined"),
        "flags": Column("", "what to know before using the row, separated by semicolons"),
    },
    "patients": _KEYS
    | {
        "n_tumors": Column("1", "tumours with a mean"),
        "mean_mg_ml": Column("mg/ml", "mean over tumours of mean_mg_ml"),
        "upper_quartile_mean_mg_ml": Column("mg/ml", "mean over tumours of upper_quartile_mean_mg_ml"),
        "sd_mg_ml": Column("mg/ml", "standard deviation over tumours of mean_mg_ml (n - 1)"),
        "entropy_bits": Column("bit", "mean over tumours of entropy_bits"),
        "total_volume_ml": Column("ml", "sum over tumours of volume_ml"),
        "volume_weighted_mean_mg_ml": Column("mg/ml", "mean_mg_ml weighted by volume"),
        "normal_tissue_mg_ml": Column("mg/ml", "median over tumours of baseline_mg_ml: drift, 0 is wanted"),
        "white_matter_mg_ml": Column(
            "mg/ml", "median of white matter 10 mm from tumours: drift, 0 is wanted"
        ),
        "registration_gradient_correlation": Column(
            "1", "of post and pre UNI after registration, 1 is perfect"
        ),
        "infusion_to_scan_min": Column("min", "from the sheet of scans"),
        "kmeans_group": Column("", "group of k-means, k = 2, on entropy_bits; it always finds two groups"),
        "posterior_agent": Column("1", "probability of the upper of two Gaussians; empty without two groups"),
        "group": Column(
            "",
            "suspected agent or placebo from 95 % probability, indeterminate, or no evidence of two groups",
        ),
        "loo_group": Column("", "group by a fit that did not see the patient"),
        "loo_stable": Column("", "whether loo_group is group"),
    },
    "fits": {
        "fit": Column("", "which question, and of which patients"),
        "parameter": Column("", "name of the number"),
        "value": Column("", "estimate in unit, empty where it cannot be computed"),
        "low": Column("", "lower end of the 95 % interval, in unit"),
        "high": Column("", "upper end of the 95 % interval, in unit"),
        "unit": Column("", "unit of value, low and high"),
        "n_patients": Column("1", "patients in the fit"),
        "n_tumors": Column("1", "tumours in the fit"),
        "meaning": Column("", "definition and remarks"),
    },
    "null_curve": {
        "diameter_mm": Column("mm", "diameter of the equal-volume sphere"),
        "mg_ml": Column("mg/ml", "what equal true uptake would read: partial volume alone"),
        "low_mg_ml": Column("mg/ml", "lower end of the 95 % interval, patients resampled"),
        "high_mg_ml": Column("mg/ml", "upper end of that interval"),
    },
    "profiles": _TUMOR
    | {
        "line": Column("", "horizontal: towards the patient's left; vertical: towards posterior"),
        "position_mm": Column("mm", "0 at the tumour's centroid"),
        "mg_ml": Column("mg/ml", "uptake, linear between voxels; outside the tumour its baseline"),
        "inside": Column("", "whether the point lies in the tumour"),
    },
    "sections": _TUMOR
    | {
        "x_mm": Column("mm", "towards the patient's left, 0 at the centroid"),
        "y_mm": Column("mm", "towards posterior, 0 at the centroid"),
        "mg_ml": Column("mg/ml", "uptake, linear between voxels"),
        "inside": Column("1", "the tumour's label, linear between voxels: its contour is 0.5"),
    },
    "histograms": _TUMOR
    | {
        "threshold_mg_ml": Column("mg/ml", "threshold"),
        "fraction": Column("1", "fraction of the voxels at or above the threshold"),
    },
    "vials_accuracy": _VIAL
    | {
        "true_t1_s": Column("s", "T1 of the gel at the phantom's temperature"),
        "low_t1_s": Column("s", "lower end of the tolerance, wider where the temperature is not known"),
        "high_t1_s": Column("s", "upper end of the tolerance"),
        "error_s": Column("s", "measured minus true"),
        "error_percent": Column("%", "of the true T1"),
        "inside": Column("", "whether t1_s lies within the tolerance; not measurable"),
    },
    "vials_relaxivity": _VIAL
    | {
        "concentration_mg_ml": Column("mg/ml", "of agent, from the layout"),
        "concentration_mm": Column("mM", "of gadolinium"),
        "r1_per_s": Column("1/s", "1 / t1_s"),
        "used": Column("", "whether the vial is in the fit"),
        "reason": Column("", "why it is not"),
        "delta_r1_per_s": Column("1/s", "R1 minus that without agent"),
        "residual_per_s": Column("1/s", "R1 minus the line"),
    },
    "phantom_summary": {
        "parameter": Column("", "name of the number"),
        "value": Column("", "estimate in unit"),
        "low": Column("", "lower end of the interval, in unit"),
        "high": Column("", "upper end of the interval, in unit"),
        "unit": Column("", "unit of value, low and high"),
        "meaning": Column("", "definition and remarks"),
    },
    "scans": _KEYS
    | {
        "status": Column("", "ok, flagged or failed"),
        "reason": Column("", "why it is not ok"),
    },
}


def fraction_columns(edges: list[float]) -> dict[str, Column]:
    """Return the columns of the concentration bins that the edges in mg/ml make.

    >>> list(fraction_columns([0.05, 0.1]))
    ['fraction_le_0.05', 'fraction_0.05_to_0.1', 'fraction_gt_0.1']
    """
    names = [f"fraction_le_{edges[0]:g}"]
    names += [f"fraction_{a:g}_to_{b:g}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
    names += [f"fraction_gt_{edges[-1]:g}"]
    meaning = "fraction of the voxels in this range of mg/ml (upper edge included)"
    return {name: Column("1", meaning) for name in names}


def dictionary(table: str, columns: list[str]) -> list[dict[str, str]]:
    """Return the data dictionary of a table; KeyError for a column that nobody described."""
    found = []
    for name in columns:
        known = TABLES[table].get(name)
        if known is None and table == "tumors" and name.startswith("fraction_"):
            known = Column("1", "fraction of the voxels in this range of mg/ml (upper edge included)")
        if known is None:
            raise KeyError(f"column {name} of table {table} is not in the data dictionary")
        found.append({"name": name, "unit": known.unit, "meaning": known.meaning})
    return found


def write_table(path: str | Path, frame: pd.DataFrame, table: str) -> None:
    """Write a table as CSV with its data dictionary as JSON beside it."""
    words = dictionary(table, list(frame.columns))
    write_atomic(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    write_atomic(Path(path).with_suffix(".json"), json.dumps(words, indent=1, ensure_ascii=False) + "\n")
