"""Variable flip angle: spoiled gradient echoes at several flip angles to T1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import ArrayLike

from .errors import DataError
from .validity import T1Estimate, Validity

T1_LIMITS_S = (0.005, 10.0)
ITERATIONS = 12


@dataclass(frozen=True)
class Protocol:
    """Repetition time in seconds and nominal flip angles in degrees."""

    tr_s: float
    flip_deg: tuple[float, ...]

    def __post_init__(self) -> None:
        angles = np.array(self.flip_deg, float)
        if angles.size < 3 or np.unique(angles).size < 3 or not ((angles > 0) & (angles < 90)).all():
            raise DataError(
                "the flip angles cannot be used",
                field="flip_deg",
                found=list(self.flip_deg),
                wanted="at least 3 different angles between 0 and 90 degrees",
                cure="give every image its FlipAngle",
            )
        if not 0 < self.tr_s < 1:
            raise DataError(
                "the repetition time cannot be used",
                field="tr_s",
                found=self.tr_s,
                wanted="seconds, above 0 and below 1",
                cure="headers give milliseconds: divide by 1000",
            )

    def signal(self, t1_s: ArrayLike, b1: ArrayLike = 1.0, *, m0: ArrayLike = 1.0) -> np.ndarray:
        """Return the spoiled steady state (Ernst and Anderson, 1966); the last axis is the flip angle."""
        t1, b1, m0 = (np.asarray(v, float)[..., None] for v in (t1_s, b1, m0))
        angle = np.deg2rad(np.array(self.flip_deg)) * b1
        e1 = np.exp(-self.tr_s / t1)
        return m0 * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))

    def estimate(self, magnitude: ArrayLike, *, b1: ArrayLike | None = None) -> T1Estimate:
        """Return T1 in seconds with SD and validity code.

        Parameters
        ----------
        magnitude : (..., n) array_like
            Images in the order of ``flip_deg``.
        b1 : (...) array_like or None
            Transmit field relative to nominal; T1 goes with about its square, so that without a map
            5 % of B1 are 10 % of T1.

        Returns
        -------
        T1Estimate
            Least squares of the signal itself (Gauss-Newton from the linearised fit of Gupta, 1977,
            whose noise is not that of the signal). SD from the residuals (n - 2 degrees of freedom).
        """
        data = np.asarray(magnitude)
        n = len(self.flip_deg)
        if data.shape[-1] != n:
            raise DataError(
                "images and flip angles differ in number",
                found=data.shape[-1],
                wanted=n,
                cure="give one image for each flip angle",
            )
        shape = data.shape[:-1]
        flat = np.ascontiguousarray(data.reshape(-1, n), np.float32)
        field = np.ones(1) if b1 is None else np.ascontiguousarray(np.broadcast_to(b1, shape), float).ravel()
        t1, sd, code = _fit_all(flat, field, np.deg2rad(np.array(self.flip_deg, float)), self.tr_s)
        return T1Estimate(t1.reshape(shape), sd.reshape(shape), code.reshape(shape))


_OK, _EMPTY, _LOW, _HIGH, _FIELD, _BAD, _FAILED = (
    int(c)
    for c in (
        Validity.OK,
        Validity.NO_SIGNAL,
        Validity.T1_BELOW_RANGE,
        Validity.T1_ABOVE_RANGE,
        Validity.B1_OUT_OF_RANGE,
        Validity.NOT_FINITE,
        Validity.FIT_FAILED,
    )
)


@numba.njit(cache=True)
def _fit_all(data, field, angles, tr_s):  # type: ignore[no-untyped-def]
    """Return T1, its SD in seconds and the code of every row; field has one value, or one for each row."""
    n = angles.size
    t1_of = np.full(len(data), np.nan, np.float32)
    sd_of = np.full(len(data), np.nan, np.float32)
    code_of = np.zeros(len(data), np.uint8)
    sines, cosines = np.sin(angles * field[0]), np.cos(angles * field[0])
    e_low, e_high = math.exp(-tr_s / T1_LIMITS_S[0]), math.exp(-tr_s / T1_LIMITS_S[1])
    for row in range(len(data)):
        y = data[row]
        if field.size > 1:
            if not 0.2 <= field[row] <= 2.0:
                code_of[row] = _FIELD
                continue
            for i in range(n):
                sines[i], cosines[i] = math.sin(angles[i] * field[row]), math.cos(angles[i] * field[row])
        total = 0.0
        sx = sy = sxx = sxy = 0.0
        for i in range(n):
            total += y[i]
            x, v = y[i] * cosines[i] / sines[i], y[i] / sines[i]
            sx += x
            sy += v
            sxx += x * x
            sxy += x * v
        if not math.isfinite(total):
            code_of[row] = _BAD
            continue
        if total <= 0:
            code_of[row] = _EMPTY
            continue
        spread = n * sxx - sx * sx
        e = (n * sxy - sx * sy) / spread if spread > 0 else 0.5
        e = min(max(e, e_low), e_high)
        det = jee = jmm = jme = rest = m0 = 0.0
        for _ in range(ITERATIONS):
            # m0 is linear: the best one for this e, then one Gauss-Newton step in both
            top = bottom = 0.0
            for i in range(n):
                f = sines[i] * (1 - e) / (1 - e * cosines[i])
                top += f * y[i]
                bottom += f * f
            m0 = top / bottom
            jee = jmm = jme = ge = gm = rest = 0.0
            for i in range(n):
                inverse = 1 / (1 - e * cosines[i])
                f = sines[i] * (1 - e) * inverse
                d = m0 * sines[i] * (cosines[i] - 1) * inverse * inverse
                r = y[i] - m0 * f
                rest += r * r
                jmm += f * f
                jee += d * d
                jme += f * d
                gm += f * r
                ge += d * r
            det = jmm * jee - jme * jme
            if not det > 0:
                break
            step = (jmm * ge - jme * gm) / det
            new = min(max(e + step, e_low), e_high)
            moved = abs(new - e)
            e = new
            if moved < 1e-9:
                break
        t1 = -tr_s / math.log(e)
        slope = tr_s / (e * math.log(e) ** 2)
        if e <= e_low:
            code_of[row] = _LOW
        elif e >= e_high:
            code_of[row] = _HIGH
        elif not det > 0 or m0 <= 0:
            code_of[row] = _FAILED
        else:
            sd = slope * math.sqrt(rest / (n - 2) * jmm / det)
            if sd < t1:
                t1_of[row], sd_of[row] = t1, sd
            else:
                code_of[row] = _FAILED
    return t1_of, sd_of, code_of
