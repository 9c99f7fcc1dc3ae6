"""What the tissue inside a contour really has: partial volume taken out where mixing is linear.

A voxel's two MP2RAGE signals are the mixture of its tissues' signals; UNI and T1 are not. Both signals follow
from UNI and INV2: with q = S1/S2, UNI = q/(1 + q^2), and |q| <= 1 on the whole part of the curve that tells T1.
A voxel of coverage c holds c S_tumour + (1 - c) S_around, and S_around is known from the voxels beside it that
the contour does not touch. Everything is done on the scan's own grid: nothing is resampled. Concentration is
linear in R1, so the mean uptake is r1^-1 (mean R1 post - mean R1 pre), each mean over the same contour.

What was tried, with its bias and scatter by tumour size, stands in docs/resampling.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .images import Volume
from .mp2rage import Lookup, combine, from_dn

DIRECT = 0.5  # from this coverage on a voxel's own signals are inverted; below, about those around it
REACH_VOXELS = 1.0  # SD of the Gaussian that joins neighbours
TRUNCATE = 5.0
UNI_LIMIT = 0.4999


def signals(uni: np.ndarray, inv2: np.ndarray) -> np.ndarray:
    """Return the signed signals S1 and S2, shape (2, ...), in the unit of INV2.

    Parameters
    ----------
    uni : ndarray
        UNI in [-0.5, 0.5], or the scanner's whole numbers 0..4095.
    inv2 : ndarray
        Magnitude of the second image, any unit.

    Examples
    --------
    >>> signals(np.array([-0.4]), np.array([10.0])).ravel().round(6).tolist()
    [-5.0, 10.0]
    """
    uni = from_dn(uni) if np.issubdtype(uni.dtype, np.integer) else uni
    uni = np.nan_to_num(uni).clip(-UNI_LIMIT, UNI_LIMIT)
    second = np.asarray(inv2, float)
    return np.stack([2 * uni / (1 + np.sqrt(1 - 4 * uni**2)) * second, second])


class RateModel:
    """R1 of a voxel's two signals, and how it changes with them.

    Parameters
    ----------
    lookup : Lookup
    b1 : float
        Transmit field relative to nominal around the tumour.
    """

    def __init__(self, lookup: Lookup, *, b1: float = 1.0) -> None:
        self._uni, t1 = lookup.curve_at(b1)
        self._rate = 1 / t1
        self._slope = np.gradient(self._rate, self._uni)

    def rate(self, s1: np.ndarray, s2: np.ndarray) -> np.ndarray:
        """Return R1 in 1/s; signals beyond the monotonic part give the rate at its end."""
        return np.interp(combine(s1, s2), self._uni, self._rate)

    def slope(self, uni: np.ndarray) -> np.ndarray:
        """Return dR1/dUNI in 1/s."""
        return np.interp(uni, self._uni, self._slope)

    def gradient(self, s1: np.ndarray, s2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return dR1/dS1 and dR1/dS2."""
        power = s1**2 + s2**2
        common = self.slope(combine(s1, s2)) * (s2**2 - s1**2) / power**2
        return common * s2, -common * s1


def _joined(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the Gaussian-weighted mean of neighbours that have a weight; values carry their weight already."""
    total = ndimage.gaussian_filter(weight, REACH_VOXELS, truncate=TRUNCATE)
    sums = [ndimage.gaussian_filter(v, REACH_VOXELS, truncate=TRUNCATE) for v in values]
    return np.stack(sums) / np.maximum(total, 1e-12)


@dataclass(frozen=True)
class Corrected:
    """Mean R1 inside a contour in 1/s, and its noise gain: 1/s of SD per unit of SD of S1 and S2."""

    rate: float
    noise_gain: float


def corrected_rate(
    s: np.ndarray, coverage: np.ndarray, *, model: RateModel, taken: np.ndarray | None = None
) -> Corrected:
    """Return the mean R1 of the tissue inside a contour.

    Parameters
    ----------
    s : (2, i, j, k) ndarray
        Signals of a box that leaves at least 4 voxels around the tumour.
    coverage : (i, j, k) ndarray
        Fraction of each voxel inside the contour.
    model : RateModel
    taken : (i, j, k) bool ndarray or None
        Voxels that other tumours touch: no background.

    Where a voxel is covered by less than half, R1 of its share is linearised about the mean of the tumour's
    signals beside it, so that no noise is divided by a small coverage. NaN for an empty contour.
    """
    total = float(coverage.sum())
    if not total > 0:
        return Corrected(float("nan"), float("nan"))
    free = (coverage <= 0).astype(float)
    if taken is not None:
        free[taken] = 0
    inside = coverage > 0
    around = _joined(s * free, free)
    share = np.where(inside, s - (1 - coverage) * around, 0.0)  # coverage times the tumour's signals
    direct = coverage >= DIRECT
    rates = np.zeros_like(coverage)
    gain = np.zeros_like(coverage)
    c = coverage[direct]
    own = share[:, direct] / c
    rates[direct] = c * model.rate(*own)
    gain[direct] = np.hypot(*model.gradient(*own))
    thin = inside & ~direct
    c = coverage[thin]
    near = _joined(share, np.where(inside, coverage, 0.0))[:, thin]
    slopes = model.gradient(*near)
    off = share[:, thin] - c * near
    rates[thin] = c * model.rate(*near) + slopes[0] * off[0] + slopes[1] * off[1]
    gain[thin] = np.hypot(*slopes)
    # The background is a mean of its own voxels' noise: spread each voxel's (1 - c) back over them.
    back = ndimage.gaussian_filter(
        np.where(inside, (1 - coverage) * gain, 0.0)
        / np.maximum(ndimage.gaussian_filter(free, REACH_VOXELS, truncate=TRUNCATE), 1e-12),
        REACH_VOXELS,
        truncate=TRUNCATE,
    )
    spread = np.sqrt((gain**2).sum() + ((free * back) ** 2).sum())
    return Corrected(float(rates.sum()) / total, float(spread) / total)


def box_around(part: tuple[slice, slice, slice], shape: tuple[int, ...], margin: int) -> tuple[slice, ...]:
    """Return a box of the grid with a margin in voxels, within the grid."""
    return tuple(
        slice(max(0, p.start - margin), min(n, p.stop + margin)) for p, n in zip(part, shape, strict=True)
    )


def cut(volume: Volume, box: tuple[slice, ...]) -> Volume:
    """Return a part of a volume with its own affine."""
    corner = np.eye(4)
    corner[:3, 3] = [b.start for b in box]
    return Volume(volume.data[box], volume.affine @ corner)
