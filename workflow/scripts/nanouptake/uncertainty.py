"""How sure every number is: noise of the images, SD of the maps, intervals of the tumours, limits.

The noise is measured where it matters, in white matter of the scan itself, and is carried through the signal
model: sigma_UNI = sigma |S2^2 - S1^2| / (S1^2 + S2^2)^(3/2), sigma_T1 = sigma_UNI / |dUNI/dT1|,
sigma_R1 = sigma_T1 / T1^2. A tumour's interval is drawn from five measured or stated sources (see Errors).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from scipy import ndimage

from . import geometry
from .contours import Solid, coverage
from .images import Volume
from .mp2rage import Lookup, Protocol, combine, from_dn
from .partial_volume import RateModel, box_around, corrected_rate, cut, signals

MARGIN_VOXELS = 5
WHITE_T1_S = (0.75, 1.05)
TISSUE_T1_S = (0.75, 1.7)
NODES = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])  # of the contour's offset, in SDs
SMALL_MM = 12.0  # below, coverage is supersampled 5 times, above 3 times
SHIFT_MM = 0.25  # step of the derivatives with position
QUANTILES = (2.5, 97.5)
Z_CRITICAL, Z_DETECTION, Z_QUANTIFICATION = 1.645, 3.29, 10.0  # Currie 1968; LOQ at 10 % relative SD


def signal_noise(s: np.ndarray, white: np.ndarray) -> float:
    """Return the SD of the noise of S1 and S2, in their unit, from white matter.

    Parameters
    ----------
    s : (2, i, j, k) ndarray
        Signed signals (partial_volume.signals).
    white : (i, j, k) bool ndarray
        White matter.

    Second differences (-1, 2, -1) / sqrt(6) along each axis cancel what changes smoothly; their median absolute
    deviation over voxels that have white matter on both sides ignores the few edges left. Noise correlated by
    interpolation in the scanner reads low: compare with concentration.noise_sd in air. NaN with fewer than
    500 voxels.
    """
    found = []
    for axis in range(3):
        low, middle, high = (
            tuple(slice(a, b) if d == axis else slice(None) for d in range(3))
            for a, b in ((None, -2), (1, -1), (2, None))
        )
        good = white[low] & white[middle] & white[high]
        if good.sum() < 500:
            continue
        for one in s:
            second = (2 * one[middle] - one[low] - one[high])[good] / np.sqrt(6)
            found.append(1.4826 * float(np.median(np.abs(second - np.median(second)))))
    return float(np.median(found)) if found else float("nan")


def white_matter(t1_s: np.ndarray) -> np.ndarray:
    """Return white matter of a T1 map before infusion: 0.75 to 1.05 s, also in all six neighbours."""
    with np.errstate(invalid="ignore"):
        inside = (t1_s > WHITE_T1_S[0]) & (t1_s < WHITE_T1_S[1])
    return ndimage.binary_erosion(inside)


def uni_sd(s: np.ndarray, noise_sd: float) -> np.ndarray:
    """Return the SD of UNI from noise of SD noise_sd in each signal.

    >>> round(float(uni_sd(np.array([[0.0], [40.0]]), 1.0)[0]), 4)
    0.025
    """
    power = s[0] ** 2 + s[1] ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return noise_sd * np.abs(s[1] ** 2 - s[0] ** 2) / power**1.5


def t1_sd(s: np.ndarray, t1_s: np.ndarray, *, noise_sd: float, lookup: Lookup) -> np.ndarray:
    """Return the SD of T1 in seconds from noise, float32, NaN where T1 is unknown."""
    uni, t1 = lookup.curve
    slope = np.interp(t1_s, t1[::-1], np.abs(np.gradient(uni, t1))[::-1])
    with np.errstate(invalid="ignore", divide="ignore"):
        sd = uni_sd(s, noise_sd) / slope
    return np.where(np.isfinite(t1_s), sd, np.nan).astype(np.float32)


def concentration_sd(
    concentration: np.ndarray,
    *,
    t1_pre_s: np.ndarray,
    t1_pre_sd_s: np.ndarray,
    t1_post_s: np.ndarray,
    t1_post_sd_s: np.ndarray,
    r1_per_mm_per_s: float,
    r1_relative_sd: float,
    mg_per_ml_per_mm: float,
) -> np.ndarray:
    """Return the SD of the concentration in mg/ml from the noise of both maps and from r1.

    >>> sd = concentration_sd(np.array(0.1), t1_pre_s=np.array(1.4), t1_pre_sd_s=np.array(0.0),
    ...     t1_post_s=np.array(1.0), t1_post_sd_s=np.array(0.0), r1_per_mm_per_s=6.7, r1_relative_sd=0.05,
    ...     mg_per_ml_per_mm=4 / 3)
    >>> round(float(sd), 6)
    0.005
    """
    scale = mg_per_ml_per_mm / r1_per_mm_per_s
    noise2 = (t1_pre_sd_s / t1_pre_s**2) ** 2 + (t1_post_sd_s / t1_post_s**2) ** 2
    return np.sqrt(scale**2 * noise2 + (r1_relative_sd * concentration) ** 2)


def b1_relative_error(
    protocol: Protocol,
    *,
    b1_sd: float,
    t1_s: float = 1.4,
    mg_per_ml: float = 0.1,
    r1_per_mg_ml_s: float = 5.0,
) -> float:
    """Return the relative error of the concentration that a transmit field off by b1_sd causes without a map.

    The root mean square over fields of 1 - b1_sd and 1 + b1_sd, the same before and after infusion.
    """
    uni, t1 = Lookup(protocol).curve
    rates = np.array([1 / t1_s, 1 / t1_s + r1_per_mg_ml_s * mg_per_ml])
    errors = []
    for b1 in (1 - b1_sd, 1 + b1_sd):
        found = 1 / np.interp(protocol.uni(1 / rates, b1), uni, t1)
        errors.append((found[1] - found[0]) / (rates[1] - rates[0]) - 1)
    return float(np.sqrt(np.mean(np.square(errors))))


@dataclass(frozen=True, kw_only=True)
class Errors:
    """The sources of a tumour's interval beside noise: SDs.

    registration_sd_mm : of post on pre, along each axis.
    contours_sd_mm : of the registration that carries the contours, along each axis.
    contour_sd_mm : of the surface along its normal, the same all around one tumour.
    scale_sd : relative, of r1 and of what else scales the uptake (transmit field, timings).
    drift_sd_mg_ml : of the patient's zero, from white matter.
    """

    registration_sd_mm: float
    contours_sd_mm: float
    contour_sd_mm: float
    scale_sd: float
    drift_sd_mg_ml: float

    def __post_init__(self) -> None:
        for one in fields(self):
            if not getattr(self, one.name) >= 0:
                raise ValueError(f"{one.name} is {getattr(self, one.name)}")


@dataclass(frozen=True)
class Scan:
    """What an interval needs of one scan, on the scan's own grid.

    uni and inv2 as the scanner stores them; to_contours maps points of the scan to the contours' space, LPS mm;
    noise_sd in the unit of INV2; b1 relative to nominal on the same grid, or None.
    """

    uni: Volume
    inv2: Volume
    to_contours: np.ndarray
    noise_sd: float
    b1: np.ndarray | None = None


class Surface:
    """A contour's signed distance in mm (positive inside) on a fine grid, so that it can be moved and offset."""

    def __init__(self, solid: Solid, *, reach_mm: float) -> None:
        size = float((solid.box[1] - solid.box[0]).max())
        self.step_mm = float(np.clip(size / 40, 0.2, 0.5))
        pad = solid.spacing_mm + reach_mm + 2 * self.step_mm
        self._low = solid.box[0] - pad
        count = np.ceil((solid.box[1] + pad - self._low) / self.step_mm).astype(int) + 1
        points = np.stack(np.meshgrid(*(np.arange(n) for n in count), indexing="ij"), -1).reshape(-1, 3)
        inside = solid.contains(self._low + self.step_mm * points).reshape(tuple(count))
        away = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        self.distance_mm = (self.step_mm * (away - 0.5 * np.sign(away))).astype(np.float32)

    @property
    def depth_mm(self) -> float:
        """Largest distance below the surface."""
        return float(self.distance_mm.max())

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the signed distance at points of the contours' space, (n, 3) LPS mm; far outside -1000."""
        index = ((points_mm - self._low) / self.step_mm).T
        return ndimage.map_coordinates(self.distance_mm, index, order=1, cval=-1000.0)


