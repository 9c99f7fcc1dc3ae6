"""Heads of the reference trial as continuous functions of position, and their sampling on voxel grids.

Head coordinates are LPS mm with the origin of MNI space. Tissue fractions come from the MNI maps by
trilinear interpolation at an analytically warped position; tumours are ellipsoids given by formula.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from math import exp, log, sin, sqrt
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numba import njit
from scipy import ndimage

from .errors import DataError

PAD = 20  # voxels around the MNI maps, for skull and scalp
TISSUES = ("wm", "gm", "csf", "skull", "fat", "skin")
SHELLS_MM = (2.0, 8.0, 12.0, 14.0)  # outer surfaces of CSF, skull, fat and skin over the brain mask
PATTERNS = ("homogeneous", "heterogeneous", "central_minimum", "central_maximum")
HEAD_CENTRE_MM = np.array([0.0, 18.0, 4.0])
WAVES = 3  # sinusoids per axis of the warp
T1_NODES = (0.05, 10.0, 1500)  # log-spaced
B1_NODES = (0.7, 1.3, 121)
RADIAL = 1.2  # curvature of the central patterns: 1.72 or 0.28 of the mean at the centre
UNEVEN = 0.5  # amplitude of the heterogeneous pattern


@lru_cache(maxsize=1)
def tissue_maps() -> tuple[np.ndarray, np.ndarray]:
    """Return tissue fractions as uint8 (0..255), shape (x, y, z, 6), and the RAS mm of voxel (0, 0, 0)."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or spec.origin is None:
        raise DataError(
            "the reference trial needs the MNI maps that nilearn carries",
            found="nilearn is not installed",
            cure="install the optional dependencies 'reference'",
        )
    folder = Path(spec.origin).parent / "datasets" / "data"
    maps = {}
    for name in ("gm", "wm", "t1"):
        image = nib.Nifti1Image.from_filename(
            folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        )
        maps[name] = np.pad(np.asarray(image.dataobj).astype(np.uint8), PAD)
    origin = image.affine[:3, 3] - PAD
    brain = ndimage.binary_fill_holes(maps["t1"] > 0)
    outside = ndimage.distance_transform_edt(~brain).astype(np.float32)
    within = [(mm + 0.5 - outside).clip(0, 1) for mm in SHELLS_MM]
    fractions = np.zeros((*brain.shape, len(TISSUES)), np.uint8)
    wm = np.where(brain, maps["wm"], 0)
    gm = np.where(brain, np.minimum(maps["gm"], 255 - wm), 0)
    fractions[..., 0], fractions[..., 1] = wm, gm
    fractions[..., 2] = np.where(brain, 255 - wm - gm, np.round(255 * within[0]))
    for k in range(3):
        fractions[..., 3 + k] = np.where(brain, 0, np.round(255 * (within[k + 1] - within[k])))
    return fractions, origin


@dataclass(frozen=True)
class Warp:
    """Head LPS mm to MNI RAS mm: scale and a few sinusoids per axis."""

    scale: float
    amplitude_mm: np.ndarray  # (3, WAVES)
    wave: np.ndarray  # (3, WAVES, 3), radians per mm
    phase: np.ndarray  # (3, WAVES)

    @classmethod
    def draw(cls, rng: np.random.Generator, *, warp_mm: float, scale_range: tuple[float, float]) -> Warp:
        """Draw a warp whose displacement along each axis is at most warp_mm."""
        weight = rng.uniform(0.3, 1.0, (3, WAVES))
        amplitude = warp_mm * weight / weight.sum(1, keepdims=True)
        direction = rng.normal(size=(3, WAVES, 3))
        direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
        length = rng.uniform(90.0, 200.0, (3, WAVES, 1))
        phase = rng.uniform(0, 2 * np.pi, (3, WAVES))
        return cls(float(rng.uniform(*scale_range)), amplitude, 2 * np.pi * direction / length, phase)

    def to_mni(self, head_mm: np.ndarray) -> np.ndarray:
        """Return MNI RAS mm of points in head LPS mm, shape (..., 3)."""
        ras = np.asarray(head_mm, float) * [-1, -1, 1]
        shift = np.sin(np.einsum("...d,awd->...aw", ras, self.wave) + self.phase) * self.amplitude_mm
        return ras / self.scale + shift.sum(-1)


