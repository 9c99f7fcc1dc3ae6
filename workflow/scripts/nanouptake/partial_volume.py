"""What the tissue inside a contour really has: partial volume taken out where mixing is linear.

A voxel's two MP2RAGE signals are the mixture of its tissues' signals; UNI and T1 are not. Both signals
follow from UNI and INV2: with q = S1/S2, UNI = q/(1 + q^2), and |q| <= 1 on the whole part of the curve that
tells T1. A voxel of coverage c holds c S_tumour + (1 - c) S_around, and S_around is known from the voxels
beside it that the contour does not touch. Everything is done on the scan's own grid: nothing is resampled.
Concentration is linear in R1, so the mean uptake is (mean R1 post - mean R1 pre) / r1, each mean over the
same contour.

What was tried, with its bias and scatter by tumour size, stands in docs/resampling.md.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .images import Volume
from .mp2rage import Lookup, combine, from_dn

DIRECT = 0.5  # from this coverage on a voxel's own signals are inverted; below, about those around it
WHOLE = 0.95  # the same for the distribution inside a tumour, where noise and errors of the background count
NEAR_POWER = 0.06  # variance left by the mean of the neighbours at a flat rim
REACH_VOXELS = 1.0  # SD of the Gaussian that joins neighbours
TRUNCATE = 4.0
BACKGROUND = 2.5  # errors of 200 simulated tumours without noise over what the voxels around foretell
UNI_LIMIT = 0.4999
SHORTEST_T1_S = 0.25  # below, UNI hardly changes with T1: its slope would make a step of nothing


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
        uni, t1 = lookup.curve_at(b1)
        told = t1 >= SHORTEST_T1_S
        self._uni, t1 = uni[told], t1[told]
        self._rate = 1 / t1
        self._slope = np.gradient(self._rate, self._uni)
        self._bend = np.gradient(self._slope, self._uni)

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

    def noise_bias(self, s1: np.ndarray, s2: np.ndarray) -> np.ndarray:
        """Return what noise adds to R1, in 1/s per unit of variance of S1 and S2, to second order.

        With u = UNI, p = S1^2 + S2^2 and complex noise: (R1''(u) (1 - 4 u^2) / 2 - 4 u R1'(u)) / p.
        """
        uni = combine(s1, s2)
        bend = np.interp(uni, self._uni, self._bend)
        return (0.5 * bend * (1 - 4 * uni**2) - 4 * uni * self.slope(uni)) / (s1**2 + s2**2)


def _blurred(values: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(values, REACH_VOXELS, truncate=TRUNCATE)


def _joined(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the Gaussian-weighted mean of neighbours; values carry their weight already."""
    total = np.maximum(_blurred(weight), 1e-12)
    return np.stack([_blurred(v) / total for v in values])


class Separation:
    """The tumour's share of the signals around one contour, its background taken out.

    Parameters
    ----------
    s : (2, i, j, k) ndarray
        Signals of a box that leaves at least 4 voxels around the tumour.
    coverage : (i, j, k) ndarray
        Fraction of each voxel inside the contour, not 0 everywhere.
    model : RateModel
    taken : (i, j, k) bool ndarray or None
        Voxels that other tumours touch: no background.

    Where a voxel is covered by less than half, R1 of its share is linearised about the mean of the tumour's
    signals beside it, so that no noise is divided by a small coverage.
    """

    def __init__(
        self, s: np.ndarray, coverage: np.ndarray, *, model: RateModel, taken: np.ndarray | None = None
    ) -> None:
        self._s, self.model = s, model
        self._free = (coverage <= 0).astype(s.dtype)
        if taken is not None:
            self._free[taken] = 0
        self.inside = coverage > 0
        self.coverage = coverage[self.inside]
        around = _joined(s * self._free, self._free)
        joint = np.where(self.inside, s - (1 - coverage) * around, 0)  # coverage times the tumour's signals
        near = _joined(joint, np.where(self.inside, coverage, 0))[:, self.inside]
        self._share = joint[:, self.inside]
        self._direct = self.coverage >= DIRECT
        self._about = np.where(self._direct, self._share / self.coverage, near)
        self._slopes = model.gradient(*self._about)
        self._near = near

    def rate(self, noise_sd: float) -> float:
        """Return the mean R1 in 1/s inside the contour, less what noise of that SD adds to it."""
        off = self._share - self.coverage * self._about  # zero where the voxel's own signals are inverted
        total = self.coverage @ self.model.rate(*self._about) + sum(
            a @ b for a, b in zip(self._slopes, off, strict=True)
        )
        own = self._about[:, self._direct]
        bias = (self.model.noise_bias(*own) / self.coverage[self._direct]).sum() * noise_sd**2
        return float((total - bias) / self.coverage.sum())

    def voxels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each voxel's R1 in 1/s, and its SD squared per unit of variance of S1 and S2.

        Voxels covered by less than WHOLE take the mean of the tumour's signals beside them.
        """
        whole = self.coverage >= WHOLE
        seen = np.where(whole, self._share / self.coverage, self._near)
        slopes = self.model.gradient(*seen)
        gain2 = slopes[0] ** 2 + slopes[1] ** 2
        return self.model.rate(*seen), gain2 * np.where(whole, 1 / self.coverage**2, NEAR_POWER)

    @property
    def noise_gain(self) -> float:
        """SD of the mean R1 in 1/s per unit of SD of S1 and S2."""
        gain = np.hypot(*self._slopes)
        # The background is a mean of its own voxels' noise: spread each voxel's (1 - c) back over them.
        lost = np.zeros_like(self._free)
        lost[self.inside] = (1 - self.coverage) * gain
        back = self._free * _blurred(lost / np.maximum(_blurred(self._free), 1e-12))
        return float(np.sqrt(gain @ gain + (back**2).sum()) / self.coverage.sum())

    def background_sd(self, noise_sd: float) -> float:
        """Return the SD of the mean R1 in 1/s by which tissue around differs from what stands beside it.

        The background of the voxels within two of the tumour is foretold from their neighbours, each voxel
        itself left out; what exceeds noise, times BACKGROUND, is the error at the tumour's rim.
        """
        alone = _blurred(np.pad(np.ones((1, 1, 1)), 6))[6, 6, 6]
        total = _blurred(self._free)
        rest = np.maximum(total - alone, 1e-9)
        mean = (self._share.sum(axis=1) / self.coverage.sum())[:, None]
        slopes = np.concatenate(self.model.gradient(*mean))
        error = sum(
            g * (x - (_blurred(x * self._free) - alone * x) / rest)
            for g, x in zip(slopes, self._s, strict=True)
        )
        ring = ndimage.binary_dilation(self.inside, iterations=2) & (self._free > 0)
        if not ring.any():
            return float("nan")
        excess = (error[ring] ** 2).mean() - 1.1 * (slopes @ slopes) * noise_sd**2
        lost = 1 - self.coverage
        return float(BACKGROUND * np.sqrt(max(excess, 0.0) * (lost @ lost)) / self.coverage.sum())


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


def within(part: tuple[slice, ...], box: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return a part of the grid in indices of a box that holds it."""
    return tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, box, strict=True))
