"""Simulated tumours with known truth: bias, coverage of the intervals, false detections; and what it costs.

Run: .venv/bin/python benchmarks/intervals.py [number of tumours, 240]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow/scripts")]

from nanouptake.mp2rage import Lookup, Protocol  # noqa: E402
from nanouptake.reference_tumors import STORED_MAX, Case, draw_cases  # noqa: E402
from nanouptake.uncertainty import Errors, Scan, protocol_relative_error, tumor_intervals  # noqa: E402

SPEC = yaml.safe_load((ROOT / "resources/phantoms/reference_trial.yaml").read_text())
PROTOCOL = Protocol(**SPEC["mp2rage"]["protocol"])
LOOKUP = Lookup(PROTOCOL)
NOISE = STORED_MAX / 2 / SPEC["mp2rage"]["snr"]
CLASSES_MM = ((5, 8), (8, 12), (12, 18), (18, 25.1), (5, 25.1))
SETTINGS = {
    "contours drawn with 0.1 mm": {"contour_sd_mm": 0.1, "r1_relative_sd": 0.03},
    "contours drawn with 0.5 mm": {"contour_sd_mm": 0.5, "r1_relative_sd": 0.05},
}


def moved(shift: np.ndarray) -> np.ndarray:
    """Return the 4 x 4 matrix of a shift."""
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return matrix


def errors(**given: float) -> Errors:
    """Return the sources of error; drawn at random for every tumour and told to the interval."""
    return Errors(
        registration_sd_mm=0.1,
        contours_sd_mm=0.1,
        protocol_relative_sd=protocol_relative_error(PROTOCOL, b1_sd=0.7 * SPEC["mp2rage"]["b1"]),
        drift_sd_mg_ml=0.0005,
        **given,
    )


def measure(case: Case, told: Errors, rng: np.random.Generator | None) -> dict[str, float]:
    """Return one tumour's numbers; with a generator every source has made its error."""
    d = np.zeros(9) if rng is None else rng.standard_normal(9)
    contours = moved(told.contours_sd_mm * d[:3]) @ case.pre_to_contours
    post = moved(told.registration_sd_mm * d[3:6]) @ contours @ np.linalg.inv(case.pre_to_post)
    solid = case.solid if rng is None else case.drawn(offset_mm=told.contour_sd_mm * d[6])
    row = tumor_intervals(
        Scan(case.pre.uni, case.pre.inv2, contours, NOISE),
        Scan(case.post.uni, case.post.inv2, post, NOISE),
        [solid],
        lookup=LOOKUP,
        r1_per_mm_per_s=6.7 * (1 + told.r1_relative_sd * d[7]),
        mg_per_ml_per_mm=4 / 3,
        errors=told,
        draws=1000,
    )[0]
    drift = told.drift_sd_mg_ml * d[8]
    return {k: v + drift * ("pvc" in k) for k, v in row.items()}


def holds(rows: list[dict[str, float]], column: str, truth: np.ndarray) -> np.ndarray:
    """Return whether each interval holds the truth; {} in the column's name stands for low and high."""
    low, high = (np.array([r[column.format(end)] for r in rows]) for end in ("low", "high"))
    return (low <= truth) & (truth <= high)


def main() -> None:
    """Print the tables."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 240
    cases = list(draw_cases(SPEC, n=n, seed=20))
    size = np.array([2 * np.cbrt(c.tumour.semi_axes_mm.prod()) for c in cases])
    truth = {
        "mean": ("mean_pvc", np.array([c.mean_mg_ml for c in cases])),
        "upper": ("upper_quartile_mean_pvc", np.array([c.upper_quartile_mean_mg_ml for c in cases])),
    }
    volume = np.array([c.tumour.volume_ml for c in cases])
    still = errors(contour_sd_mm=0.0, r1_relative_sd=0.0)
    begin = time.process_time()
    rows = [measure(c, still, None) for c in cases]
    cost = (time.process_time() - begin) / n
    print(f"{n} tumours, {cost:.2f} CPU s each with 1,000 draws: {6 * cost:.1f} s for a patient of six")
    found = np.array([r["mean_pvc_mg_ml"] for r in rows])
    for low, high in CLASSES_MM:
        those = (size >= low) & (size < high)
        error = (found - truth["mean"][1])[those]
        print(
            f"bias of the mean, {low}-{high:.0f} mm (n = {those.sum()}): {error.mean():+.5f} mg/ml, "
            f"{100 * error.sum() / truth['mean'][1][those].sum():+.2f} %, scatter {error.std():.5f}"
        )
    for words, given in SETTINGS.items():
        told, rng = errors(**given), np.random.default_rng(1)
        rows = [measure(c, told, rng) for c in cases]
        for low, high in CLASSES_MM:
            those = (size >= low) & (size < high)
            held = {name: holds(rows, f"{key}_{{}}_mg_ml", true) for name, (key, true) in truth.items()}
            held["volume"] = holds(rows, "volume_{}_ml", volume)
            print(
                f"{words}, {low}-{high:.0f} mm: held "
                + ", ".join(f"{name} {100 * h[those].mean():.1f} %" for name, h in held.items())
            )
    told, rng = errors(**SETTINGS["contours drawn with 0.5 mm"]), np.random.default_rng(2)
    empty = [measure(c, told, rng) for c in draw_cases(SPEC, n=n // 2, seed=21, uptakes_mg_ml=(0.0, 0.0))]
    called = np.mean([r["mean_pvc_mg_ml"] >= 3.29 * r["sd_zero_mg_ml"] for r in empty])
    print(f"tumours without uptake called detected: {100 * called:.1f} % of {len(empty)}")


if __name__ == "__main__":
    main()
