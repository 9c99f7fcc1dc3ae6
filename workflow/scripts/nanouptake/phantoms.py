"""What phantoms say: the accuracy of T1 in gels, and the relaxivity of the agent with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .errors import DataError

if TYPE_CHECKING:
    from .vials import Layout

PER_KELVIN = 0.027  # relative change of T1 of the gels (PHYSICS: Eurospin TO5)
KELVIN_RANGE = (292.0, 300.0)  # where a phantom may be that nobody took the temperature of
SPREAD = 0.01  # of R1 between vials beyond noise, relative: shape of the weights, their scale is estimated
KNOWN = 0.95  # of a vial's voxels must have a T1 for the relaxivity
SWAP_FACTOR = 1.1  # T1 off by more, and right after an exchange: two vials are swapped
KELVIN_OFF = 3.0  # between stated and best-fitting temperature
SUMMARY = ["parameter", "value", "low", "high", "unit", "meaning"]


def gel_table(path: str | Path) -> pd.DataFrame:
    """Read a table of gels: gel, temperature_k, t1_s, tolerance (relative), field_t."""
    table = pd.read_csv(path, sep="\t", comment="#", dtype={"gel": str})
    return table.sort_values(["gel", "temperature_k"], kind="stable")


def true_t1(
    truth: pd.DataFrame, *, temperature_k: float | None, tables: Sequence[Path], field_t: float | None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the true T1 of every vial at the phantom's temperature, with its band, and flags.

    Parameters
    ----------
    truth : DataFrame
        A layout's: vial and either t1_s (as it is) or gel (``table:gel``, the table in ``tables``).
    temperature_k : float or None
        None: the middle of 292 to 300 K, the band widened by 2.7 %/K.
    tables : sequence of Path
        Folders of gel tables; the first that has the table counts.
    field_t : float or None
        The scanner's; a table of another field is refused.

    Returns
    -------
    table : DataFrame
        vial, true_t1_s, low_t1_s, high_t1_s. Between the table's temperatures ln T1 is interpolated by a
        monotone cubic (PCHIP).
    """
    from scipy.interpolate import PchipInterpolator

    if temperature_k is not None and not 280 <= temperature_k <= 320:
        raise DataError(
            "the phantom's temperature is impossible",
            file="config/phantoms.tsv",
            field="temperature_k",
            found=f"{temperature_k:g}",
            wanted="kelvin: 293.15 is 20 degrees Celsius",
            cure="add 273.15 to degrees Celsius, or leave the cell empty where it was not taken",
        )
    flags = []
    half = 0.0
    at = temperature_k
    if at is None:
        at = sum(KELVIN_RANGE) / 2
        half = PER_KELVIN * (KELVIN_RANGE[1] - KELVIN_RANGE[0]) / 2
        flags.append(
            f"no temperature: the true T1 is that at {at:g} K, its band is wider by {100 * half:.1f} % "
            f"(2.7 %/K over {KELVIN_RANGE[0]:g} to {KELVIN_RANGE[1]:g} K)"
        )
    if truth.columns[1] == "concentration_mg_ml":
        raise DataError(
            "the layout of an accuracy phantom has no T1",
            file="the layout",
            field="t1_s or gel",
            found="concentration_mg_ml",
            cure="name the layout of the gels, or set kind: relaxivity",
        )
    rows = []
    for vial, value in zip(truth["vial"], truth.iloc[:, 1], strict=True):
        if isinstance(value, str):
            name, _, gel = value.partition(":")
            files = [f / f"{name}.tsv" for f in tables]
            file = next((f for f in files if gel and f.exists()), None)
            known = gel_table(file) if file else pd.DataFrame({"gel": []})
            one = known[known["gel"] == gel]
            if one.empty:
                raise DataError(
                    "the gel is not known",
                    file="the layout",
                    field=f"gel of vial {vial}",
                    found=value,
                    wanted="table:gel, as eurospin_to5:7 or nist_t1:3",
                    cure="correct the layout",
                )
            low, high = one["temperature_k"].min(), one["temperature_k"].max()
            if not low - 1 <= at <= high + 1:
                raise DataError(
                    "the gels' T1 is not known at this temperature",
                    file="config/phantoms.tsv",
                    field="temperature_k",
                    found=f"{at:g}",
                    wanted=f"{low:g} to {high:g} K",
                    cure="correct the temperature, or scan the phantom within that range",
                )
            if field_t is not None and abs(one["field_t"].iloc[0] - field_t) > 0.2:
                raise DataError(
                    "the gel table is for another field strength",
                    file=f"{name}.tsv",
                    field="field_t",
                    found=f"{one['field_t'].iloc[0]:g} T, the scan was at {field_t:g} T",
                    cure="name a table of the scanner's field in the layout",
                )
            curve = PchipInterpolator(one["temperature_k"], np.log(one["t1_s"]), extrapolate=True)
            t1 = float(np.exp(curve(at)))
            tolerance = float(one["tolerance"].iloc[0])
        else:
            t1, tolerance = float(value), 0.03
        band = tolerance + half
        rows.append((vial, t1, t1 * (1 - band), t1 * (1 + band)))
    return pd.DataFrame(rows, columns=["vial", "true_t1_s", "low_t1_s", "high_t1_s"]), flags