@dataclass(frozen=True)
class Tumour:
    """An ellipsoid with its relaxation and its uptake; positions in head LPS mm."""

    name: str
    centre_mm: np.ndarray
    semi_axes_mm: np.ndarray
    axes: np.ndarray  # columns: directions of the semi-axes
    pattern: str
    mean_mg_ml: float
    t1_s: float
    phases: np.ndarray  # of the heterogeneous pattern

    @property
    def to_unit(self) -> np.ndarray:
        """The 3 x 3 matrix from head mm about the centre to the unit ball."""
        return self.axes.T / self.semi_axes_mm[:, None]

    @property
    def volume_ml(self) -> float:
        """Volume of the ellipsoid in ml."""
        return float(4 / 3 * np.pi * self.semi_axes_mm.prod() / 1000)

    def relative_uptake(self, unit: np.ndarray) -> np.ndarray:
        """Return concentration over its mean at positions in the unit ball, shape (n, 3)."""
        row = self._row(1.0, 1.0)
        return np.array([_relative(row, *point) for point in unit])

    def _row(self, t1_s: float, mean_mg_ml: float) -> np.ndarray:
        offset = 0.0
        if self.pattern == "heterogeneous":
            q = unit_ball()
            offset = float(_wavy(q[:, 0], q[:, 1], q[:, 2], *self.phases).mean())
        return np.array(
            [
                *self.centre_mm,
                *self.to_unit.ravel(),
                t1_s,
                mean_mg_ml,
                PATTERNS.index(self.pattern),
                *self.phases,
                offset,
                self.semi_axes_mm.max(),
            ]
        )

    def truth(self, *, uptake: float, r1_per_mg_ml_s: float) -> tuple[float, float]:
        """Return the mean concentration in mg/ml and the mean T1 in s by dense integration."""
        c = uptake * self.mean_mg_ml * self.relative_uptake(unit_ball())
        return float(c.mean()), float((1 / (1 / self.t1_s + r1_per_mg_ml_s * c)).mean())


@lru_cache(maxsize=1)
def unit_ball() -> np.ndarray:
    """Return midpoints of a fine grid inside the unit ball, shape (n, 3)."""
    axis = (np.arange(60) + 0.5) / 30 - 1
    q = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return q[(q**2).sum(1) <= 1]


def place_tumours(
    tumours: list[dict],
    *,
    warp: Warp,
    rng: np.random.Generator,
    axis_ratio: float,
    gap_mm: float,
    edge_mm: float,
) -> list[Tumour]:
    """Place ellipsoids in grey and white matter, apart from one another and from the brain's edge."""
    fractions, origin = tissue_maps()
    step = 2.0
    low = np.array([-90.0, -90.0, -90.0])
    size = (91, 106, 96)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1) * step + low
    index = np.rint(warp.to_mni(grid) - origin).astype(int).clip(0, np.array(fractions.shape[:3]) - 1)
    here = fractions[index[..., 0], index[..., 1], index[..., 2]]
    matter = (here[..., 0].astype(np.float32) + here[..., 1]) / 255
    depth = ndimage.distance_transform_edt(here[..., :3].sum(-1) > 127, sampling=step)
    # Shells count as brain where CSF surrounds it, so the depth is that of the brain plus 2 mm.
    depth -= SHELLS_MM[0] + step
    placed: list[Tumour] = []
    for number, item in enumerate(tumours, 1):
        radius = item["diameter_mm"] / 2
        semi = np.exp(rng.uniform(0, np.log(axis_ratio), 3))
        semi *= radius / np.cbrt(semi.prod())
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        axes[:, 0] *= np.linalg.det(axes)
        allowed = depth >= edge_mm + semi.max()
        for other in placed:
            apart = np.linalg.norm(grid - other.centre_mm, axis=-1)
            allowed &= apart >= other.semi_axes_mm.max() + semi.max() + gap_mm
        filled = np.where(allowed, ndimage.gaussian_filter(matter, max(radius, 2.0) / (2 * step)), 0)
        if not allowed.any() or filled.max() < 0.5:
            raise DataError(
                "no room for a tumour of the reference trial",
                field=f"tumours[{number - 1}]",
                found=f"{item['diameter_mm']} mm beside {len(placed)} others",
                cure="make the tumours fewer or smaller",
            )
        good = np.argwhere(filled >= min(0.9, 0.99 * filled.max()))
        centre = low + step * good[rng.integers(len(good))] + rng.uniform(-0.5, 0.5, 3)
        placed.append(
            Tumour(
                f"GTV_{number:02d}",
                centre,
                semi,
                axes,
                item["pattern"],
                float(item["mean_mg_ml"]),
                float(item["t1_s"]),
                rng.uniform(0, 2 * np.pi, 3),
            )
        )
    return placed


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """What a sequence makes of a tissue: signal tables over T1 and B1, and weights of the tissues."""

    tables: np.ndarray  # (channels, T1_NODES, B1_NODES)
    tissue_t1_s: np.ndarray
    tissue_weight: np.ndarray
    tumour_weight: float


def nodes() -> tuple[np.ndarray, np.ndarray]:
    """Return the T1 (s) and B1 nodes of signal tables."""
    return np.geomspace(*T1_NODES), np.linspace(*B1_NODES)


