"""What is resampled, with which kernel, with and without partial volume: bias of a tumour's mean uptake.

Run: .venv/bin/python benchmarks/resampling.py [number of tumours, 120]
It prints the table of docs/resampling.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "workflow/scripts")]

from nanouptake import geometry  # noqa: E402
from nanouptake.contours import coverage  # noqa: E402
from nanouptake.mp2rage import Lookup, Protocol, from_dn  # noqa: E402
from nanouptake.partial_volume import RateModel, Separation, signals  # noqa: E402
from nanouptake.reference_tumors import STORED_MAX, Case, Scan, draw_cases  # noqa: E402

SPEC = yaml.safe_load((ROOT / "resources/phantoms/reference_trial.yaml").read_text())
MODEL = RateModel(Lookup(Protocol(**SPEC["mp2rage"]["protocol"])))
NOISE = STORED_MAX / 2 / SPEC["mp2rage"]["snr"]
SCALE = 4 / 3 / 6.7
CLASSES_MM = ((5, 8), (8, 12), (12, 18), (18, 25.1))


def covered(case: Case, scan: Scan, matrix: np.ndarray) -> np.ndarray:
    """Return the contour's coverage of a scan's voxels; matrix maps the scan to the contours."""
    box, part = coverage(case.solid, scan.uni.shape, scan.uni.affine, matrix=matrix)
    mask = np.zeros(scan.uni.shape, np.float32)
    mask[box] = part
    return mask


def on_pre(case: Case, order: int, data: np.ndarray) -> np.ndarray:
    """Return data of the post grid on the pre grid."""
    matrix = np.linalg.inv(case.post.uni.affine) @ case.pre_to_post @ case.pre.uni.affine
    index = geometry.apply(matrix, np.indices(case.pre.uni.shape).reshape(3, -1).T).T
    return ndimage.map_coordinates(data, index, order=order, mode="mirror").reshape(case.pre.uni.shape)


def methods(case: Case) -> dict[str, float]:
    """Return the mean uptake in mg/ml by every method."""
    s_pre, s_post = (signals(s.uni.data, s.inv2.data) for s in (case.pre, case.post))
    c_pre = covered(case, case.pre, case.pre_to_contours)
    c_post = covered(case, case.post, case.pre_to_contours @ np.linalg.inv(case.pre_to_post))
    uni_post = from_dn(case.post.uni.data)
    before = MODEL.rate(*s_pre)

    def rate_of_uni(uni: np.ndarray) -> np.ndarray:
        return MODEL.rate(*signals(uni, np.ones_like(uni)))

    def masked(after: np.ndarray) -> float:
        inside = c_pre > 0.5
        return SCALE * float((after - before)[inside].mean())

    def separated(s: np.ndarray, mask: np.ndarray) -> float:
        return Separation(s, mask, model=MODEL).rate(NOISE)

    def pair(how: Callable[[np.ndarray, np.ndarray], float]) -> float:
        return SCALE * (how(s_post, c_post) - how(s_pre, c_pre))

    found = {}
    for kernel, order in (("linear", 1), ("cubic B-spline", 3)):
        found[f"R1, {kernel}"] = masked(on_pre(case, order, rate_of_uni(uni_post)))
        found[f"UNI, {kernel}"] = masked(rate_of_uni(on_pre(case, order, uni_post)))
        both = np.stack([on_pre(case, order, x) for x in s_post])
        found[f"both signals, {kernel}"] = masked(MODEL.rate(*both))
        found[f"both signals, {kernel}, separated"] = SCALE * (
            separated(both, c_pre) - separated(s_pre, c_pre)
        )
    found["nothing, voxels above one half"] = pair(lambda s, c: float(MODEL.rate(*s)[c > 0.5].mean()))
    found["nothing, separated (used)"] = pair(separated)
    return found


def main() -> None:
    """Print the table."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    cases = list(draw_cases(SPEC, n=n, seed=31, uptakes_mg_ml=(0.05, 0.2)))
    size = np.array([2 * np.cbrt(c.tumour.semi_axes_mm.prod()) for c in cases])
    rows = [methods(c) for c in cases]
    truth = np.array([c.mean_mg_ml for c in cases])
    print("| resampled | " + " | ".join(f"{a}-{b:.0f} mm" for a, b in CLASSES_MM) + " |")
    print("| --- |" + " ---: |" * len(CLASSES_MM))
    for name in rows[0]:
        relative = 100 * (np.array([r[name] for r in rows]) / truth - 1)
        parts = [relative[(size >= a) & (size < b)] for a, b in CLASSES_MM]
        print(f"| {name} | " + " | ".join(f"{p.mean():+.1f} ± {p.std():.1f}" for p in parts) + " |")


if __name__ == "__main__":
    main()