class MovedCoverage:
    """Coverage of a grid's voxels by a surface, offset along its normal and moved, LPS mm."""

    SUB = 3

    def __init__(
        self, surface: Surface, shape: tuple[int, ...], to_contours: np.ndarray, *, reach_mm: float
    ) -> None:
        self.surface, self.shape = surface, shape
        centres = geometry.apply(to_contours, np.argwhere(np.ones(shape, bool)))
        self._centre = surface.at(centres)
        edges = np.linalg.norm(to_contours[:3, :3], axis=0)
        half = float(np.linalg.norm(edges)) / 2
        self._near = np.flatnonzero(np.abs(self._centre) <= half + reach_mm)
        offset = (np.arange(self.SUB) + 0.5) / self.SUB - 0.5
        cells = np.stack(np.meshgrid(offset, offset, offset, indexing="ij"), -1).reshape(-1, 3)
        self._points = (centres[self._near][:, None] + cells @ to_contours[:3, :3].T).reshape(-1, 3)
        self._width = float(edges.mean()) / self.SUB

    def __call__(self, offset_mm: float = 0.0, shift_mm: np.ndarray | None = None) -> np.ndarray:
        """Return the coverage with the contour's surface moved outwards and the contour shifted."""
        found = (self._centre > 0).astype(float)
        points = self._points if shift_mm is None else self._points - shift_mm
        depth = (self.surface.at(points) + offset_mm) / self._width
        found[self._near] = (depth + 0.5).clip(0, 1).reshape(self._near.size, -1).mean(axis=1)
        return found.reshape(self.shape)


