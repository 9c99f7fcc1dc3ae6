"""MP2RAGE: protocol, signal, and T1 from the unified image (Marques et al., NeuroImage 49:1271, 2010).

TA = TI1 - nb ES, TB = TI2 - TI1 - n ES, TC = TR - TI2 - na ES, with nb and na excitations before and
after the k-space centre and n = nb + na. One cycle from Mz before the inversion: invert with
efficiency f, recover TA, n pulses of flip 1, recover TB, n pulses of flip 2, recover TC. The steady
state is linear in Mz and solved in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from .errors import DataError
from .validity import T1Estimate, Validity

DN_MAX = 4095  # scanners store UNI as round(4095 (UNI + 0.5))
T1_GRID_S = (0.02, 10.0, 12001)  # log-spaced grid on which the monotonic part is found
B1_STEP = 0.01
B1_RANGE = (0.3, 1.7)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Timing of an MP2RAGE scan; refuses itself where the delays are impossible.

    Times in seconds, flip angles in degrees. shots_before and shots_after count the excitations
    before and after the k-space centre of one partition-encoding train.
    """

    tr_s: float
    ti1_s: float
    ti2_s: float
    flip1_deg: float
    flip2_deg: float
    echo_spacing_s: float
    shots_before: int
    shots_after: int
    inversion_efficiency: float = 0.96

    def __post_init__(self) -> None:
        wanted = {
            "tr_s": (0.5, 20.0),
            "ti1_s": (0.05, 10.0),
            "ti2_s": (0.05, 15.0),
            "flip1_deg": (0.1, 90.0),
            "flip2_deg": (0.1, 90.0),
            "echo_spacing_s": (0.001, 0.1),
            "shots_before": (0, 1000),
            "shots_after": (1, 1000),
            "inversion_efficiency": (0.5, 1.0),
        }
        for field, (low, high) in wanted.items():
            if not low <= getattr(self, field) <= high:
                raise DataError(
                    "the MP2RAGE protocol holds an impossible value",
                    field=field,
                    found=getattr(self, field),
                    wanted=f"{low} to {high}",
                    cure="times are in seconds and angles in degrees; correct the protocol in the config",
                )
        for name, value in self.delays_s.items():
            if value < 0:
                raise DataError(
                    f"the MP2RAGE protocol is impossible: {name} is negative",
                    field=name,
                    found=f"{value:.4f} s",
                    wanted="0 s or more",
                    cure="check TR, TI, echo spacing and shots against the scanner's protocol printout",
                )

    @staticmethod
    def shots(*, slices: int, slice_partial_fourier: float = 1.0) -> tuple[int, int]:
        """Return excitations before and after the centre of a partition-encoded train.

        >>> Protocol.shots(slices=176, slice_partial_fourier=0.75)
        (44, 88)
        """
        return round(slices * (slice_partial_fourier - 0.5)), slices - slices // 2

    @property
    def delays_s(self) -> dict[str, float]:
        """The three recovery delays TA, TB and TC in seconds."""
        n = self.shots_before + self.shots_after
        return {
            "TA": self.ti1_s - self.shots_before * self.echo_spacing_s,
            "TB": self.ti2_s - self.ti1_s - n * self.echo_spacing_s,
            "TC": self.tr_s - self.ti2_s - self.shots_after * self.echo_spacing_s,
        }

    def signal(self, t1_s: ArrayLike, b1: ArrayLike = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return the signed signals S1 and S2 of the two inversion times, per unit of M0.

        Parameters
        ----------
        t1_s : array_like
            T1 in seconds, above 0.
        b1 : array_like
            Transmit field relative to nominal, broadcast against t1_s.
        """
        t1 = np.asarray(t1_s, float)
        alpha1, alpha2 = (np.deg2rad(f) * np.asarray(b1, float) for f in (self.flip1_deg, self.flip2_deg))
        nb, na = self.shots_before, self.shots_after
        n = nb + na
        e1, ea, eb, ec = (
            np.exp(-t / t1) for t in (self.echo_spacing_s, *(self.delays_s[d] for d in ("TA", "TB", "TC")))
        )
        a1, a2 = np.cos(alpha1) * e1, np.cos(alpha2) * e1
        # A train of k pulses takes Mz to a^k Mz + rise(a, k).
        rise1 = (1 - e1) / (1 - a1)
        rise2 = (1 - e1) / (1 - a2)
        p1b, p1n, p2b, p2n = a1**nb, a1**n, a2**nb, a2**n

        def after_first(start: np.ndarray) -> np.ndarray:
            return (start * p1n + rise1 * (1 - p1n)) * eb + (1 - eb)

        def cycle(m: np.ndarray) -> np.ndarray:
            second = after_first(-self.inversion_efficiency * m * ea + (1 - ea))
            return (second * p2n + rise2 * (1 - p2n)) * ec + (1 - ec)

        offset = cycle(np.zeros_like(a1))
        steady = offset / (1 - (cycle(np.ones_like(a1)) - offset))
        first = -self.inversion_efficiency * steady * ea + (1 - ea)
        s1 = np.sin(alpha1) * (first * p1b + rise1 * (1 - p1b))
        s2 = np.sin(alpha2) * (after_first(first) * p2b + rise2 * (1 - p2b))
        return s1, s2

    def uni(self, t1_s: ArrayLike, b1: ArrayLike = 1.0) -> np.ndarray:
        """Return the noise-free UNI value, in [-0.5, 0.5]."""
        return combine(*self.signal(t1_s, b1))

    def estimate(
        self, uni: ArrayLike, *, b1: ArrayLike | None = None, uni_sd: ArrayLike | None = None
    ) -> T1Estimate:
        """Return T1 in seconds with SD and validity code: see Lookup.estimate, which keeps its tables."""
        return Lookup(self).estimate(uni, b1=b1, uni_sd=uni_sd)


def combine(s1: ArrayLike, s2: ArrayLike) -> np.ndarray:
    """Return UNI = Re(conj(S1) S2) / (|S1|^2 + |S2|^2); NaN where both signals are zero.

    >>> float(combine(1.0, 1.0)), float(combine(-1.0, 1.0))
    (0.5, -0.5)
    """
    s1, s2 = np.asarray(s1), np.asarray(s2)
    power = np.abs(s1) ** 2 + np.abs(s2) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(power > 0, np.real(np.conj(s1) * s2) / power, np.nan)


def uni_sd(s1: ArrayLike, s2: ArrayLike, *, noise_sd: float) -> np.ndarray:
    """Return the SD of UNI that noise of SD noise_sd in each signal makes; NaN where there is no signal.

    >>> round(float(uni_sd(0.0, 40.0, noise_sd=1.0)), 4)
    0.025
    """
    s1, s2 = np.asarray(s1, float), np.asarray(s2, float)
    power = s1**2 + s2**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(power > 0, noise_sd * np.abs(s2**2 - s1**2) / power**1.5, np.nan)


def to_dn(uni: ArrayLike) -> np.ndarray:
    """Return the scanner's 12-bit number of a UNI value.

    >>> to_dn([-0.5, 0.0, 0.5]).tolist()
    [0, 2048, 4095]
    """
    return np.round(DN_MAX * (np.asarray(uni) + 0.5)).astype(np.uint16)


def from_dn(dn: ArrayLike) -> np.ndarray:
    """Return UNI in [-0.5, 0.5] of the scanner's numbers 0..4095 (whole or interpolated)."""
    return np.asarray(dn) / DN_MAX - 0.5


class Lookup:
    """T1 of UNI on the monotonic part of a protocol's curve, with or without B1.

    Without B1 the curve is tabulated on 12,001 T1 values. With B1 the table is kept in
    w = 2/pi asin(sqrt(v)), v being UNI between the minimum and the maximum of the curve at that B1:
    T1 has a square-root singularity at both turning points in UNI and is smooth in w, so that
    bilinear interpolation inverts the model to < 0.1 ms from 0.15 to 4.2 s.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    @cached_property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """UNI (ascending) and T1 in seconds on the monotonic part at B1 = 1."""
        return self.curve_at(1.0)

    def curve_at(self, b1: float) -> tuple[np.ndarray, np.ndarray]:
        """Return UNI (ascending) and T1 in seconds on the monotonic part at a transmit field."""
        t1, uni = self._monotonic(b1)
        return uni[::-1].copy(), t1[::-1].copy()

    @property
    def t1_range_s(self) -> tuple[float, float]:
        """Shortest and longest T1 that the sequence can tell at B1 = 1."""
        t1 = self.curve[1]
        return float(t1.min()), float(t1.max())

    def _monotonic(self, b1: float) -> tuple[np.ndarray, np.ndarray]:
        low, high, n = T1_GRID_S
        t1 = np.geomspace(low, high, n)
        uni = self.protocol.uni(t1, b1)
        # From the maximum at short T1 down to the first minimum after it.
        start = int(np.argmax(uni))
        rising = np.flatnonzero(np.diff(uni[start:]) >= 0)
        stop = start + (int(rising[0]) if rising.size else n - 1 - start) + 1
        if stop - start < 100:
            raise DataError(
                "UNI does not fall with T1 for this protocol",
                field="mp2rage",
                found=f"a monotonic part of {stop - start} of {n} grid points at B1 {b1:g}",
                wanted="UNI that falls over the T1 of tissue",
                cure="check the MP2RAGE timings in the config",
            )
        return t1[start:stop], uni[start:stop]

    @cached_property
    def _b1_table(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        low, high = B1_RANGE
        knots = np.linspace(low, high, round((high - low) / B1_STEP) + 1)
        w = np.linspace(0, 1, 4001)
        table = np.empty((knots.size, w.size))
        ends = np.empty((2, knots.size))
        for row, b1 in enumerate(knots):
            t1, uni = self._monotonic(b1)
            ends[:, row] = uni[-1], uni[0]
            v = (uni[::-1] - uni[-1]) / (uni[0] - uni[-1])
            table[row] = np.interp(w, 2 / np.pi * np.arcsin(np.sqrt(v.clip(0, 1))), t1[::-1])
        return knots, ends[0], ends[1], table

    def estimate(
        self, uni: ArrayLike, *, b1: ArrayLike | None = None, uni_sd: ArrayLike | None = None
    ) -> T1Estimate:
        """Return T1 in seconds with SD and validity code.

        Parameters
        ----------
        uni : array_like
            UNI in [-0.5, 0.5], or the scanner's unsigned integers 0..4095 (any integer dtype).
        b1 : array_like or None
            Transmit field relative to nominal (1 = nominal), same shape as uni.
        uni_sd : array_like or None
            Standard deviation of UNI from noise, in UNI units; gives the SD of T1.

        Returns
        -------
        T1Estimate
            t1_s and sd_s float32 with NaN where the code is not OK; sd_s is None without uni_sd.
        """
        uni = np.asarray(uni)
        if b1 is None and np.issubdtype(uni.dtype, np.integer):
            t1, code = self._take(uni)
        else:
            values = from_dn(uni) if np.issubdtype(uni.dtype, np.integer) else uni
            t1, code = self._lookup(values) if b1 is None else self._lookup_b1(values, np.asarray(b1))
        if uni_sd is None:
            return T1Estimate(t1, None, code)
        with np.errstate(invalid="ignore"):
            sd = np.asarray(uni_sd) / np.abs(self.slope(t1, 1.0 if b1 is None else b1))
        return T1Estimate(t1, sd.astype(np.float32), code)

    def _take(self, dn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look whole numbers up, slab by slab in the order of memory."""
        t1_of, code_of = self._lookup(from_dn(np.arange(DN_MAX + 1)))
        t1, code = np.empty_like(dn, np.float32), np.empty_like(dn, np.uint8)
        turned = [a.T if dn.flags.f_contiguous else a for a in (dn, t1, code)]
        for one, t1_out, code_out in zip(*(np.atleast_2d(a) for a in turned), strict=True):
            index = one.astype(np.intp)
            t1_of.take(index, out=t1_out, mode="clip")
            code_of.take(index, out=code_out, mode="clip")
            if index.min() < 0 or index.max() > DN_MAX:
                outside = (index < 0) | (index > DN_MAX)
                t1_out[outside], code_out[outside] = np.nan, Validity.NOT_FINITE
        return t1, code

    def _lookup(self, uni: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grid, t1 = self.curve
        found = np.interp(uni, grid, t1).astype(np.float32)
        return _coded(found, uni, grid[0], grid[-1])

    def _lookup_b1(self, uni: np.ndarray, b1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from scipy.ndimage import map_coordinates

        knots, lowest, highest, table = self._b1_table
        known = np.isfinite(b1) & (b1 >= knots[0]) & (b1 <= knots[-1])
        row = (np.where(known, b1, 1.0) - knots[0]) / B1_STEP
        low = np.interp(row, np.arange(knots.size), lowest)
        high = np.interp(row, np.arange(knots.size), highest)
        with np.errstate(invalid="ignore"):
            w = 2 / np.pi * np.arcsin(np.sqrt(np.nan_to_num((uni - low) / (high - low)).clip(0, 1)))
        found = map_coordinates(table, [row, w * (table.shape[1] - 1)], order=1, mode="nearest")
        t1, code = _coded(found.astype(np.float32), uni, low, high)
        t1[~known] = np.nan
        code[~known] = Validity.B1_OUT_OF_RANGE
        return t1, code

    def slope(self, t1_s: ArrayLike, b1: ArrayLike = 1.0) -> np.ndarray:
        """Return dUNI/dT1 in 1/s by central differences of the model."""
        t1 = np.asarray(t1_s, float)
        step = 1e-4 * t1
        return (self.protocol.uni(t1 + step, b1) - self.protocol.uni(t1 - step, b1)) / (2 * step)


def _coded(t1: np.ndarray, uni: np.ndarray, low: ArrayLike, high: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Put a code on every voxel and NaN where UNI is off the monotonic part."""
    code = np.zeros(uni.shape, np.uint8)
    code[uni < low] = Validity.T1_ABOVE_RANGE
    code[uni > high] = Validity.T1_BELOW_RANGE
    code[~np.isfinite(uni)] = Validity.NOT_FINITE
    return np.where(code == Validity.OK, t1, np.float32(np.nan)), code