def concentrations(layout: Layout) -> np.ndarray:
    """Return the concentrations in mg/ml of a layout's vials; DataError for a layout of T1."""
    if "concentration_mg_ml" not in layout.truth:
        raise DataError(
            "the layout of a relaxivity phantom has no concentrations",
            file=layout.name,
            field="concentration_mg_ml",
            found=", ".join(layout.truth.columns),
            cure="name the layout of the dilution phantom, or set kind: accuracy",
        )
    return layout.truth.loc[~layout.marker, "concentration_mg_ml"].to_numpy(float)


def refuse_swapped(vials: list[str], measured: np.ndarray, expected: np.ndarray) -> None:
    """Raise DataError where exchanging two vials mends both: their places are swapped in the layout.

    measured and expected are positive and rise together; a common factor between them (temperature,
    relaxivity) does not matter.
    """
    known = np.flatnonzero(np.isfinite(measured) & np.isfinite(expected))
    ratio = np.log(measured[known]) - np.log(expected[known])
    centre = np.median(ratio)
    log_e, log_m = np.log(expected[known]), np.log(measured[known]) - centre
    limit = np.log(SWAP_FACTOR)
    for i in range(known.size):
        for j in range(i):
            own = min(abs(log_m[i] - log_e[i]), abs(log_m[j] - log_e[j]))
            other = max(abs(log_m[i] - log_e[j]), abs(log_m[j] - log_e[i]))
            if own > limit and other < limit / 2:
                a, b = vials[known[j]], vials[known[i]]
                raise DataError(
                    f"vials {a} and {b} are swapped in the layout",
                    file="the layout",
                    field=f"vial {a}, vial {b}",
                    found=f"each reads what the other should, {100 * np.expm1(own):.0f} % or more off",
                    wanted="every vial where the layout has it",
                    cure="exchange the two in the layout, or in the phantom",
                )


