"""Inversion recovery of a 256 x 256 slice at 10 inversion times: CPU seconds, ratio to scipy per pixel.

Run: .venv/bin/python benchmarks/phantom_fits.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

import numpy as np
from scipy.optimize import curve_fit

from nanouptake.inversion_recovery import Protocol

TI = np.array([0.035, 0.075, 0.1, 0.125, 0.15, 0.25, 1.0, 1.5, 2.0, 3.0])


def main() -> None:
    """Print one line."""
    rng = np.random.default_rng(0)
    t1 = rng.uniform(0.15, 2.0, (256, 256))
    data = np.abs(1000 * (1 - 1.95 * np.exp(-TI / t1[..., None])) + 8 * rng.standard_normal((256, 256, 10)))
    protocol = Protocol(ti_s=tuple(TI))
    start = time.process_time()
    protocol.estimate(data[:1, :4])
    compiled = time.process_time() - start
    start = time.process_time()
    found = protocol.estimate(data).t1_s
    ours = time.process_time() - start
    start = time.process_time()
    for y in data[0, :50]:
        curve_fit(lambda ti, m0, f, t: np.abs(m0 * (1 - f * np.exp(-ti / t))), TI, y, p0=(y.max(), 1.9, 0.8))
    peer = (time.process_time() - start) / 50 * found.size
    error = np.nanmedian(np.abs(found / t1 - 1))
    print(
        f"first call {compiled:.1f} CPU s, the slice {ours:.2f} CPU s, median error {100 * error:.2f} %; "
        f"scipy curve_fit (from 50 pixels) {peer:.0f} CPU s; ratio {ours / peer:.4f}"
    )


if __name__ == "__main__":
    main()