class _Side:
    """One scan around one tumour: mean R1 inside the contour, wherever the contour is moved."""

    def __init__(self, scan: Scan, solid: Solid, surface: Surface, lookup: Lookup, reach_mm: float) -> None:
        part, fraction = coverage(
            solid,
            scan.uni.shape,
            scan.uni.affine,
            matrix=scan.to_contours,
            supersampling=5 if (solid.box[1] - solid.box[0]).max() < SMALL_MM else 3,
        )
        margin = MARGIN_VOXELS + int(np.ceil(reach_mm / scan.uni.spacing_mm.min()))
        self.box = box_around(part, scan.uni.shape, margin)
        uni, inv2 = cut(scan.uni, self.box), cut(scan.inv2, self.box)
        self.s = signals(uni.data, inv2.data)
        self.coverage = np.zeros(uni.shape)
        self.coverage[
            tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(part, self.box, strict=True))
        ] = fraction
        b1 = 1.0
        if scan.b1 is not None and self.coverage.any():
            b1 = float(np.nan_to_num(np.average(scan.b1[self.box], weights=self.coverage), nan=1.0))
        self.model = RateModel(lookup, b1=b1)
        self.uni, self.noise_sd = uni, scan.noise_sd
        self.moved = MovedCoverage(surface, uni.shape, scan.to_contours @ uni.affine, reach_mm=reach_mm)
        self.taken: np.ndarray | None = None

    @cached_property
    def exact(self) -> tuple[float, float]:
        """Mean R1 in 1/s inside the drawn contour and its SD from noise."""
        found = corrected_rate(self.s, self.coverage, model=self.model, taken=self.taken)
        return found.rate, found.noise_gain * self.noise_sd

    def rate(self, offset_mm: float = 0.0, shift_mm: np.ndarray | None = None) -> float:
        """Mean R1 in 1/s inside the contour where it is moved to."""
        return corrected_rate(
            self.s, self.moved(offset_mm, shift_mm), model=self.model, taken=self.taken
        ).rate