def accuracy(measured: pd.DataFrame, truth: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Compare measured with true T1.

    Parameters
    ----------
    measured : DataFrame
        From vials.measure.
    truth : DataFrame
        From true_t1.

    Returns
    -------
    vials : DataFrame
        measured and truth with error_s, error_percent, inside.
    summary : DataFrame
        One row per figure: parameter, value, low, high, unit, meaning.
    flags : list of str
    """
    table = measured.merge(truth, on="vial", how="left")
    refuse_swapped(list(table["vial"]), table["t1_s"].to_numpy(), table["true_t1_s"].to_numpy())
    table["error_s"] = table["t1_s"] - table["true_t1_s"]
    table["error_percent"] = 100 * table["error_s"] / table["true_t1_s"]
    inside = (table["t1_s"] >= table["low_t1_s"]) & (table["t1_s"] <= table["high_t1_s"])
    table["inside"] = inside.map({True: "yes", False: "no"}).where(table["t1_s"].notna(), "not measurable")
    known = table[table["t1_s"].notna()]
    rows: list[tuple] = []
    flags = []
    if len(known):
        error = known["error_s"].to_numpy()
        bias, sd = error.mean(), error.std(ddof=1) if error.size > 1 else np.nan
        worst = known.iloc[int(known["error_percent"].abs().to_numpy().argmax())]
        rows += [
            ("mean_absolute_error", np.abs(error).mean(), None, None, "s", "mean over vials of |error|"),
            ("bias", bias, bias - 1.96 * sd, bias + 1.96 * sd, "s", "mean error and limits of agreement"),
            (
                "worst_vial_error_percent",
                worst["error_percent"],
                None,
                None,
                "%",
                f"error of vial {worst['vial']}, the largest",
            ),
            (
                "inside_tolerance",
                float((known["inside"] == "yes").mean()),
                None,
                None,
                "1",
                "share of the measurable vials within their band",
            ),
        ]
        ratio = np.log(known["t1_s"] / known["true_t1_s"])
        kelvin = float(np.median(ratio)) / PER_KELVIN
        off = abs(kelvin) > KELVIN_OFF and ratio.std() < abs(np.median(ratio)) / 2
        rows.append(
            (
                "best_fitting_temperature_shift",
                kelvin,
                None,
                None,
                "K",
                "median error over 2.7 %/K of the gels",
            )
        )
        if off:
            flags.append(
                f"all vials read alike, as if the phantom were {kelvin:+.1f} K from the stated temperature: "
                "check temperature_k"
            )
        outside = known.loc[known["inside"] == "no", "vial"]
        if len(outside) and not off:
            flags.append(f"T1 outside the tolerance in vials {', '.join(outside)}")
    lost = table.loc[table["t1_s"].isna(), "vial"]
    if len(lost):
        flags.append(f"T1 beyond what the sequence can tell in vials {', '.join(lost)}")
    return table, pd.DataFrame(rows, columns=SUMMARY), flags


@dataclass(frozen=True)
class Line:
    """A relaxivity line: R1 in 1/s over mM, slope with SD and 95 % interval."""

    r1_per_mm_per_s: float
    sd_per_mm_per_s: float
    low_per_mm_per_s: float
    high_per_mm_per_s: float
    intercept_per_s: float
    intercept_sd_per_s: float
    intercept_p: float
    r_squared: float
    dof: int
    covariance: np.ndarray  # of (intercept, slope) as drawn


def relaxivity_line(
    concentration_mm: np.ndarray, rate_per_s: np.ndarray, sd_per_s: np.ndarray, *, form: str
) -> Line:
    """Fit R1 against concentration.

    Parameters
    ----------
    concentration_mm, rate_per_s : (n,) ndarray
        Gadolinium in mM and R1 in 1/s; for ``saline_baseline`` one vial must hold none.
    sd_per_s : (n,) ndarray
        SD of each R1 up to a common factor, which the residuals give.
    form : str
        ``free_intercept``: weighted least squares of R1 with an intercept. ``saline_baseline``: of R1 minus
        the saline vial's, through the origin, as in the paper; its interval has the saline's own error.

    Returns
    -------
    Line
        Intervals by Student's t. The scale of the noise is that of the line with a free intercept in both
        forms. intercept_p tests, for the free form, whether the intercept of the vials with agent is the
        saline vial's R1; NaN without a saline vial.
    """
    from scipy.stats import t as student

    c, y = np.asarray(concentration_mm, float), np.asarray(rate_per_s, float)
    sd = np.asarray(sd_per_s, float)
    saline = c == 0
    if c.size < 4 or np.unique(c).size < 3:
        raise DataError(
            "too few vials for a relaxivity",
            found=f"{c.size} usable vials, {np.unique(c).size} concentrations",
            wanted="at least 4 vials of 3 concentrations",
            cure="see the list of excluded vials; lower concentrations stay measurable",
        )
    if form == "saline_baseline" and not saline.any():
        raise DataError(
            "the relaxivity from a saline baseline needs a vial without agent",
            field="phantoms.relaxivity_form",
            found=f"concentrations from {c.min():g} mM",
            wanted="a vial of 0, or free_intercept",
            cure="set phantoms.relaxivity_form: free_intercept",
        )
    intercept, slope, cov, rest = _weighted_line(c, y, sd)
    dof = c.size - 2
    scale = rest / dof
    p = np.nan
    if saline.any() and (~saline).sum() >= 3:
        a, _, cov_a, rest_a = _weighted_line(c[~saline], y[~saline], sd[~saline])
        base, base_sd = _mean(y[saline], sd[saline])
        variance = (cov_a[0, 0] + base_sd**2) * rest_a / ((~saline).sum() - 2)
        p = float(2 * student.sf(abs(a - base) / np.sqrt(variance), (~saline).sum() - 2))
    if form == "saline_baseline":
        base, base_sd = _mean(y[saline], sd[saline])
        x, w = c[~saline], sd[~saline] ** -2.0
        slope = float((w * x * (y[~saline] - base)).sum() / (w * x**2).sum())
        of_base = (w * x).sum() / (w * x**2).sum()
        intercept = base
        shared = base_sd**2
        cov = np.array(
            [[shared, -of_base * shared], [-of_base * shared, 1 / (w * x**2).sum() + of_base**2 * shared]]
        )
    cov = cov * scale
    weights = sd**-2.0
    fitted = intercept + slope * c
    mean = (weights * y).sum() / weights.sum()
    r_squared = 1 - (weights * (y - fitted) ** 2).sum() / (weights * (y - mean) ** 2).sum()
    spread = float(np.sqrt(cov[1, 1]))
    half = float(student.ppf(0.975, dof)) * spread
    return Line(
        float(slope),
        spread,
        float(slope - half),
        float(slope + half),
        float(intercept),
        float(np.sqrt(cov[0, 0])),
        p,
        float(r_squared),
        dof,
        cov,
    )


def _weighted_line(x: np.ndarray, y: np.ndarray, sd: np.ndarray) -> tuple[float, float, np.ndarray, float]:
    """Return intercept, slope, their covariance for these SDs, and the weighted sum of squared residuals."""
    design = np.column_stack([np.ones_like(x), x]) / sd[:, None]
    cov = np.linalg.inv(design.T @ design)
    a, b = cov @ design.T @ (y / sd)
    return float(a), float(b), cov, float((((y - a - b * x) / sd) ** 2).sum())


def _mean(y: np.ndarray, sd: np.ndarray) -> tuple[float, float]:
    """Return the weighted mean and its SD."""
    w = sd**-2.0
    return float((w * y).sum() / w.sum()), float(w.sum() ** -0.5)


def relaxivity(
    measured: pd.DataFrame, concentration_mg_ml: np.ndarray, *, mg_per_ml_per_mm: float, form: str
) -> tuple[pd.DataFrame, pd.DataFrame, Line, list[str]]:
    """Return the vials with their residuals, the summary, the line and flags.

    Parameters
    ----------
    measured : DataFrame
        From vials.measure, one row per vial.
    concentration_mg_ml : (n,) ndarray
        Of the agent in each vial.
    mg_per_ml_per_mm : float
        The batch's constant: mg/ml of agent per mM of gadolinium.
    form : str
        See relaxivity_line.

    Vials beyond the upper limit of quantification (5 % of the core without a T1, or on the flat end of the
    lookup) are left out and listed. Weights: SD of a vial's R1 from its voxels' noise and 1 % of R1.
    """
    table = measured.copy()
    table["concentration_mg_ml"] = np.asarray(concentration_mg_ml, float)
    table["concentration_mm"] = table["concentration_mg_ml"] / mg_per_ml_per_mm
    table["r1_per_s"] = 1 / table["t1_s"]
    used = (table["known"] >= KNOWN) & table["t1_s"].notna()
    table["used"] = used.map({True: "yes", False: "no"})
    table["reason"] = np.where(used, "", "beyond the range of the sequence")
    own = table[used]
    rates = own["r1_per_s"].to_numpy()
    sd = np.hypot(own["t1_se_s"].to_numpy() * rates**2, SPREAD * rates)
    line = relaxivity_line(own["concentration_mm"].to_numpy(), rates, sd, form=form)
    # Longer T1 is less agent: the line's own prediction is what each vial should read.
    expected = line.intercept_per_s + line.r1_per_mm_per_s * table["concentration_mm"].to_numpy()
    theil = _robust_line(own["concentration_mm"].to_numpy(), rates)
    refuse_swapped(
        list(own["vial"]), rates, np.maximum(theil[0] + theil[1] * own["concentration_mm"].to_numpy(), 1e-3)
    )
    table["delta_r1_per_s"] = table["r1_per_s"] - line.intercept_per_s
    table["residual_per_s"] = table["r1_per_s"] - expected
    lost = list(table.loc[~used, "vial"])
    flags = (
        [f"vials left out of the relaxivity, beyond the range of the sequence: {', '.join(lost)}"]
        if lost
        else []
    )
    if line.intercept_p < 0.05:
        flags.append(
            f"the line of the vials with agent does not meet the saline vial (p = {line.intercept_p:.3f}): "
            "check concentrations and saline"
        )
    words = {
        "saline_baseline": "R1 minus that of saline, through the origin",
        "free_intercept": "R1 with a free intercept",
    }[form]
    rows = [
        (
            "r1",
            line.r1_per_mm_per_s,
            line.low_per_mm_per_s,
            line.high_per_mm_per_s,
            "/mM/s",
            f"relaxivity per mM Gd, 95 % interval; {words}",
        ),
        ("r1_sd", line.sd_per_mm_per_s, None, None, "/mM/s", "standard error of r1"),
        (
            "mg_per_ml_per_mm",
            mg_per_ml_per_mm,
            None,
            None,
            "mg/ml per mM",
            "agent per gadolinium, a constant of the batch",
        ),
        (
            "intercept",
            line.intercept_per_s,
            line.intercept_per_s - 1.96 * line.intercept_sd_per_s,
            line.intercept_per_s + 1.96 * line.intercept_sd_per_s,
            "1/s",
            "R1 without agent",
        ),
        (
            "intercept_p",
            line.intercept_p,
            None,
            None,
            "1",
            "p value: the vials with agent extrapolate to the saline vial",
        ),
        ("r_squared", line.r_squared, None, None, "1", "weighted coefficient of determination"),
        ("n_vials", float(used.sum()), None, None, "1", "vials in the fit"),
    ]
    return table, pd.DataFrame(rows, columns=SUMMARY), line, flags


def _robust_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return intercept and slope by Theil and Sen."""
    from scipy.stats import theilslopes

    slope, intercept, _, _ = theilslopes(y, x)
    return float(intercept), float(slope)


@dataclass(frozen=True)
class Relaxivity:
    """r1 in /mM/s with its SD, and the batch's constant: what the uptake rules need."""

    per_mm_per_s: float
    sd_per_mm_per_s: float
    mg_per_ml_per_mm: float
    source: str


def relaxivity_of(agent: dict, summary: str | Path | None) -> Relaxivity:
    """Return the relaxivity of a phantom's summary.csv, or that of the config where no phantom is named."""
    if summary:
        return read_relaxivity(summary)
    r1 = agent["r1"]
    return Relaxivity(r1["per_mm_per_s"], r1["sd_per_mm_per_s"], agent["mg_per_ml_per_mm"], "config")


def read_relaxivity(path: str | Path) -> Relaxivity:
    """Return the relaxivity of a phantom's summary.csv."""
    table = pd.read_csv(path).set_index("parameter")["value"]
    name = Path(path).parent.name
    return Relaxivity(float(table["r1"]), float(table["r1_sd"]), float(table["mg_per_ml_per_mm"]), name)
