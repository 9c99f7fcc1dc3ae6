"""Statistics of a cohort: suspected arms, uptake against size, variance within and between patients.

Everything is computed from the table of tumours alone; no treatment and no outcome is known here.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd

from .columns import TABLES
from .errors import DataError

AGENT, PLACEBO, INDETERMINATE, ONE_GROUP = (
    "suspected agent",
    "suspected placebo",
    "indeterminate",
    "no evidence of two groups",
)
SIGNIFICANCE = 0.02  # of one against two groups: one population is split in 2 % of the cohorts
SURE = 0.95  # posterior probability from which a patient is put in a group
FEWEST_PATIENTS = 6
SD_RATIO = 4.0  # the two groups' SDs differ at most by this factor: without a bound the likelihood has none
NULL_COHORTS = 1000
BOOTSTRAPS = 400


def check_tumors(tumors: pd.DataFrame, *, file: str | None = None) -> None:
    """Raise DataError for a missing column, a duplicate tumour or text where numbers should be."""
    needed = ["patient", "timepoint", "tumor", "volume_ml", "diameter_mm", "mean_mg_ml", "entropy_bits"]
    needed += ["sd_mg_ml", "upper_quartile_mean_mg_ml", "pattern"]
    missing = [c for c in needed if c not in tumors]
    if missing:
        raise DataError(
            "the table of tumours lacks columns",
            file=file,
            field=", ".join(missing),
            found=", ".join(tumors.columns),
            cure="make the table again with measure_tumors",
        )
    twice = tumors[tumors.duplicated(["patient", "timepoint", "tumor"])]
    if len(twice):
        row = twice.iloc[0]
        raise DataError(
            "a tumour is listed twice",
            file=file,
            field="patient, timepoint, tumor",
            found=f"{row['patient']} {row['timepoint']} {row['tumor']}",
            cure="give every structure of a patient its own name",
        )
    for column in needed[3:-1]:
        if len(tumors) and not pd.api.types.is_numeric_dtype(tumors[column]) and tumors[column].notna().any():
            raise DataError(
                "a column of numbers holds text",
                file=file,
                field=column,
                found=next((v for v in tumors[column] if isinstance(v, str)), tumors[column].iloc[0]),
                wanted="numbers, empty where unknown",
                cure="make the table again with measure_tumors",
            )


def first_post(tumors: pd.DataFrame) -> pd.DataFrame:
    """Return the tumours with a mean at the first post timepoint of each patient."""
    known = tumors.dropna(subset=["mean_mg_ml"])
    if known.empty:
        return known
    return known[known["timepoint"] == known.groupby("patient")["timepoint"].transform("min")]


def kmeans2(values: np.ndarray) -> np.ndarray:
    """Return True for the upper of the two groups that k-means, k = 2, finds; the exact optimum.

    In one dimension the optimum is a cut of the sorted values, so all cuts are tried.

    Parameters
    ----------
    values : (..., n) ndarray
        One cohort per row, n at least 2.

    >>> kmeans2(np.array([5.0, 1.0, 5.2, 1.1])).tolist()
    [True, False, True, False]
    """
    order = np.sort(values - values.mean(axis=-1, keepdims=True), axis=-1)
    n = order.shape[-1]
    k = np.arange(1, n)
    low = np.cumsum(order, axis=-1)[..., :-1]
    high = order.sum(axis=-1, keepdims=True) - low
    between = low**2 / k + high**2 / (n - k)
    cut = np.take_along_axis(order, between.argmax(axis=-1)[..., None], axis=-1)
    return values - values.mean(axis=-1, keepdims=True) > cut


class Mixture(NamedTuple):
    """Two Gaussians per cohort (B): weight, mean, SD of the lower and the upper; 2 log likelihood ratio."""

    weight: np.ndarray
    mean: np.ndarray
    sd: np.ndarray
    ratio: np.ndarray


def fit_mixture(values: np.ndarray, *, iterations: int = 100) -> Mixture:
    """Fit one and two Gaussians by maximum likelihood to each row of values, (B, n).

    Expectation-maximisation from the k-means groups and from the quartiles; the larger SD is at most
    SD_RATIO times the smaller, which is what keeps the likelihood bounded.
    """
    values = np.atleast_2d(values).astype(float)
    centre, scale = values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True)
    scale = np.where(scale > 1e-12, scale, 0)
    unit = np.where(scale > 0, scale, 1)
    x = (values - centre) / unit
    n = x.shape[1]
    single = -0.5 * n * (np.log(2 * np.pi) + 1)  # log likelihood of one Gaussian with unit variance
    starts = [kmeans2(x), x > np.quantile(x, 0.25, axis=1, keepdims=True)]
    starts.append(x > np.quantile(x, 0.75, axis=1, keepdims=True))
    best: tuple | None = None
    for upper in starts:
        share = np.stack([~upper, upper], axis=1) * 0.98 + 0.01  # (B, 2, n)
        for _ in range(iterations):
            mass = share.sum(axis=2)
            weight = mass / n
            mean = (share @ x[:, :, None])[:, :, 0] / mass
            variance = (share * (x[:, None] - mean[..., None]) ** 2).sum(axis=2) / mass
            variance = np.maximum(variance, variance.max(axis=1, keepdims=True) / SD_RATIO**2) + 1e-6
            logs = (
                np.log(weight)[..., None]
                - 0.5 * np.log(2 * np.pi * variance)[..., None]
                - 0.5 * (x[:, None] - mean[..., None]) ** 2 / variance[..., None]
            )
            total = np.logaddexp(logs[:, 0], logs[:, 1])
            share = np.exp(logs - total[:, None]) + 1e-9
        fitted = total.sum(axis=1)
        if best is None:
            best = (fitted, weight, mean, variance)
        else:
            better = fitted > best[0]
            best = tuple(
                np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip((fitted, weight, mean, variance), best, strict=True)
            )
    assert best is not None
    fitted, weight, mean, variance = best
    order = np.argsort(mean, axis=1)
    weight, mean, variance = (np.take_along_axis(a, order, axis=1) for a in (weight, mean, variance))
    ratio = np.where(scale[:, 0] > 0, np.maximum(2 * (fitted - single), 0), 0)
    return Mixture(weight, mean * unit + centre, np.sqrt(variance) * unit, ratio)


@cache
def null_ratios(n: int) -> np.ndarray:
    """Return the sorted likelihood ratios of NULL_COHORTS cohorts of n patients from one Gaussian.

    The ratio does not depend on the Gaussian's mean and SD, so this is the parametric bootstrap of every
    cohort of that size.
    """
    draws = np.random.default_rng(20240 + n).standard_normal((NULL_COHORTS, n))
    return np.sort(fit_mixture(draws).ratio)


def p_one_group(ratio: np.ndarray, n: int) -> np.ndarray:
    """Return the bootstrap p value of one group for 2 log likelihood ratios of cohorts of n patients."""
    null = null_ratios(n)
    return (1 + NULL_COHORTS - np.searchsorted(null, ratio, side="left")) / (1 + NULL_COHORTS)


def posterior_upper(values: np.ndarray, mixture: Mixture) -> np.ndarray:
    """Return the probability of the upper group for values (B, n), never falling with the value.

    Beyond the two means the wider Gaussian would claim both tails, so values are drawn in to the means.
    """
    from scipy.special import expit

    x = np.clip(values, mixture.mean[:, :1], mixture.mean[:, 1:])[:, None]
    logs = (
        np.log(mixture.weight)[..., None]
        - np.log(mixture.sd)[..., None]
        - 0.5 * ((x - mixture.mean[..., None]) / mixture.sd[..., None]) ** 2
    )
    return expit(logs[:, 1] - logs[:, 0])


def groups_of(posterior: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return the name of the group per patient, (B, n), from posteriors and the cohorts' p values (B,)."""
    names = np.where(posterior >= SURE, AGENT, np.where(posterior <= 1 - SURE, PLACEBO, INDETERMINATE))
    return np.where((p < SIGNIFICANCE)[:, None], names, ONE_GROUP)


