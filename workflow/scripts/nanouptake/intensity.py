"""First-order and histogram statistics of a tumour's voxels, as IBSI defines them (manual, version 11)."""

from __future__ import annotations

import numpy as np


def first_order(values: np.ndarray) -> dict[str, float]:
    """Return IBSI's intensity statistics (section 4.3), under IBSI's short names.

    Parameters
    ----------
    values : (n,) ndarray
        Intensities of the voxels, finite. Statistics carry their unit (var and energy: squared).

    Variance is that of the population (divided by n), kurtosis is in excess of 3, percentiles interpolate
    linearly. What does not exist (no voxel, a zero denominator) is NaN.

    >>> round(first_order(np.array([1.0, 2.0, 3.0]))["var"], 4)
    0.6667
    """
    names = ["mean", "var", "skew", "kurt", "median", "min", "p10", "p90", "max", "iqr", "range"]
    names += ["mad", "rmad", "medad", "cov", "qcod", "energy", "rms"]
    if not values.size:
        return dict.fromkeys(names, float("nan"))
    v = np.asarray(values, float)
    p10, p25, median, p75, p90 = np.percentile(v, [10, 25, 50, 75, 90])
    mean, sd = v.mean(), v.std()
    middle = v[(v >= p10) & (v <= p90)]
    found = (
        mean,
        sd**2,
        _ratio(((v - mean) ** 3).mean(), sd**3),
        _ratio(((v - mean) ** 4).mean(), sd**4) - 3,
        median,
        v.min(),
        p10,
        p90,
        v.max(),
        p75 - p25,
        np.ptp(v),
        np.abs(v - mean).mean(),
        np.abs(middle - middle.mean()).mean(),
        np.abs(v - median).mean(),
        _ratio(sd, mean),
        _ratio(p75 - p25, p75 + p25),
        (v**2).sum(),
        np.sqrt((v**2).mean()),
    )
    return dict(zip(names, map(float, found), strict=True))


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


def bins_of(values: np.ndarray, *, bin_width_mg_ml: float, range_mg_ml: tuple[float, float]) -> np.ndarray:
    """Return the bin (0, 1, ...) of each value in a histogram of fixed width; the end bins take the rest."""
    low, high = range_mg_ml
    last = max(round((high - low) / bin_width_mg_ml) - 1, 0)
    # An ulp of a quotient must not move a value that lies on an edge.
    return np.floor(np.round((values - low) / bin_width_mg_ml, 9)).clip(0, last).astype(int)


def entropy_bits(bins: np.ndarray, *, corrected: bool = False) -> float:
    """Return the entropy -sum p log2 p of discrete values (IBSI TLU2); NaN for none.

    corrected adds Miller and Madow's small-sample term (M - 1) / (2 n ln 2), M the occupied bins.

    >>> entropy_bits(np.array([0, 1, 2, 3]))
    2.0
    """
    if not bins.size:
        return float("nan")
    counts = np.unique(bins, return_counts=True)[1]
    p = counts / bins.size
    bias = (counts.size - 1) / (2 * bins.size * np.log(2)) if corrected else 0.0
    return float(-(p * np.log2(p)).sum() + bias) + 0.0


def matlab_entropy_bits(values_mg_ml: np.ndarray) -> float:
    """Return what MATLAB's entropy() gives for doubles: 256 bins after im2uint8, values outside 0-1 clipped.

    >>> matlab_entropy_bits(np.array([-1.0, 0.0, 1.0, 2.0]))
    1.0
    """
    return entropy_bits(np.floor(255 * np.clip(values_mg_ml, 0, 1) + 0.5).astype(int))


def uniformity(bins: np.ndarray) -> float:
    """Return sum p^2 of discrete values (IBSI BJ5W); NaN for none."""
    if not bins.size:
        return float("nan")
    return float(((np.unique(bins, return_counts=True)[1] / bins.size) ** 2).sum())


def volume_histogram(values: np.ndarray, thresholds_mg_ml: np.ndarray) -> np.ndarray:
    """Return the fraction of the voxels at or above each threshold: the cumulative uptake-volume histogram.

    >>> volume_histogram(np.array([0.0, 0.1, 0.2, 0.3]), np.array([0.0, 0.15])).tolist()
    [1.0, 0.5]
    """
    if not values.size:
        return np.full(len(thresholds_mg_ml), np.nan)
    return 1 - np.searchsorted(np.sort(values), thresholds_mg_ml, side="left") / values.size
