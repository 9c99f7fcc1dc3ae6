"""Phantom fits, CPU seconds and ratio to scipy per pixel: a slice at 10 TIs, a volume at 7 flip angles.

Run: .venv/bin/python benchmarks/phantom_fits.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "workflow/scripts"))

import numpy as np
from scipy.optimize import curve_fit

from nanouptake import variable_flip_angle
from nanouptake.inversion_recovery import Protocol

TI = np.array([0.035, 0.075, 0.1, 0.125, 0.15, 0.25, 1.0, 1.5, 2.0, 3.0])


def main() -> None:
    """Print one line for each sequence."""
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
        f"inversion recovery: first call {compiled:.1f} CPU s, the slice {ours:.2f} CPU s, "
        f"median error {100 * error:.2f} %; scipy curve_fit (from 50 pixels) {peer:.0f} CPU s; "
        f"ratio {ours / peer:.4f}"
    )

    vfa = variable_flip_angle.Protocol(tr_s=0.0073, flip_deg=(2, 5, 10, 15, 20, 25, 30))
    t1 = rng.uniform(0.1, 3.0, (256, 256, 32))
    volume = (vfa.signal(t1, m0=10_000) + 5 * rng.standard_normal((*t1.shape, 7), np.float32)).astype(
        np.float32
    )
    vfa.estimate(volume[:1, :1])
    start = time.process_time()
    found = vfa.estimate(volume).t1_s
    ours = time.process_time() - start
    start = time.process_time()
    for y in volume[0, 0, :30]:
        curve_fit(lambda _, m0, t: vfa.signal(t, m0=m0), np.arange(7), y, p0=(y.max() * 10, 1.0))
    peer = (time.process_time() - start) / 30 * found.size
    error = np.nanmedian(np.abs(found / t1 - 1))
    print(
        f"variable flip angle: the volume {ours:.2f} CPU s, median error {100 * error:.2f} %; "
        f"scipy curve_fit (from 30 voxels) {peer:.0f} CPU s; ratio {ours / peer:.5f}"
    )


if __name__ == "__main__":
    main()