class Arms(NamedTuple):
    """Blind answer for one cohort: table by patient, p value of one group, words."""

    table: pd.DataFrame
    p: float
    words: str


def suspected_arms(entropy_bits: pd.Series) -> Arms:
    """Ask whether patients fall in two groups, and who is in which.

    Parameters
    ----------
    entropy_bits : Series
        Entropy by patient; NaN is left out and named indeterminate.

    Returns
    -------
    Arms
        table has, by patient: kmeans_group, posterior_agent, group, loo_group (the group by a fit that
        did not see the patient) and loo_stable (the same answer).
    """
    table = pd.DataFrame(index=entropy_bits.index)
    table["kmeans_group"], table["posterior_agent"] = "", np.nan
    table["group"], table["loo_group"], table["loo_stable"] = INDETERMINATE, "", ""
    known = entropy_bits.dropna()
    n = len(known)
    x = known.to_numpy(float)
    if n >= 2 and np.ptp(x) > 0:
        table.loc[known.index, "kmeans_group"] = np.where(kmeans2(x), AGENT, PLACEBO)
    if n < FEWEST_PATIENTS:
        words = f"not computed: {n} patients with an entropy, at least {FEWEST_PATIENTS} are needed"
        return Arms(table, float("nan"), words)
    fit = fit_mixture(x)
    p = p_one_group(fit.ratio, n)
    posterior = posterior_upper(x[None], fit)
    group = groups_of(posterior, p)[0]
    table.loc[known.index, "group"] = group
    if p[0] < SIGNIFICANCE:
        table.loc[known.index, "posterior_agent"] = posterior[0]
    if n > FEWEST_PATIENTS:
        rest = np.array([np.delete(x, i) for i in range(n)])
        refit = fit_mixture(rest)
        loo = groups_of(posterior_upper(x[:, None], refit), p_one_group(refit.ratio, n - 1))[:, 0]
        table.loc[known.index, "loo_group"] = loo
        table.loc[known.index, "loo_stable"] = np.where(loo == group, "yes", "no")
    if p[0] >= SIGNIFICANCE:
        words = f"{ONE_GROUP} (p = {p[0]:.3f}); the two groups of k-means must not be read as arms"
    else:
        count = {name: int((group == name).sum()) for name in (AGENT, PLACEBO, INDETERMINATE)}
        words = f"two groups (p = {p[0]:.3f}): " + ", ".join(f"{k} {name}" for name, k in count.items())
    return Arms(table, float(p[0]), words)