@dataclass(frozen=True, kw_only=True)
class Head:
    """One patient's anatomy."""

    warp: Warp
    tumours: list[Tumour]
    t1_variation: float


def sample(
    head: Head,
    *,
    contrast: Contrast,
    index_to_head: np.ndarray,
    shape: tuple[int, int, int],
    tumour_t1_s: list[float],
    tumour_mg_ml: list[float],
    r1_per_mg_ml_s: float,
    b1: float = 0.0,
    b1_phase: float = 0.0,
    receive: float = 0.0,
) -> np.ndarray:
    """Return signals, float32 (channel, slice, row, column), at voxels of a grid.

    Parameters
    ----------
    index_to_head : ndarray
        4 x 4 matrix from (column, row, slice) to head LPS mm.
    shape : tuple of int
        Numbers of columns, rows and slices.
    tumour_t1_s, tumour_mg_ml : list of float
        T1 without agent and mean concentration of each tumour.
    b1, receive : float
        Largest relative deviation of the transmit field; rise of the receive field to the edge.
    """
    fractions, origin = tissue_maps()
    rows = [
        t._row(s, c * r1_per_mg_ml_s) for t, s, c in zip(head.tumours, tumour_t1_s, tumour_mg_ml, strict=True)
    ]
    columns, lines, slices = shape
    out = np.empty((contrast.tables.shape[0], slices, lines, columns), np.float32)
    warp = head.warp
    _sample(
        out,
        np.ascontiguousarray(index_to_head[:3]),
        fractions,
        np.asarray(origin, float),
        warp.scale,
        warp.amplitude_mm,
        warp.wave,
        warp.phase,
        head.t1_variation,
        np.ascontiguousarray(contrast.tables, np.float64),
        np.asarray(contrast.tissue_t1_s, float),
        np.asarray(contrast.tissue_weight, float),
        float(contrast.tumour_weight),
        np.array(rows, float).reshape(-1, 20),
        b1,
        b1_phase,
        receive,
        HEAD_CENTRE_MM,
    )
    return out


_LOG_T1 = (log(T1_NODES[0]), log(T1_NODES[1] / T1_NODES[0]) / (T1_NODES[2] - 1), T1_NODES[2])
_B1 = (B1_NODES[0], (B1_NODES[1] - B1_NODES[0]) / (B1_NODES[2] - 1), B1_NODES[2])


def _wavy_source(a: Any, b: Any, c: Any, p: float, q: float, r: float) -> Any:
    return np.sin(4.0 * a + p) * np.cos(3.5 * b + q) + 0.5 * np.sin(5.0 * c + r)


_wavy = njit(_wavy_source)


@njit
def _relative(t: np.ndarray, a: float, b: float, c: float) -> float:
    """Return the concentration over its mean at a position in the unit ball."""
    if t[14] == 0:
        return 1.0
    if t[14] == 1:
        return 1.0 + UNEVEN * (_wavy(a, b, c, t[15], t[16], t[17]) - t[18])
    bend = RADIAL * (0.6 - (a * a + b * b + c * c))
    return 1.0 - bend if t[14] == 2 else 1.0 + bend


@njit
def _lookup(table: np.ndarray, t1: float, b1: float) -> float:
    u = min(max((log(t1) - _LOG_T1[0]) / _LOG_T1[1], 0.0), _LOG_T1[2] - 1.001)
    v = min(max((b1 - _B1[0]) / _B1[1], 0.0), _B1[2] - 1.001)
    i, j = int(u), int(v)
    u -= i
    v -= j
    return (table[i, j] * (1 - v) + table[i, j + 1] * v) * (1 - u) + (
        table[i + 1, j] * (1 - v) + table[i + 1, j + 1] * v
    ) * u


