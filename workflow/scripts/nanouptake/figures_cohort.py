"""The paper's figures 5 to 8, one function each, from the tables in results/ alone."""

from __future__ import annotations

import textwrap

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .cohort import AGENT, PLACEBO, first_post, outlying
from .figures import BLUE, CONCENTRATION_LIMITS_MG_ML, STYLE, VERMILION

GREY, GREEN = "#767676", "#009E73"
COLOUR = {AGENT: BLUE, PLACEBO: VERMILION}
MARKER = {AGENT: "o", PLACEBO: "s"}
PATTERNS = ("heterogeneous", "homogeneous", "central minimum", "central maximum")


def _shown(tumors: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Return the measured tumours of the first post timepoint, with the patient's group."""
    if tumors.empty or patients.empty:
        return pd.DataFrame()
    shown = first_post(tumors)
    groups = patients.drop_duplicates("patient")[["patient", "group"]]
    return shown.merge(groups, on="patient", how="left").fillna({"group": "indeterminate"})


def _empty(words: str) -> Figure:
    figure = Figure(figsize=(6.5, 1.4))
    figure.text(0.5, 0.5, textwrap.fill(words, 80), ha="center", va="center")
    return figure


def _by_mean(shown: pd.DataFrame) -> pd.DataFrame:
    """Return the patients' means: agent first, then undecided, then placebo; by descending mean."""
    means = shown.groupby("patient").agg(
        mean=("mean_mg_ml", "mean"), upper=("upper_quartile_mean_mg_ml", "mean"), group=("group", "first")
    )
    means["rank"] = means["group"].map({AGENT: 0, PLACEBO: 2}).fillna(1)
    return means.sort_values(["rank", "mean"], ascending=[True, False], kind="stable")


def figure5(tumors: pd.DataFrame, patients: pd.DataFrame) -> Figure:
    """Mean uptake of every tumour by patient (the paper's figure 5).

    Parameters
    ----------
    tumors, patients : DataFrame
        The cohort's tables; each patient's first post timepoint is shown, groups side by side.
    """
    with mpl.rc_context(STYLE):
        shown = _shown(tumors, patients)
        if shown.empty:
            return _empty("no tumour could be measured")
        means = _by_mean(shown)
        figure = Figure(figsize=(max(4.5, 1.6 + 0.28 * len(means)), 3.8))
        axes = figure.add_subplot()
        places = {p: i for i, p in enumerate(means.index)}
        for group, part in [(str(k), v) for k, v in shown.groupby("group")]:
            x = part["patient"].map(places).to_numpy(float)
            marker, colour = MARKER.get(group, "D"), COLOUR.get(group, GREY)
            axes.plot(x, part["mean_mg_ml"], marker, color=colour, alpha=0.5, ms=4, mew=0)
            own = means[means["group"] == group]
            at = [places[p] for p in own.index]
            axes.plot(at, own["mean"], "*", color=colour, ms=12, mec="white", mew=0.6, label=group)
        axes.plot(range(len(means)), means["upper"], "*", color="black", ms=8, mew=0, label="upper quartile")
        for cut in np.flatnonzero(np.diff(means["rank"].to_numpy())):
            axes.axvline(cut + 0.5, color="0.5", lw=0.9, ls=":")
        axes.axhline(0, color="0.6", lw=0.8, zorder=0)
        axes.set_xticks(range(len(means)), list(means.index), rotation=90 if len(means) > 8 else 0)
        axes.set_xlim(-0.6, len(means) - 0.4)
        axes.set_xlabel("patient, by descending mean uptake")
        axes.set_ylabel("mean uptake (mg/ml)")
        axes.legend(frameon=False, fontsize=8, title="dots: tumours; stars: patient means", title_fontsize=8)
        return figure


def _cut(axes: Axes, sections: pd.DataFrame, row: pd.Series, title: str) -> AxesImage | None:
    """Draw a tumour's axial section on the fixed scale with its contour; return the image or None."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=7.5)
    own = _rows_of(sections, row)
    if own.empty:
        axes.text(0.5, 0.5, "no section", ha="center", va="center", transform=axes.transAxes, fontsize=8)
        return None
    plane = own.pivot(index="y_mm", columns="x_mm", values="mg_ml").to_numpy()
    cover = own.pivot(index="y_mm", columns="x_mm", values="inside").to_numpy()
    x, y = np.sort(own["x_mm"].unique()), np.sort(own["y_mm"].unique())
    low, high = CONCENTRATION_LIMITS_MG_ML
    # Radiological view: patient's left on the right, anterior up.
    extent = (x[0] - 0.5, x[-1] + 0.5, y[-1] + 0.5, y[0] - 0.5)
    image = axes.imshow(plane, cmap="viridis", vmin=low, vmax=high, extent=extent)
    if cover.max() > 0.5 > cover.min():
        axes.contour(x, y, cover, levels=[0.5], colors="white", linewidths=0.9)
    return image


def _rows_of(table: pd.DataFrame, row: pd.Series) -> pd.DataFrame:
    if table.empty:
        return table
    keys = ("patient", "timepoint", "tumor")
    return table[np.logical_and.reduce([table[k] == row[k] for k in keys])]


def _fit(fits: pd.DataFrame, group: str, parameter: str) -> float:
    if fits.empty:
        return float("nan")
    own = fits[(fits["fit"] == f"uptake against diameter, {group}") & (fits["parameter"] == parameter)]
    return float(own["value"].iloc[0]) if len(own) else float("nan")


def figure6(
    tumors: pd.DataFrame,
    patients: pd.DataFrame,
    fits: pd.DataFrame,
    null: pd.DataFrame,
    sections: pd.DataFrame,
) -> Figure:
    """Mean uptake against diameter, with the lines of the table fits, and examples (the paper's figure 6).

    Parameters
    ----------
    tumors, patients, fits, null, sections : DataFrame
        Tables of the cohort; null is the curve of partial volume alone. Outliers of the agent's line are
        outlined; sections show the two largest outliers (else the highest two) and the median tumour.
    """
    with mpl.rc_context(STYLE):
        shown = _shown(tumors, patients)
        if shown.empty:
            return _empty("no tumour could be measured")
        group = AGENT if (shown["group"] == AGENT).any() else "all"
        agent = shown[shown["group"] == AGENT] if group == AGENT else shown
        figure = Figure(figsize=(7.2, 5.6), layout="constrained")
        grid = figure.add_gridspec(2, 3, height_ratios=(1.7, 1))
        axes = figure.add_subplot(grid[0, :])
        for name, part in [(str(k), v) for k, v in shown.groupby("group")]:
            axes.plot(
                part["diameter_mm"],
                part["mean_mg_ml"],
                MARKER.get(name, "D"),
                color=COLOUR.get(name, GREY),
                alpha=0.6,
                ms=4.5,
                mew=0,
                label=name,
            )
        for name, style in ((group, "-"), (PLACEBO, "--")):
            line = np.array([_fit(fits, name, "slope"), _fit(fits, name, "intercept")])
            if np.isfinite(line).all():
                part = shown[shown["group"] == name] if name != "all" else shown
                x = np.array([part["diameter_mm"].min(), part["diameter_mm"].max()])
                r2 = _fit(fits, name, "r_squared")
                label = f"{name}: {line[0]:.3g}·d {line[1]:+.3g}, R² {r2:.2f}"
                axes.plot(x, np.polyval(line, x), style, color="black", lw=1.4, label=label)
        if not null.empty:
            axes.plot(
                null["diameter_mm"], null["mg_ml"], ":", color=GREEN, lw=1.4, label="partial volume alone"
            )
            axes.fill_between(
                null["diameter_mm"], null["low_mg_ml"], null["high_mg_ml"], color=GREEN, alpha=0.12, lw=0
            )
        slope, intercept = _fit(fits, group, "slope"), _fit(fits, group, "intercept")
        x, y = agent["diameter_mm"].to_numpy(float), agent["mean_mg_ml"].to_numpy(float)
        high = agent.iloc[np.argsort(-y, kind="stable")]
        if np.isfinite(slope):
            out = agent[outlying(x, y, np.array([slope, intercept]))]
            axes.plot(out["diameter_mm"], out["mean_mg_ml"], "o", ms=10, mfc="none", mec="black", mew=1.2)
            residual = (out["mean_mg_ml"] - slope * out["diameter_mm"] - intercept).sort_values(
                ascending=False
            )
            high = pd.concat([out.loc[residual.index[residual > 0]], high]).drop_duplicates()
        middle = agent.iloc[int(np.argmin(np.abs(y - np.median(y))))]
        examples = [high.iloc[k] for k in range(min(2, len(high)))] + [middle]
        axes.axhline(0, color="0.6", lw=0.8, zorder=0)
        axes.set_xlabel("diameter of the equal-volume sphere (mm)")
        axes.set_ylabel("mean uptake (mg/ml)")
        axes.legend(frameon=False, fontsize=7.5, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        images, panels = [], []
        for place, (row, letter) in enumerate(zip(examples, "abc", strict=False)):
            panel = figure.add_subplot(grid[1, place])
            note = "near the median" if place == len(examples) - 1 else "high"
            images.append(_cut(panel, sections, row, f"{letter}: {row['patient']} {row['tumor']}, {note}"))
            panels.append(panel)
            axes.annotate(
                letter,
                (row["diameter_mm"], row["mean_mg_ml"]),
                xytext=(6, 4),
                textcoords="offset points",
                fontweight="bold",
            )
        if drawn := [i for i in images if i is not None]:
            figure.colorbar(drawn[0], ax=panels, label="uptake (mg/ml)", shrink=0.9)
        return figure


def example_of(shown: pd.DataFrame, pattern: str) -> pd.Series | None:
    """Return the tumour that stands for a pattern: the largest one that shows it."""
    own = shown[shown["pattern"] == pattern]
    if own.empty:
        return None
    return own.sort_values(["volume_ml", "patient", "tumor"], ascending=[False, True, True]).iloc[0]


def figure7(
    tumors: pd.DataFrame, patients: pd.DataFrame, sections: pd.DataFrame, profiles: pd.DataFrame
) -> Figure:
    """Section and both line profiles of the largest tumour of each pattern (the paper's figure 7).

    Parameters
    ----------
    tumors, patients, sections, profiles : DataFrame
        Tables of the cohort and of its patients. Suspected placebo patients are not shown.
    """
    with mpl.rc_context(STYLE):
        shown = _shown(tumors, patients)
        if not shown.empty:
            shown = shown[shown["group"] != PLACEBO]
        examples = {p: example_of(shown, p) for p in PATTERNS} if not shown.empty else {}
        found = {p: row for p, row in examples.items() if row is not None}
        if not found:
            return _empty("no tumour has a pattern that can be told")
        figure = Figure(figsize=(8, 1.9 * len(found)), layout="constrained")
        grid = figure.subplots(len(found), 3, squeeze=False, width_ratios=(1, 1.6, 1.6))
        image = None
        for panels, (pattern, row) in zip(grid, found.items(), strict=True):
            image = _cut(panels[0], sections, row, f"{pattern}\n{row['patient']} {row['tumor']}") or image
            own = _rows_of(profiles, row)
            for axes, line, label in (
                (panels[1], "horizontal", "right – left (mm)"),
                (panels[2], "vertical", "anterior – posterior (mm)"),
            ):
                part = own[own["line"] == line] if len(own) else own
                if len(part):
                    axes.plot(part["position_mm"], part["mg_ml"], color=BLUE, lw=1.3)
                    inside = part.loc[part["inside"].astype(bool), "position_mm"]
                    if len(inside):
                        axes.axvspan(inside.min(), inside.max(), color="0.92", zorder=0)
                axes.set_xlabel(label)
                axes.set_ylabel("mg/ml")
                axes.axhline(0, color="0.6", lw=0.7, zorder=0)
            words = (
                f"mean {row['mean_mg_ml']:.3f}, SD {row['sd_mg_ml']:.3f} mg/ml, {row['diameter_mm']:.1f} mm"
            )
            panels[1].set_title(words, fontsize=8)
        if image is not None:
            figure.colorbar(image, ax=list(grid.ravel()), label="uptake (mg/ml)", shrink=0.7, aspect=30)
        return figure


def figure8(tumors: pd.DataFrame, patients: pd.DataFrame) -> Figure:
    """Distribution of uptake in the largest tumour of each suspected-agent patient (the paper's figure 8).

    Parameters
    ----------
    tumors, patients : DataFrame
        The cohort's tables, with the fraction columns. Patients by descending mean; without suspected
        arms every patient is shown.
    """
    with mpl.rc_context(STYLE):
        shown = _shown(tumors, patients)
        names = [c for c in map(str, tumors.columns) if c.startswith("fraction_")]
        if shown.empty or not names:
            return _empty("no tumour could be measured")
        agent = shown[shown["group"] == AGENT]
        chosen = agent if len(agent) else shown
        order = _by_mean(chosen).sort_values("mean", ascending=False, kind="stable").index
        largest = chosen.sort_values(["volume_ml", "tumor"], ascending=[False, True]).drop_duplicates(
            "patient"
        )
        largest = largest.set_index("patient").loc[order]
        figure = Figure(figsize=(max(5.0, 2.4 + 0.38 * len(order)), 3.8))
        axes = figure.add_subplot()
        bottom = np.zeros(len(order))
        colours = mpl.colormaps["cividis"](np.linspace(0.1, 0.95, len(names)))
        for name, colour in zip(names, colours, strict=True):
            share = 100 * largest[name].to_numpy(float)
            bars = axes.bar(range(len(order)), share, bottom=bottom, color=colour, label=_bin_words(name))
            dark = np.mean(colour[:3]) < 0.5
            words = [f"{v:.0f}" if v >= 7 else "" for v in share]
            colour_of_text = "white" if dark else "black"
            axes.bar_label(bars, words, label_type="center", fontsize=7, color=colour_of_text)
            bottom += share
        axes.set_xticks(range(len(order)), list(order), rotation=90 if len(order) > 8 else 0)
        title = "suspected agent" if len(agent) else "all patients (no suspected arms)"
        axes.set_xlabel(f"patient, by descending mean uptake: {title}")
        axes.set_ylabel("volume of the largest tumour (%)")
        axes.set_ylim(0, 100)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(
            handles[::-1], labels[::-1], frameon=False, loc="upper left", bbox_to_anchor=(1, 1), title="mg/ml"
        )
        return figure


def _bin_words(name: str) -> str:
    """Return the words of a fraction column.

    >>> [_bin_words(name) for name in ("fraction_le_0.05", "fraction_0.05_to_0.1", "fraction_gt_0.1")]
    ['≤ 0.05', '0.05 to 0.1', '> 0.1']
    """
    words = name.removeprefix("fraction_").replace("_", " ")
    return words.replace("le ", "≤ ").replace("gt ", "> ")


def tumor_strip(row: pd.Series, sections: pd.DataFrame, profiles: pd.DataFrame) -> Figure:
    """One tumour for the patient's page: its axial section and both profiles.

    Parameters
    ----------
    row : Series
        The tumour's row of the table of tumours.
    sections, profiles : DataFrame
        The patient's tables.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 1.8), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1, 2.4))
        image = _cut(left, sections, row, "axial")
        if image is not None:
            figure.colorbar(image, ax=left, shrink=0.8)
        own = _rows_of(profiles, row)
        for line, style, colour in (("horizontal", "-", BLUE), ("vertical", "--", VERMILION)):
            part = own[own["line"] == line] if len(own) else own
            if len(part):
                label = {"horizontal": "right to left", "vertical": "anterior to posterior"}[line]
                right.plot(part["position_mm"], part["mg_ml"], style, color=colour, lw=1.2, label=label)
        right.axhline(0, color="0.6", lw=0.7, zorder=0)
        right.set_xlabel("mm from the centroid")
        right.set_ylabel("mg/ml")
        if len(own):
            right.legend(frameon=False, fontsize=7)
        return figure