def lar(x: np.ndarray, y: np.ndarray, *, degree: int = 1) -> np.ndarray:
    """Return the polynomial of least absolute residuals, highest power first: exact, by linear programming.

    >>> lar(np.arange(1.0, 6), np.array([1.0, 12, 20, 8, 46]), degree=2).round(6).tolist()
    [0.875, 6.0, -5.875]
    """
    from scipy.optimize import linprog

    design = np.vander(x, degree + 1)
    n, k = design.shape
    cost = np.concatenate([np.zeros(k), np.ones(2 * n)])
    equal = np.hstack([design, np.eye(n), -np.eye(n)])
    bounds = [(None, None)] * k + [(0, None)] * (2 * n)
    return linprog(cost, A_eq=equal, b_eq=y, bounds=bounds, method="highs-ds").x[:k]


def r_squared(y: np.ndarray, fitted: np.ndarray) -> tuple[float, float]:
    """Return R2 = 1 - SS_residual / SS_total, and R1 = 1 - sum|r| / sum|y - median| (Koenker, Machado)."""
    squares, absolute = ((y - y.mean()) ** 2).sum(), np.abs(y - np.median(y)).sum()
    r = y - fitted
    return (
        float(1 - (r**2).sum() / squares) if squares else float("nan"),
        float(1 - np.abs(r).sum() / absolute) if absolute else float("nan"),
    )


