"""Agent concentration from T1 before and after infusion (Eqs. 1 to 3 of the paper)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from . import geometry
from .errors import DataError
from .images import Volume, load
from .validity import Validity


def concentration(
    t1_pre_s: ArrayLike, t1_post_s: ArrayLike, *, r1_per_mm_per_s: float, mg_per_ml_per_mm: float
) -> np.ndarray:
    """Return agent concentration in mg/ml; negative values are kept, NaN where a T1 is unknown.

    Parameters
    ----------
    t1_pre_s, t1_post_s : array_like
        T1 in seconds before and after infusion, same shape.
    r1_per_mm_per_s : float
        Longitudinal relaxivity per mM of gadolinium.
    mg_per_ml_per_mm : float
        Agent in mg/ml per mM of gadolinium (AGuIX: 20 kDa over 15 Gd = 4/3).

    Examples
    --------
    >>> round(float(concentration(1.5, 1.0, r1_per_mm_per_s=6.7, mg_per_ml_per_mm=4 / 3)), 4)
    0.0663
    """
    change = 1 / np.asarray(t1_post_s) - 1 / np.asarray(t1_pre_s)
    return change * (mg_per_ml_per_mm / r1_per_mm_per_s)


def resample(
    moving: Volume,
    *,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    matrix: np.ndarray,
    where: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Resample an image once, by cubic B-spline, onto another grid.

    Parameters
    ----------
    moving : Volume
        The image, any real dtype.
    shape, affine
        The target grid (affine from voxel to LPS mm).
    matrix : (4, 4) ndarray
        Maps points of the target space to points of the moving space, LPS mm.
    where : (shape) bool ndarray or None
        Voxels that are wanted; the others are NaN.

    Returns
    -------
    values : (shape) float32 ndarray
        NaN outside the moving image and outside ``where``.
    inside : (shape) bool ndarray
        True where the target voxel's centre lies within the moving image.
    """
    from scipy.ndimage import map_coordinates, spline_filter

    wanted = np.ones(shape, bool) if where is None else where
    voxels = np.argwhere(wanted)
    to_index = np.linalg.inv(moving.affine) @ matrix @ affine
    coordinates = geometry.apply(to_index, voxels)
    limits = np.array(moving.shape) - 1
    seen = ((coordinates >= 0) & (coordinates <= limits)).all(axis=1)
    values = np.full(shape, np.nan, np.float32)
    inside = np.zeros(shape, bool)
    voxels, coordinates = voxels[seen], coordinates[seen]
    coefficients = spline_filter(moving.data.astype(np.float32), order=3, output=np.float32, mode="mirror")
    values[tuple(voxels.T)] = map_coordinates(
        coefficients, coordinates.T, order=3, mode="mirror", prefilter=False, output=np.float32
    )
    inside[tuple(voxels.T)] = True
    return values, inside


def relative_b1(
    path: str | Path, *, shape: tuple[int, int, int], affine: np.ndarray, matrix: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the transmit field relative to nominal on a grid, by linear interpolation; None without a map.

    Parameters
    ----------
    path : path
        A B1+ map in percent of the nominal flip angle (BIDS TB1map); an empty file is no map.
    shape, affine
        The target grid (affine from voxel to LPS mm).
    matrix : (4, 4) ndarray or None
        Maps points of the target space to the map's space, LPS mm.

    Returns
    -------
    (shape) float32 ndarray, 1 = nominal, NaN outside the map.

    Raises DataError for a map that is not in percent.
    """
    if not Path(path).stat().st_size:
        return None
    return relative_b1_of(load(path), shape=shape, affine=affine, matrix=matrix)


def relative_b1_of(
    tb1: Volume, *, shape: tuple[int, int, int], affine: np.ndarray, matrix: np.ndarray | None = None
) -> np.ndarray:
    """Return the transmit field of a map in percent on a grid: see relative_b1."""
    from scipy.ndimage import map_coordinates

    middle = float(np.median(tb1.data[tb1.data > 0])) if (tb1.data > 0).any() else 0.0
    if not 50 <= middle <= 150:
        raise DataError(
            "the B1 map is not in percent of the nominal flip angle",
            field="TB1map",
            found=f"a median of {middle:.4g}",
            wanted="about 100",
            cure="rescale the map (BIDS TB1map: 100 where the flip angle is the nominal one)",
        )
    to_index = np.linalg.inv(tb1.affine) @ (np.eye(4) if matrix is None else matrix) @ affine
    i, j, k = (np.arange(n, dtype=np.float64) for n in shape)
    place = [
        (row[0] * i[:, None, None] + row[1] * j[None, :, None] + row[2] * k[None, None, :] + row[3])
        for row in to_index[:3]
    ]
    values = map_coordinates(tb1.data.astype(np.float32) / 100, place, order=1, cval=np.nan)
    return values.astype(np.float32)


def noise_sd(magnitude: np.ndarray) -> float:
    """Return the noise SD of a magnitude image from its eight corners (Rayleigh: median = 1.1774 SD)."""
    edge = [max(2, n // 16) for n in magnitude.shape]
    blocks = [
        magnitude[i, j, k]
        for i in (slice(edge[0]), slice(-edge[0], None))
        for j in (slice(edge[1]), slice(-edge[1], None))
        for k in (slice(edge[2]), slice(-edge[2], None))
    ]
    # The median over the corners: one corner may hold a shoulder.
    return float(np.median([np.median(block) for block in blocks])) / 1.1774


def foreground(inv2: np.ndarray, *, times_noise: float = 5.0) -> np.ndarray:
    """Return True where INV2 stands above its noise."""
    return inv2 > max(times_noise * noise_sd(inv2), 0)


def code_where_unknown(pre: np.ndarray, post: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return one validity code per voxel: that of the pre map first, then of the post map."""
    code = np.where(pre != Validity.OK, pre, post).astype(np.uint8)
    code[~inside & (pre == Validity.OK)] = Validity.OUTSIDE_FIELD_OF_VIEW
    return code
