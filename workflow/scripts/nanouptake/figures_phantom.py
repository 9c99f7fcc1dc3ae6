"""Figures of phantoms: the paper's figures 1 and 2, and what was found where a layout does not fit."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.patches
import matplotlib.patheffects
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .figures import BLUE, STYLE, VERMILION
from .images import Volume
from .phantoms import Line
from .vials import PRESENT, Found, Layout, Pictures


def map_figure(t1: Volume, labels: np.ndarray, layout: Layout, *, axis: str) -> Figure:
    """T1 map in the middle slice of the vials, their cores outlined and numbered."""
    pictures = Pictures(t1, axis=axis)
    label, seconds = pictures.of(labels), pictures.of(t1.data)
    used = np.flatnonzero((label > 0).any(axis=(0, 1)))
    k = int(used[used.size // 2])
    rows_mm, columns_mm = pictures.pixel_mm
    extent = (
        -columns_mm / 2,
        (label.shape[1] - 0.5) * columns_mm,
        (label.shape[0] - 0.5) * rows_mm,
        -rows_mm / 2,
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.4))
        axes = figure.subplots()
        known = seconds[label > 0]
        top = float(np.nanmax(known)) if np.isfinite(known).any() else 3.0
        drawn = axes.imshow(seconds[..., k], cmap="viridis", vmin=0, vmax=1.1 * top, extent=extent)
        x, y = np.arange(label.shape[1]) * columns_mm, np.arange(label.shape[0]) * rows_mm
        for n, vial in enumerate(layout.vials):
            core = label[..., k] == n + 1
            if not core.any():
                continue
            axes.contour(x, y, core, levels=[0.5], colors=VERMILION, linewidths=1.0)
            row, column = np.argwhere(core).mean(axis=0)
            axes.text(
                column * columns_mm,
                row * rows_mm,
                vial,
                color="white",
                ha="center",
                va="center",
                fontsize=8,
                path_effects=[mpl.patheffects.withStroke(linewidth=2, foreground="black")],
            )
        axes.set_axis_off()
        axes.set_title("T1 of the phantom; cores of the vials", fontsize=9)
        figure.colorbar(drawn, ax=axes, fraction=0.045, pad=0.02, label="T1 (s)")
        return figure


def found_figure(found: Found, layout: Layout, magnitude: np.ndarray) -> Figure:
    """Draw the layout over the scan (blue: seen, red: not), and circles that the layout lacks."""
    picture = found.pictures.of(magnitude)
    k = int(found.slices[found.slices.size // 2])
    rows_mm, columns_mm = found.pictures.pixel_mm
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5, 4.8))
        axes = figure.subplots()
        extent = (0, picture.shape[1] * columns_mm, picture.shape[0] * rows_mm, 0)
        axes.imshow(picture[..., k], cmap="gray", extent=extent, vmax=np.percentile(picture, 99.5))
        centres = found.pose.centres_mm(layout, k, step_mm=found.pictures.step_mm)
        for vial, (x, y), diameter, score in zip(
            layout.vials, centres, layout.diameters_mm, found.score, strict=True
        ):
            colour = "#56B4E9" if score >= PRESENT else VERMILION
            place = (x + columns_mm / 2, y + rows_mm / 2)
            axes.add_patch(mpl.patches.Circle(place, diameter / 2, fill=False, color=colour, linewidth=1.3))
            axes.text(*place, vial, color=colour, ha="center", va="center", fontsize=8)
        for x, y in found.extra_mm:
            axes.plot(x, y, "x", color="#E69F00", markersize=10, markeredgewidth=2)
        axes.set_axis_off()
        axes.set_title(
            "Layout over the scan, turn not yet settled: blue seen, red not, x not in the layout", fontsize=8
        )
        return figure


def accuracy_figure(table: pd.DataFrame, summary: pd.DataFrame) -> Figure:
    """Measured against true T1 with identity line and tolerance, and their differences (Bland and Altman)."""
    known = table[table["t1_s"].notna()].sort_values("true_t1_s")
    true, read = known["true_t1_s"].to_numpy(), known["t1_s"].to_numpy()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9))
        left, right = figure.subplots(1, 2)
        if known.empty:
            left.text(0.5, 0.5, "no vial could be measured", ha="center", transform=left.transAxes)
            return figure
        limits = [0, 1.08 * max(true.max(), read.max())]
        left.plot(limits, limits, color="0.4", linewidth=0.8, label="identity")
        band = (known["low_t1_s"], known["high_t1_s"])
        left.fill_between(true, *band, color=BLUE, alpha=0.2, linewidth=0, label="tolerance")
        left.errorbar(
            true, read, yerr=known["t1_sd_s"], fmt="o", color=VERMILION, markersize=4, label="vials, SD"
        )
        left.set(xlabel="true T1 (s)", ylabel="measured T1 (s)", xlim=limits, ylim=limits)
        left.legend(frameon=False, fontsize=8)
        numbers = summary.set_index("parameter")[["value", "low", "high"]].astype(float)
        bias = numbers.loc["bias"]
        right.axhline(0, color="0.8", linewidth=0.8)
        right.axhline(1000 * bias["value"], color=BLUE, label="bias")
        for end in ("low", "high"):
            if np.isfinite(bias[end]):
                right.axhline(1000 * bias[end], color=BLUE, linestyle="--", linewidth=0.9)
        right.plot((true + read) / 2, 1000 * (read - true), "o", color=VERMILION, markersize=4)
        for vial, x, y in zip(known["vial"], (true + read) / 2, 1000 * (read - true), strict=True):
            right.annotate(vial, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
        error = 1000 * float(numbers["value"]["mean_absolute_error"])
        right.set(xlabel="mean of measured and true T1 (s)", ylabel="measured - true (ms)")
        right.set_title(f"mean |error| {error:.0f} ms; dashes: limits of agreement", fontsize=9)
        figure.tight_layout()
        return figure


def relaxivity_figure(table: pd.DataFrame, line: Line) -> Figure:
    """T1 against concentration, and the relaxivity line with its 95 % band."""
    from scipy.stats import t as student

    used = table[table["used"] == "yes"].sort_values("concentration_mm")
    lost = table[(table["used"] == "no") & table["t1_s"].notna()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.9))
        left, right = figure.subplots(1, 2)
        left.errorbar(
            used["concentration_mg_ml"],
            used["t1_s"],
            yerr=used["t1_sd_s"],
            fmt="o",
            color=VERMILION,
            markersize=4,
        )
        left.set(xlabel="concentration (mg/ml)", ylabel="T1 (s)", ylim=(0, None))
        x = np.linspace(0, float(table["concentration_mm"].max()), 100)
        rate = line.intercept_per_s + line.r1_per_mm_per_s * x
        design = np.column_stack([np.ones_like(x), x])
        half = student.ppf(0.975, line.dof) * np.sqrt(
            np.einsum("ij,jk,ik->i", design, line.covariance, design).clip(0)
        )
        right.fill_between(x, rate - half, rate + half, color=BLUE, alpha=0.25, linewidth=0, label="95 %")
        right.plot(x, rate, color=BLUE, linewidth=1)
        right.plot(
            used["concentration_mm"], used["r1_per_s"], "o", color=VERMILION, markersize=4, label="vials"
        )
        if len(lost):
            right.plot(lost["concentration_mm"], lost["r1_per_s"], "x", color="0.4", label="left out")
        right.set(xlabel="gadolinium (mM)", ylabel="R1 (1/s)")
        right.set_title(
            f"r1 = {line.r1_per_mm_per_s:.3f} ({line.low_per_mm_per_s:.3f} to {line.high_per_mm_per_s:.3f}) "
            f"/mM/s, R² = {line.r_squared:.4f}",
            fontsize=9,
        )
        right.legend(frameon=False, fontsize=8)
        figure.tight_layout()
        return figure