def outlying(x: np.ndarray, y: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Return True where a residual is beyond three robust SDs (1.4826 median absolute residuals)."""
    r = np.abs(y - np.polyval(line, x))
    return r > 3 * 1.4826 * np.median(r) + 1e-12


def bootstrap_by_patient(tumors: pd.DataFrame, *, seed: int = 1) -> np.ndarray:
    """Return slopes and intercepts, (BOOTSTRAPS, 2), of lines through resampled patients."""
    rng = np.random.default_rng(seed)
    parts = [g[["diameter_mm", "mean_mg_ml"]].to_numpy() for _, g in tumors.groupby("patient", sort=True)]
    lines = []
    for _ in range(BOOTSTRAPS):
        x, y = np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))]).T
        if np.ptp(x) > 0:
            lines.append(lar(x, y))
    return np.array(lines).reshape(-1, 2)


class Variance(NamedTuple):
    """One-way random effects by REML: SDs, intraclass correlation with its 95 % profile interval."""

    mean: float
    between_sd: float
    within_sd: float
    icc: float
    icc_low: float
    icc_high: float


def variance_components(values: np.ndarray, patient: np.ndarray) -> Variance:
    """Return between- and within-patient SD and ICC of tumours nested in patients (mixed model, REML).

    The restricted likelihood is profiled over the ICC on a grid of 0.001: no optimiser can fail. All NaN
    with fewer than two patients, or without a patient with two tumours.
    """
    from scipy.stats import chi2

    groups = [values[patient == p] for p in np.unique(patient)]
    n = np.array([len(g) for g in groups])
    if len(groups) < 2 or n.max() < 2 or not np.ptp(values) > 0:
        return Variance(*[float("nan")] * 6)
    means = np.array([g.mean() for g in groups])
    within = sum(((g - g.mean()) ** 2).sum() for g in groups)
    icc = np.arange(0, 0.9995, 0.001)
    lam = (icc / (1 - icc))[:, None]  # between variance over within variance
    w = n / (1 + n * lam)
    mu = (w * means).sum(axis=1) / w.sum(axis=1)
    squares = within + (w * (means - mu[:, None]) ** 2).sum(axis=1)
    df = n.sum() - 1
    likelihood = -0.5 * (df * np.log(squares / df) + np.log1p(n * lam).sum(axis=1) + np.log(w.sum(axis=1)))
    best = int(likelihood.argmax())
    inside = icc[2 * (likelihood[best] - likelihood) <= chi2.ppf(0.95, 1)]
    variance = squares[best] / df
    return Variance(
        float(mu[best]),
        float(np.sqrt(variance * lam[best, 0])),
        float(np.sqrt(variance)),
        float(icc[best]),
        float(inside.min()),
        float(inside.max()),
    )


def pattern_consistency(
    pattern: np.ndarray, patient: np.ndarray, *, permutations: int = 2000, seed: int = 1
) -> tuple[float, float, float]:
    """Return the share of same-pattern pairs within patients, that expected by chance, and its p value.

    Patterns are permuted over all tumours; one-sided. NaN without a pair.
    """
    names, code = np.unique(pattern, return_inverse=True)
    i, j = np.triu_indices(len(code), 1)
    same_patient = patient[i] == patient[j]
    i, j = i[same_patient], j[same_patient]
    if not i.size or len(names) < 2:
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    found = (code[i] == code[j]).mean()
    chance = []
    for _ in range(permutations):
        drawn = rng.permutation(code)
        chance.append((drawn[i] == drawn[j]).mean())
    more = (np.array(chance) >= found - 1e-12).sum()
    return float(found), float(np.mean(chance)), float((1 + more) / (1 + permutations))


def partial_volume_recovery(diameter_mm: np.ndarray, *, blur_sd_mm: float) -> np.ndarray:
    """Return measured over true mean of a uniform sphere blurred by a Gaussian: what size alone does.

    The blur holds the voxel, the point spread and the misregistration between the scans.

    >>> partial_volume_recovery(np.array([5.0, 50.0]), blur_sd_mm=0.8).round(2).tolist()
    [0.63, 0.96]
    """
    from scipy.special import erf

    radius = np.asarray(diameter_mm, float)[:, None] / 2
    r = (np.arange(400) + 0.5) / 400 * radius
    s = blur_sd_mm * np.sqrt(2)
    edge = erf((radius - r) / s) + erf((radius + r) / s)
    tail = np.exp(-(((radius - r) / s) ** 2)) - np.exp(-(((radius + r) / s) ** 2))
    profile = 0.5 * edge - blur_sd_mm / (r * np.sqrt(2 * np.pi)) * tail
    return (profile * r**2).sum(axis=1) / (r**2).sum(axis=1)


def null_curve(tumors: pd.DataFrame, *, blur_sd_mm: float) -> pd.DataFrame:
    """Return the uptake that equal true uptake would show at each diameter, and its 95 % bootstrap band.

    The true uptake is the least-absolute-residuals scale of the recovery curve to the tumours: the null
    hypothesis under which diameter matters by partial volume only. Columns diameter_mm, mg_ml, low, high.
    """
    columns = ["diameter_mm", "mg_ml", "low_mg_ml", "high_mg_ml"]
    if tumors.empty:
        return pd.DataFrame(columns=columns)
    diameter = tumors["diameter_mm"].to_numpy(float)
    y = tumors["mean_mg_ml"].to_numpy(float)
    recovery = partial_volume_recovery(diameter, blur_sd_mm=blur_sd_mm)

    def scale(rows: np.ndarray) -> float:
        # min over c of sum |y - c r| is the median of y / r weighted by r.
        ratio = y[rows] / recovery[rows]
        order = np.argsort(ratio, kind="stable")
        mass = np.cumsum(recovery[rows][order])
        return float(ratio[order][np.searchsorted(mass, mass[-1] / 2)])

    rng = np.random.default_rng(1)
    patient = tumors["patient"].to_numpy()
    parts = [np.flatnonzero(patient == p) for p in np.unique(patient)]
    drawn = [
        scale(np.concatenate([parts[i] for i in rng.integers(0, len(parts), len(parts))]))
        for _ in range(BOOTSTRAPS)
    ]
    grid = np.linspace(max(diameter.min(), 1.0), max(diameter.max(), 1.0), 60)
    curve = partial_volume_recovery(grid, blur_sd_mm=blur_sd_mm)
    low, high = np.percentile(drawn, [2.5, 97.5])
    whole = scale(np.arange(len(y)))
    return pd.DataFrame(dict(zip(columns, (grid, whole * curve, low * curve, high * curve), strict=True)))


def patient_groups(patients: pd.DataFrame) -> tuple[pd.DataFrame, Arms]:
    """Return the table of patients with the columns of the suspected arms, and the arms.

    The question is asked once, at each patient's first post timepoint; later rows carry its answer.
    """
    first = patients.sort_values("timepoint", kind="stable").drop_duplicates("patient")
    entropy = first.set_index("patient")["entropy_bits"].sort_index().astype(float)
    arms = suspected_arms(entropy)
    joined = patients.merge(arms.table, left_on="patient", right_index=True, how="left", sort=False)
    return joined, arms


def fits(tumors: pd.DataFrame, patients: pd.DataFrame, arms: Arms, *, blur_sd_mm: float) -> pd.DataFrame:
    """Return every statistic of the cohort in the columns of the table fits.

    Parameters
    ----------
    tumors : DataFrame
        First post timepoint, with a mean.
    patients : DataFrame
        With group.
    arms : Arms
        The answer of suspected_arms.
    blur_sd_mm : float
        For the null of partial volume.
    """
    from scipy.stats import spearmanr

    rows: list[dict] = []

    def add(fit: str, name: str, value: float, unit: str, meaning: str, **more: object) -> None:
        rows.append({"fit": fit, "parameter": name, "value": value, "unit": unit, "meaning": meaning} | more)

    add("arms", "p_one_group", arms.p, "1", f"bootstrap likelihood ratio, one against two: {arms.words}")
    group_of = dict(zip(patients["patient"], patients["group"], strict=True))
    groups = tumors["patient"].map(group_of) if len(tumors) else pd.Series([], dtype=object)
    chosen = {"all": tumors, AGENT: tumors[groups == AGENT], PLACEBO: tumors[groups == PLACEBO]}
    for name, part in chosen.items():
        size = {"n_patients": part["patient"].nunique(), "n_tumors": len(part)}
        fit = f"uptake against diameter, {name}"
        if len(part) < 3 or size["n_patients"] < 2 or not np.ptp(part["diameter_mm"]) > 0:
            add(fit, "slope", np.nan, "mg/ml/mm", "not computed: fewer than 3 tumours or 2 patients", **size)
            continue
        x, y = part["diameter_mm"].to_numpy(float), part["mean_mg_ml"].to_numpy(float)
        line = lar(x, y)
        spread = np.percentile(bootstrap_by_patient(part), [2.5, 97.5], axis=0)
        for place, (parameter, unit) in enumerate((("slope", "mg/ml/mm"), ("intercept", "mg/ml"))):
            meaning = "least absolute residuals; 95 % interval by resampling patients"
            limits = {"low": spread[0, place], "high": spread[1, place]}
            add(fit, parameter, line[place], unit, meaning, **limits, **size)
        squares, absolute = r_squared(y, np.polyval(line, x))
        add(fit, "r_squared", squares, "1", "1 - SS residual / SS total about the mean, all tumours", **size)
        add(fit, "r1", absolute, "1", "1 - sum |r| / sum |y - median| (Koenker and Machado)", **size)
        out = part[outlying(x, y, line)]
        named = ", ".join(f"{p} {t}" for p, t in zip(out["patient"], out["tumor"], strict=True))
        meaning = f"residual beyond three robust SDs: {named or 'none'}"
        add(fit, "outliers", len(out), "1", meaning, **size)
        rho, p = spearmanr(x, y) if np.ptp(y) > 0 else (np.nan, np.nan)
        add(
            fit,
            "spearman",
            rho,
            "1",
            f"rank correlation (p = {p:.3g} as if tumours were independent)",
            **size,
        )
        variance = variance_components(y, part["patient"].to_numpy())
        fit = f"variance, {name}"
        add(fit, "mean", variance.mean, "mg/ml", "mixed model, patients random, REML", **size)
        add(fit, "between_patient_sd", variance.between_sd, "mg/ml", "mixed model", **size)
        add(fit, "within_patient_sd", variance.within_sd, "mg/ml", "mixed model", **size)
        limits = {"low": variance.icc_low, "high": variance.icc_high}
        add(
            fit,
            "icc",
            variance.icc,
            "1",
            "between over total variance; 95 % profile interval",
            **limits,
            **size,
        )
        told = part[~part["pattern"].isin(["undetermined"])]
        same, chance, p = pattern_consistency(told["pattern"].to_numpy(str), told["patient"].to_numpy(str))
        fit = f"pattern, {name}"
        size = {"n_patients": told["patient"].nunique(), "n_tumors": len(told)}
        add(fit, "same_pattern", same, "1", "pairs of a patient's tumours with one pattern, share", **size)
        add(fit, "same_by_chance", chance, "1", "the same with patterns permuted over all tumours", **size)
        add(fit, "p", p, "1", "one-sided permutation test", **size)
    add("null", "blur_sd", blur_sd_mm, "mm", "voxel, point spread and misregistration in the null curve")
    return pd.DataFrame(rows, columns=list(TABLES["fits"]))
