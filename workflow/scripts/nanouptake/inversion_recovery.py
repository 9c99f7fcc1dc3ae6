"""Inversion recovery: magnitude images at several inversion times to T1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike

from .errors import DataError
from .validity import T1Estimate, Validity

T1_LIMITS_S = (0.005, 10.0)
STEPS = 48  # of the search over log T1, before the golden section


@dataclass(frozen=True)
class Protocol:
    """Inversion times in seconds; repetition time and inversion efficiency are free in the fit."""

    ti_s: tuple[float, ...]

    def __post_init__(self) -> None:
        times = np.array(self.ti_s, float)
        if times.size < 4 or np.unique(times).size < times.size or not (times > 0).all() or times.max() > 30:
            raise DataError(
                "the inversion times cannot be used",
                field="ti_s",
                found=list(self.ti_s),
                wanted="at least 4 different times in seconds",
                cure="give every image its InversionTime, in seconds",
            )

    def signal(self, t1_s: ArrayLike, *, m0: ArrayLike = 1.0, inversion: ArrayLike = 2.0) -> np.ndarray:
        """Return magnitude |m0 (1 - inversion exp(-TI / T1))|; the last axis is TI.

        ``inversion`` is 2 for a perfect pulse and full recovery before it.
        """
        t1, m0, inversion = (np.asarray(v, float)[..., None] for v in (t1_s, m0, inversion))
        return np.abs(m0 * (1 - inversion * np.exp(-np.array(self.ti_s) / t1)))

    def estimate(self, magnitude: ArrayLike) -> T1Estimate:
        """Return T1 in seconds with SD and validity code.

        Parameters
        ----------
        magnitude : (..., n) array_like
            Images in the order of ``ti_s``.

        Returns
        -------
        T1Estimate
            Least squares of a + b exp(-TI / T1) over T1, a and b, with the sign restored up to the lowest
            point (it and all before it negative, or only those before it: the better fit counts). Where
            the first image is the lowest, no image surely lies before the null and two T1 fit alike (of
            a gel of 21 ms the fit would say 63): coded as below the range, NaN; likewise above the range
            beyond the longest TI. SD from the residuals (n - 3 degrees of freedom).
        """
        data = np.asarray(magnitude, np.float64)
        if data.shape[-1] != len(self.ti_s):
            raise DataError(
                "images and inversion times differ in number",
                found=data.shape[-1],
                wanted=len(self.ti_s),
                cure="give one image for each inversion time",
            )
        order = np.argsort(self.ti_s)
        times = np.array(self.ti_s)[order]
        flat = np.ascontiguousarray(data.reshape(-1, times.size)[:, order])
        finite = np.asarray(np.isfinite(flat).all(axis=1))
        t1, sd, falls, ambiguous = _fit_all(np.where(finite[:, None], flat, 0.0), times)
        code = np.full(len(flat), Validity.OK, np.uint8)
        code[falls | ~(sd < t1)] = Validity.FIT_FAILED
        code[t1 > times[-1]] = Validity.T1_ABOVE_RANGE
        code[ambiguous] = Validity.T1_BELOW_RANGE
        code[~flat.any(axis=1)] = Validity.NO_SIGNAL
        code[~finite] = Validity.NOT_FINITE
        for values in (t1, sd):
            values[code != Validity.OK] = np.nan
        shape = data.shape[:-1]
        return T1Estimate(
            t1.reshape(shape).astype(np.float32),
            sd.reshape(shape).astype(np.float32),
            code.reshape(shape),
        )


@numba.njit(cache=True)
def _line(y, weights, times, t1):  # type: ignore[no-untyped-def]
    """Return intercept, slope and residual sum of squares of weights * y against exp(-TI / T1)."""
    n = times.size
    sx = sy = sxx = sxy = syy = 0.0
    for i in range(n):
        x, v = math.exp(-times[i] / t1), weights[i] * y[i]
        sx += x
        sy += v
        sxx += x * x
        sxy += x * v
        syy += v * v
    spread = sxx - sx * sx / n
    slope = (sxy - sx * sy / n) / spread if spread > 1e-14 else 0.0
    intercept = (sy - slope * sx) / n
    return intercept, slope, max(syy - sy * sy / n - slope * (sxy - sx * sy / n), 0.0)


@numba.njit(cache=True)
def _fit_all(data, times):  # type: ignore[no-untyped-def]
    """Return T1, its SD in seconds, whether the signal falls with TI, and whether the first is the lowest."""
    n = times.size
    low, high = math.log(T1_LIMITS_S[0]), math.log(T1_LIMITS_S[1])
    step = (high - low) / STEPS
    golden = (math.sqrt(5.0) - 1) / 2
    t1_of, sd_of = np.empty(len(data)), np.empty(len(data))
    falls, ambiguous = np.zeros(len(data), np.bool_), np.zeros(len(data), np.bool_)
    signs = np.empty(n)
    for row in range(len(data)):
        y = data[row]
        lowest = 0
        for i in range(n):
            if y[i] < y[lowest]:
                lowest = i
        best, found, slope_found = np.inf, np.nan, 0.0
        for negative in (lowest, lowest + 1):
            for i in range(n):
                signs[i] = -1.0 if i < negative else 1.0
            at, least = 0, np.inf
            for k in range(STEPS + 1):
                rest = _line(y, signs, times, math.exp(low + k * step))[2]
                if rest < least:
                    at, least = k, rest
            a, b = low + max(at - 1, 0) * step, low + min(at + 1, STEPS) * step
            c, d = b - golden * (b - a), a + golden * (b - a)
            fc = _line(y, signs, times, math.exp(c))[2]
            fd = _line(y, signs, times, math.exp(d))[2]
            while b - a > 1e-7:
                if fc < fd:
                    b, d, fd = d, c, fc
                    c = b - golden * (b - a)
                    fc = _line(y, signs, times, math.exp(c))[2]
                else:
                    a, c, fc = c, d, fd
                    d = a + golden * (b - a)
                    fd = _line(y, signs, times, math.exp(d))[2]
            t1 = math.exp((a + b) / 2)
            _, slope, rest = _line(y, signs, times, t1)
            if rest < best:
                best, found, slope_found = rest, t1, slope
        t1_of[row] = found
        falls[row] = slope_found >= 0
        ambiguous[row] = lowest == 0
        # Variance of T1: residual variance over what of dS/dT1 the other two parameters cannot take up.
        sx = sxx = sg = sgg = sxg = 0.0
        for i in range(n):
            x = math.exp(-times[i] / found)
            g = slope_found * x * times[i] / (found * found)
            sx += x
            sxx += x * x
            sg += g
            sgg += g * g
            sxg += x * g
        spread = sxx - sx * sx / n
        own = sgg - sg * sg / n - (sxg - sx * sg / n) ** 2 / max(spread, 1e-300)
        sd_of[row] = math.sqrt(best / (n - 3) / own) if own > 0 else np.inf
    return t1_of, sd_of, falls, ambiguous