def spline_weights(weights: np.ndarray, index: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return what each voxel of an image contributes to a weighted sum of its cubic B-spline at points.

    Parameters
    ----------
    weights : (n,) ndarray
    index : (n, 3) ndarray
        Voxel coordinates of the points in the image.
    shape : tuple
        Of the image.

    The adjoint of the resampling: sum of weights times resampled values = sum of the result times the image, so
    the noise of a sum over resampled voxels is known exactly, its spatial correlation included.
    """
    out = np.zeros(shape)
    base = np.floor(index).astype(int)
    t = index - base
    taps = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    limit = np.array(shape) - 1
    for i in range(4):
        for j in range(4):
            for k in range(4):
                at = np.abs(base + np.array([i, j, k]) - 1)
                at = limit - np.abs(limit - at)
                part = weights * taps[i, :, 0] * taps[j, :, 1] * taps[k, :, 2]
                np.add.at(out, tuple(at.T), part)
    return ndimage.spline_filter(out, order=3, mode="mirror")


class _Map:
    """Mean and upper-quartile mean of the concentration map around one tumour, wherever the contour is moved."""

    def __init__(
        self,
        concentration: Volume,
        rate_post: np.ndarray,
        labels: np.ndarray,
        index: int,
        surface: Surface,
        to_contours: np.ndarray,
        scale: float,
        reach_mm: float,
    ) -> None:
        own = np.argwhere(labels == index)
        part = tuple(slice(a, b + 1) for a, b in zip(own.min(axis=0), own.max(axis=0), strict=True))
        box = box_around(part, labels.shape, 2 + int(np.ceil(reach_mm / concentration.spacing_mm.min())))
        self.values = concentration.data[box].astype(float)
        self.affine = cut(concentration, box).affine
        self.own = (labels[box] == index) & np.isfinite(self.values)
        slopes = np.gradient(rate_post[box].astype(float))
        turn = np.linalg.inv(self.affine[:3, :3])
        self._slope = scale * np.nan_to_num(np.einsum("a...,ad->d...", np.stack(slopes), turn))
        self.moved = MovedCoverage(surface, self.values.shape, to_contours @ self.affine, reach_mm=reach_mm)
        self._turn = np.linalg.inv(to_contours[:3, :3])

    @staticmethod
    def _both(values: np.ndarray) -> np.ndarray:
        if not values.size:
            return np.array([np.nan, np.nan])
        return np.array([values.mean(), values[values >= np.percentile(values, 75)].mean()])

    @property
    def here(self) -> np.ndarray:
        """Mean and upper-quartile mean as the table has them."""
        return self._both(self.values[self.own])

    def at(self, offset_mm: float = 0.0, shift_mm: np.ndarray | None = None) -> np.ndarray:
        """Both, where the contour is moved to."""
        mask = (self.moved(offset_mm, shift_mm) > 0.5) & np.isfinite(self.values)
        return self._both(self.values[mask])

    def slid(self, shift_mm: np.ndarray) -> np.ndarray:
        """Both, with the post map slid under the contour, contours' LPS mm."""
        change = np.einsum("d...,d->...", self._slope, self._turn @ shift_mm)
        return self._both((self.values + change)[self.own])

    def noise(self, sides: tuple[_Side, _Side], to_scans: list[np.ndarray], scale: float) -> np.ndarray:
        """SDs of both from the noise of the two scans, spatially correlated by the resampling."""
        values = self.values[self.own]
        top = values >= np.percentile(values, 75)
        points = geometry.apply(self.affine, np.argwhere(self.own))
        total = np.zeros(2)
        for side, matrix in zip(sides, to_scans, strict=True):
            index = geometry.apply(np.linalg.inv(side.uni.affine) @ matrix, points)
            slope = side.model.slope(_linear(from_dn(side.uni.data), index))
            sd = uni_sd(side.s, side.noise_sd)
            for k, weights in enumerate((np.full(top.size, 1 / top.size), top / top.sum())):
                spread = spline_weights(scale * weights * slope, index, side.uni.shape)
                total[k] += float(np.nansum((spread * sd) ** 2))
        return np.sqrt(total)


def _linear(data: np.ndarray, index: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(data, index.T, order=1, mode="nearest")


@dataclass(frozen=True)
class Patient:
    """Two scans, the map made of them, its tumours, and where everything is (LPS mm).

    rate_post is R1 after infusion on the map's grid; map_to_contours and map_to_pre, map_to_post lead from
    the map's space to the contours', the pre scan's and the post scan's.
    """

    pre: Scan
    post: Scan
    concentration: Volume
    rate_post: np.ndarray
    labels: np.ndarray
    solids: list[Solid]
    map_to_contours: np.ndarray
    map_to_pre: np.ndarray
    map_to_post: np.ndarray


NAN_ROW = (
    "mean_pvc_mg_ml",
    "mean_pvc_low_mg_ml",
    "mean_pvc_high_mg_ml",
    "mean_low_mg_ml",
    "mean_high_mg_ml",
    "upper_quartile_low_mg_ml",
    "upper_quartile_high_mg_ml",
    "volume_low_ml",
    "volume_high_ml",
    "sd_noise_mg_ml",
    "sd_registration_mg_ml",
    "sd_contour_mg_ml",
    "sd_scale_mg_ml",
    "sd_drift_mg_ml",
    "sd_zero_mg_ml",
)


def tumor_intervals(
    patient: Patient,
    *,
    lookup: Lookup,
    scale_mg_ml_s: float,
    errors: Errors,
    draws: int = 2000,
    seed: int = 1,
) -> list[dict[str, float]]:
    """Return for every tumour the corrected mean, 95 % intervals, and the SD that each source contributes.

    Parameters
    ----------
    patient : Patient
    lookup : Lookup
    scale_mg_ml_s : float
        mg/ml per 1/s of R1: mg per mM over r1.
    errors : Errors
    draws, seed : int
        Monte Carlo draws; the same seed gives the same numbers.

    Returns
    -------
    list of dict
        Keys as in NAN_ROW, NaN where the tumour has no voxel. Each sd_*_mg_ml is that of the corrected mean
        when its source alone is drawn; sd_zero_mg_ml is that of the mean if the tumour had taken nothing up.
    """
    reach = float(2 * errors.contour_sd_mm + SHIFT_MM)
    rng = np.random.default_rng(seed)
    surfaces = [Surface(solid, reach_mm=reach + 1) for solid in patient.solids]
    sides = [
        [_Side(scan, solid, surface, lookup, reach) for scan in (patient.pre, patient.post)]
        for solid, surface in zip(patient.solids, surfaces, strict=True)
    ]
    _mark_neighbours(sides)
    rows = []
    for number, (surface, pair) in enumerate(zip(surfaces, sides, strict=True), start=1):
        # Every tumour draws the same number of values, whatever becomes of the others.
        normal = rng.standard_normal((11, draws))
        if not all(side.coverage.any() for side in pair) or not (patient.labels == number).any():
            rows.append(dict.fromkeys(NAN_ROW, float("nan")))
            continue
        on_map = _Map(
            patient.concentration,
            patient.rate_post,
            patient.labels,
            number,
            surface,
            patient.map_to_contours,
            scale_mg_ml_s,
            reach,
        )
        rows.append(_row(pair, on_map, patient, surface, scale_mg_ml_s, errors, normal))
    return rows


def _mark_neighbours(sides: list[list[_Side]]) -> None:
    """Tell every side which voxels of its box other tumours touch."""
    for place in (0, 1):
        for one in (pair[place] for pair in sides):
            taken = np.zeros(one.uni.shape, bool)
            for other in (pair[place] for pair in sides):
                if other is one:
                    continue
                common = [
                    slice(max(a.start, b.start), min(a.stop, b.stop))
                    for a, b in zip(one.box, other.box, strict=True)
                ]
                if all(c.stop > c.start for c in common):
                    mine = tuple(
                        slice(c.start - b.start, c.stop - b.start)
                        for c, b in zip(common, one.box, strict=True)
                    )
                    theirs = tuple(
                        slice(c.start - b.start, c.stop - b.start)
                        for c, b in zip(common, other.box, strict=True)
                    )
                    taken[mine] |= other.coverage[theirs] > 0
            one.taken = taken


def _row(
    pair: list[_Side],
    on_map: _Map,
    patient: Patient,
    surface: Surface,
    scale: float,
    errors: Errors,
    normal: np.ndarray,
) -> dict[str, float]:
    pre, post = pair
    (rate_pre, noise_pre), (rate_post, noise_post) = pre.exact, post.exact
    mean = scale * (rate_post - rate_pre)
    noise = scale * float(np.hypot(noise_pre, noise_post))

    offsets = np.maximum(errors.contour_sd_mm * NODES, -0.7 * surface.depth_mm)
    steps = [sign * SHIFT_MM * np.eye(3)[axis] for axis in range(3) for sign in (1.0, -1.0)]
    at_offset = np.array(
        [[scale * (post.rate(o) - pre.rate(o)), *on_map.at(o), pre.moved(o).sum()] for o in offsets]
    )
    at_step = np.array([[scale * side.rate(0.0, step) for side in pair] for step in steps])
    map_step = np.array([on_map.at(0.0, step) for step in steps])
    slide = np.array([on_map.slid(step) for step in steps])

    def slope(values: np.ndarray) -> np.ndarray:
        return (values[0::2] - values[1::2]) / (2 * SHIFT_MM)

    offset = errors.contour_sd_mm * normal[0]
    carried = errors.contours_sd_mm * normal[1:4]
    slipped = errors.registration_sd_mm * normal[4:7]
    factor = 1 / (1 + errors.scale_sd * normal[7].clip(-3, 3))
    drift = errors.drift_sd_mg_ml * normal[8]

    def of_contour(column: int) -> np.ndarray:
        return np.interp(offset, offsets, at_offset[:, column]) - at_offset[2, column]

    parts = {
        "noise": noise * normal[9],
        "registration": slope(at_step[:, 1] - at_step[:, 0]) @ carried + slope(at_step[:, 1]) @ slipped,
        "contour": of_contour(0),
        "scale": mean * (factor - 1),
        "drift": drift,
    }
    drawn = (mean + parts["noise"] + parts["registration"] + parts["contour"] + drift) * factor
    # The pre scan alone tells how a tumour without uptake answers to a slip of the post scan.
    still = slope(at_step[:, 0]) @ slipped
    rows = dict(zip(NAN_ROW[:3], (mean, *np.percentile(drawn, QUANTILES)), strict=True))

    map_noise = on_map.noise((pre, post), [patient.map_to_pre, patient.map_to_post], scale)
    table = on_map.here
    for k, names in enumerate((NAN_ROW[3:5], NAN_ROW[5:7])):
        moved = slope(map_step[:, k]) @ carried + slope(slide[:, k]) @ slipped
        spread = table[k] + map_noise[k] * normal[10] + moved + of_contour(1 + k) + drift
        rows |= dict(zip(names, np.percentile(spread * factor, QUANTILES), strict=True))
    volume = float(pre.coverage.sum()) * float(abs(np.linalg.det(pre.uni.affine[:3, :3]))) / 1000
    share = np.interp(offset, offsets, at_offset[:, 3]) / at_offset[2, 3]
    rows |= dict(zip(NAN_ROW[7:9], volume * np.percentile(share, QUANTILES), strict=True))
    rows |= {f"sd_{name}_mg_ml": float(np.std(part)) for name, part in parts.items()}
    rows["sd_zero_mg_ml"] = float(np.sqrt(noise**2 + errors.drift_sd_mg_ml**2 + np.var(still)))
    return {k: float(v) for k, v in rows.items()}