@njit
def _point(
    value: Any, x: float, y: float, z: float, maps: Any, origin: Any, scale: float, amplitude: Any,
    wave: Any, phase: Any, variation: float, tables: Any, t1s: Any, weights: Any, tumour_weight: float,
    tumours: Any, b1_size: float, b1_phase: float, centre: Any,
) -> None:  # fmt: skip
    """Put the signals at one point (head LPS mm) into value; the rest of the model is in arguments."""
    value[:] = 0.0
    hx, hy, hz = x - centre[0], y - centre[1], z - centre[2]
    r2 = hx * hx + hy * hy + hz * hz
    if r2 > 140.0**2:
        return
    b1 = 1.0
    if b1_size > 0:
        b1 += b1_size * (0.8 * (2.0 * exp(-r2 / 80.0**2) - 1.0) + 0.2 * sin(hx / 45.0 + hy / 60.0 + b1_phase))
    for n in range(tumours.shape[0]):
        t = tumours[n]
        dx, dy, dz = x - t[0], y - t[1], z - t[2]
        if dx * dx + dy * dy + dz * dz > t[19] ** 2:
            continue
        a = t[3] * dx + t[4] * dy + t[5] * dz
        b = t[6] * dx + t[7] * dy + t[8] * dz
        c = t[9] * dx + t[10] * dy + t[11] * dz
        if a * a + b * b + c * c <= 1.0:
            t1 = 1.0 / (1.0 / t[12] + t[13] * _relative(t, a, b, c))
            for k in range(value.size):
                value[k] = tumour_weight * _lookup(tables[k], t1, b1)
            return
    rx, ry = -x, -y
    total = 0.0
    p0 = p1 = p2 = 0.0
    for axis in range(3):
        s = 0.0
        for w in range(wave.shape[1]):
            v = sin(wave[axis, w, 0] * rx + wave[axis, w, 1] * ry + wave[axis, w, 2] * z + phase[axis, w])
            s += amplitude[axis, w] * v
            total += v
        if axis == 0:
            p0 = rx / scale + s - origin[0]
        elif axis == 1:
            p1 = ry / scale + s - origin[1]
        else:
            p2 = z / scale + s - origin[2]
    if p0 < 0 or p1 < 0 or p2 < 0:
        return
    i, j, k0 = int(p0), int(p1), int(p2)
    if i >= maps.shape[0] - 1 or j >= maps.shape[1] - 1 or k0 >= maps.shape[2] - 1:
        return
    fx, fy, fz = p0 - i, p1 - j, p2 - k0
    vary = 1.0 + variation * total / (3.0 * wave.shape[1])
    for tissue in range(t1s.size):
        f = 0.0
        for di in range(2):
            fu = fx if di else 1.0 - fx
            for dj in range(2):
                fv = fu * (fy if dj else 1.0 - fy)
                f += fv * (
                    (1.0 - fz) * maps[i + di, j + dj, k0, tissue] + fz * maps[i + di, j + dj, k0 + 1, tissue]
                )
        if f > 0 and weights[tissue] != 0:
            f *= weights[tissue] / 255.0
            for k in range(value.size):
                value[k] += f * _lookup(tables[k], t1s[tissue] * vary, b1)


@njit
def _sample(
    out: Any, m: Any, maps: Any, origin: Any, scale: float, amplitude: Any, wave: Any, phase: Any,
    variation: float, tables: Any, t1s: Any, weights: Any, tumour_weight: float, tumours: Any,
    b1_size: float, b1_phase: float, receive: float, centre: Any,
) -> None:  # fmt: skip
    """Fill out: points at voxel centres, 4 x 4 x 4 points per voxel in and around tumours."""
    channels, slices, rows, columns = out.shape
    reach = 0.0
    for axis in range(3):
        reach += m[axis, 0] ** 2 + m[axis, 1] ** 2 + m[axis, 2] ** 2
    reach = sqrt(reach)
    value = np.empty(channels)
    total = np.empty(channels)
    for k in range(slices):
        for j in range(rows):
            for i in range(columns):
                x = m[0, 0] * i + m[0, 1] * j + m[0, 2] * k + m[0, 3]
                y = m[1, 0] * i + m[1, 1] * j + m[1, 2] * k + m[1, 3]
                z = m[2, 0] * i + m[2, 1] * j + m[2, 2] * k + m[2, 3]
                near = False
                for n in range(tumours.shape[0]):
                    t = tumours[n]
                    dx, dy, dz = x - t[0], y - t[1], z - t[2]
                    if dx * dx + dy * dy + dz * dz < (t[19] + reach) ** 2:
                        near = True
                if near:
                    total[:] = 0.0
                    for s in range(64):
                        a = (s % 4 - 1.5) / 4
                        b = (s // 4 % 4 - 1.5) / 4
                        c = (s // 16 - 1.5) / 4
                        _point(
                            value,
                            x + m[0, 0] * a + m[0, 1] * b + m[0, 2] * c,
                            y + m[1, 0] * a + m[1, 1] * b + m[1, 2] * c,
                            z + m[2, 0] * a + m[2, 1] * b + m[2, 2] * c,
                            maps, origin, scale, amplitude, wave, phase, variation, tables, t1s, weights,
                            tumour_weight, tumours, b1_size, b1_phase, centre,
                        )  # fmt: skip
                        total += value
                    value[:] = total / 64.0
                else:
                    _point(
                        value, x, y, z,
                        maps, origin, scale, amplitude, wave, phase, variation, tables, t1s, weights,
                        tumour_weight, tumours, b1_size, b1_phase, centre,
                    )  # fmt: skip
                u, v, w = (i + 0.5) / columns - 0.5, (j + 0.5) / rows - 0.5, (k + 0.5) / slices - 0.5
                gain = 1.0 + receive * (0.3 * u + 4.0 * (u * u + v * v + w * w) / 3.0)
                for n in range(channels):
                    out[n, k, j, i] = value[n] * gain
