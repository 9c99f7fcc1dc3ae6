"""Vials of a phantom: the layout, where they lie in a scan, and what is measured in their cores.

The layout's frame is the scanner's picture of a slice across the vials: x to the right, y down (axial: to
the patient's left and back; coronal and sagittal: y to the feet), in mm from any origin. In the scan the
phantom is shifted, turned in the plane and slightly tilted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import DataError
from .images import Volume
from .validity import Validity

PRESENT = 0.55  # of a circle's perimeter that lies on edges, for a vial to be there
CERTAIN = 0.85  # likewise, for a vial that the layout does not have
REACH_MM = 4.0  # in which a vial is looked for around where the layout has it
SYMMETRIC_MM = 2.0  # within which a turned layout covers itself
TURN_STEP_DEG = 2.0
MOST_TILT = 0.15  # shift of the axis per length, 8.5 degrees
WALL_VOXELS = 1.5  # of the rim that the core leaves out
HOMOGENEOUS = 0.02  # of the vial's T1, between slices, beyond noise
COLUMNS = {"vial", "x_mm", "y_mm", "diameter_mm"}
VALUES = {"t1_s", "gel", "concentration_mg_ml"}


@dataclass(frozen=True)
class Layout:
    """Vials in the phantom's frame; truth has one value per vial, NaN or empty for markers."""

    name: str
    vials: list[str]
    points_mm: np.ndarray  # (n, 2)
    diameters_mm: np.ndarray
    marker: np.ndarray  # True where the object only tells the orientation
    truth: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of objects, markers included."""
        return len(self.vials)

    @cached_property
    def symmetries_deg(self) -> list[float]:
        """Rotations other than none, about the centroid, that lay the layout upon itself."""
        points = self.points_mm - self.points_mm.mean(axis=0)
        found = []
        for angle in np.arange(TURN_STEP_DEG, 360, TURN_STEP_DEG).tolist():
            turned = points @ turn(angle).T
            distance = np.linalg.norm(turned[:, None] - points[None], axis=-1)
            distance[np.abs(self.diameters_mm[:, None] - self.diameters_mm[None]) > 1.0] = np.inf
            if distance.min(axis=1).max() < SYMMETRIC_MM + np.deg2rad(TURN_STEP_DEG / 2) * 60:
                found.append(angle)
        # Neighbouring angles of one symmetry become their middle.
        groups: list[list[float]] = []
        for angle in found:
            if groups and angle - groups[-1][-1] <= TURN_STEP_DEG:
                groups[-1].append(angle)
            else:
                groups.append([angle])
        return [float(np.mean(g)) for g in groups if min(g) > 10 and max(g) < 350]


def turn(angle_deg: float) -> np.ndarray:
    """Return the 2 x 2 rotation by an angle in degrees."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    return np.array([[c, -s], [s, c]])


def read_layout(path: str | Path) -> Layout:
    """Read and check a layout: a table of vial, x_mm, y_mm, diameter_mm and t1_s, gel or concentration_mg_ml.

    An optional column ``marker`` (yes) names objects that are there to tell the orientation. Raises
    DataError that names file, row and column.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, comment="#").fillna("")
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(
            "the layout cannot be read",
            file=path.name,
            field="layout",
            found=f"{type(error).__name__}: {error}",
            cure="name a table of resources/phantoms or of the study in phantoms.tsv",
        ) from error
    values = VALUES & set(table.columns)
    if not set(table.columns) >= COLUMNS or len(values) != 1:
        raise DataError(
            "the layout lacks columns",
            file=path.name,
            found=", ".join(table.columns),
            wanted=", ".join(sorted(COLUMNS)) + " and one of " + ", ".join(sorted(VALUES)),
            cure="compare it with the tables in resources/phantoms",
        )
    marker = (table["marker"] if "marker" in table else pd.Series("", index=table.index)).str.lower() == "yes"
    numbers = table[["x_mm", "y_mm", "diameter_mm"]].apply(pd.to_numeric, errors="coerce")
    bad = table.index[numbers.isna().any(axis=1) | (numbers["diameter_mm"] <= 0) | table["vial"].duplicated()]
    numeric = values & {"t1_s", "concentration_mg_ml"}
    for name in numeric:
        known = pd.to_numeric(table[name], errors="coerce")
        wrong = known.isna() | (known < 0) | ((name == "t1_s") & ((known <= 0) | (known > 10)))
        bad = bad.union(table.index[wrong & ~marker])
    if len(bad):
        raise DataError(
            "a row of the layout cannot be used",
            file=f"{path.name}:{bad[0] + 2}",
            found=", ".join(table.loc[bad[0]]),
            wanted="each vial once; x, y and diameter in mm; t1_s in seconds or concentration_mg_ml",
            cure="correct the row",
        )
    points, diameters = numbers[["x_mm", "y_mm"]].to_numpy(float), numbers["diameter_mm"].to_numpy(float)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(len(points), np.inf))
    if len(points) < 3 or (apart < (diameters[:, None] + diameters[None]) / 2).any():
        raise DataError(
            "the layout's vials overlap or are too few",
            file=path.name,
            found=f"{len(points)} vials, the closest {apart.min():.1f} mm apart",
            wanted="at least 3 that do not overlap",
            cure="correct x_mm, y_mm and diameter_mm",
        )
    truth = table[["vial", *sorted(values)]].copy()
    for name in numeric:
        truth[name] = pd.to_numeric(truth[name], errors="coerce")
    return Layout(path.stem, list(table["vial"]), points, diameters, marker.to_numpy(), truth)


@dataclass(frozen=True)
class Pose:
    """Where the phantom lies: at slice k its centroid is at start + drift (k - middle), turned by angle_deg.

    All in mm in the picture of the slices: x to the right, y down, the slice direction rising with k.
    """

    angle_deg: float
    start_mm: np.ndarray
    drift: np.ndarray  # mm per mm along the slice direction
    middle: float

    def centres_mm(self, layout: Layout, k: float, *, step_mm: float) -> np.ndarray:
        """Return the vials' centres (n, 2) in the picture of slice k."""
        points = layout.points_mm - layout.points_mm.mean(axis=0)
        return points @ turn(self.angle_deg).T + self.start_mm + self.drift * ((k - self.middle) * step_mm)


class Pictures:
    """The slices of a volume as pictures: rows down, columns to the right, square pixels."""

    def __init__(self, volume: Volume, *, axis: str = "slice") -> None:
        directions = volume.affine[:3, :3] / volume.spacing_mm
        across = 2 if axis == "slice" else int(np.argmax(np.abs(directions["xyz".index(axis)])))
        first, second = (a for a in range(3) if a != across)
        normal = int(np.argmax(np.abs(directions[:, across])))
        # To the right: left of the patient, or (sagittal) his back; down: his back, or his feet.
        right_axis, down_axis, down_sign = {2: (0, 1, 1), 1: (0, 2, -1), 0: (1, 2, -1)}[normal]
        if abs(directions[right_axis, first]) < abs(directions[right_axis, second]):
            first, second = second, first
        self.order = (second, first, across)
        self.flip = (
            bool(np.sign(directions[down_axis, second]) != down_sign),
            bool(directions[right_axis, first] < 0),
        )
        self.pixel_mm = (float(volume.spacing_mm[second]), float(volume.spacing_mm[first]))
        self.step_mm = float(volume.spacing_mm[across])

    def of(self, data: np.ndarray) -> np.ndarray:
        """Return an array of the volume's shape as (row, column, slice)."""
        turned = np.transpose(data, self.order)
        return turned[:: -1 if self.flip[0] else 1, :: -1 if self.flip[1] else 1]


def edges(channels: list[np.ndarray], tops: list[float]) -> np.ndarray:
    """Return True where any of the pictures (row, column) has an edge, one pixel wide on both sides."""
    from scipy.ndimage import binary_dilation, gaussian_filter, median_filter
    from skimage.feature import canny

    found = np.zeros(channels[0].shape, bool)
    for picture, top in zip(channels, tops, strict=True):
        smooth = gaussian_filter(median_filter(picture, size=3), 0.7)
        noise = np.median(np.abs(picture - smooth)[smooth > 0.2 * top]) if (smooth > 0.2 * top).any() else top
        high = max(0.1, 5 * float(noise) / top)
        found |= canny(np.clip(smooth / top, 0, 1.2), sigma=0.7, low_threshold=high / 2, high_threshold=high)
    return np.asarray(binary_dilation(found))


def circle_score(edge: np.ndarray, radius_px: float) -> np.ndarray:
    """Return for every pixel how much of the circle around it lies on edges, 0 to 1 (Hough)."""
    from skimage.transform import hough_circle

    radii = np.unique(np.round(radius_px + np.array([-0.5, 0.5])).astype(int).clip(2))
    return np.asarray(hough_circle(edge.astype(np.uint8), radii).max(axis=0), np.float32)


@dataclass(frozen=True)
class Found:
    """The phantom in a scan: its pose, slices, and how surely each vial was seen (0 to 1)."""

    pose: Pose
    slices: np.ndarray
    score: np.ndarray
    pictures: Pictures
    extra_mm: np.ndarray  # centres of circles that the layout does not have
    places: list[tuple[int, int]]  # first and last slice, where all vials are seen at several heights


class Finder:
    """Looks for a layout in the slices of a scan.

    Parameters
    ----------
    layout : Layout
    volume : Volume
        T1 in seconds; NaN where unknown.
    magnitude : ndarray
        Signal on the same grid.
    axis : str
        Direction of the vials: ``slice`` (across the slices), or the patient axis x, y or z nearest to it.
    slices : (int, int) or None
        First and last slice to look in, from 0.
    """

    def __init__(
        self,
        layout: Layout,
        volume: Volume,
        magnitude: np.ndarray,
        *,
        axis: str = "slice",
        slices: tuple[int, int] | None = None,
    ) -> None:
        self.slices = slices
        self.layout = layout
        self.pictures = Pictures(volume, axis=axis)
        rows, columns = self.pictures.pixel_mm
        if abs(rows - columns) > 0.05 * rows:
            raise DataError(
                "the slices' pixels are not square",
                found=f"{rows:.3f} x {columns:.3f} mm",
                cure="reconstruct the phantom's images with square pixels, or give a label image",
            )
        self.pixel_mm = (rows + columns) / 2
        with np.errstate(divide="ignore"):
            self.r1 = self.pictures.of(np.nan_to_num(1 / volume.data, posinf=0).clip(0, 5))
        self.magnitude = self.pictures.of(magnitude)
        self.tops = [
            float(np.percentile(d[d > 0], 99)) if (d > 0).any() else 1.0 for d in (self.magnitude, self.r1)
        ]
        self._scores: dict[int, np.ndarray] = {}
        self.radii_px = layout.diameters_mm / 2 / self.pixel_mm
        self.kinds, self.kind_of = np.unique(np.round(self.radii_px * 2) / 2, return_inverse=True)

    def scores(self, k: int) -> np.ndarray:
        """Return the circle scores of slice k, one picture for each size of vial."""
        if k not in self._scores:
            self._scores[k] = np.stack([circle_score(self.edge(k), r) for r in self.kinds])
        return self._scores[k]

    def edge(self, k: int) -> np.ndarray:
        """Return the edges of slice k."""
        return edges([self.magnitude[..., k], self.r1[..., k]], self.tops)

    def usable_slices(self) -> np.ndarray:
        """Slices with signal in at least half as many pixels as the fullest one."""
        from skimage.filters import threshold_otsu

        filled = (self.magnitude > threshold_otsu(self.magnitude) / 2).sum(axis=(0, 1))
        ks = np.flatnonzero(filled >= max(1, 0.3 * filled.max()))
        return ks if self.slices is None else ks[(ks >= self.slices[0]) & (ks <= self.slices[1])]

    def best_in_plane(self, k: int) -> tuple[float, np.ndarray, float]:
        """Return angle in degrees, centroid in mm and mean score of the best fit to slice k."""
        from scipy.ndimage import maximum_filter

        reach = max(1, round(1.5 / self.pixel_mm))
        wide = np.stack([maximum_filter(s, size=2 * reach + 1) for s in self.scores(k)])
        points = (self.layout.points_mm - self.layout.points_mm.mean(axis=0)) / self.pixel_mm
        # Correlation of the scores with the turned layout: the sum of shifted pictures.
        padded = int(np.ceil(np.linalg.norm(points, axis=1).max())) + 2
        best = (-1.0, 0.0, np.zeros(2))
        small = wide[:, ::2, ::2]
        for angle in np.arange(0, 360, TURN_STEP_DEG).tolist():
            total = _summed(small, points @ turn(angle).T / 2, self.kind_of, padded // 2 + 1)
            top = float(total.max())
            if top > best[0]:
                row, column = np.unravel_index(int(total.argmax()), total.shape)
                best = (top, angle, np.array([column, row]) * 2.0 * self.pixel_mm)
        return best[1], best[2], best[0] / len(self.layout)

    def centres_near(self, k: int, expected_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return centres (n, 2) in mm and scores of the vials of slice k nearest to where they should be."""
        scores = self.scores(k)
        centres = np.full((len(self.layout), 2), np.nan)
        found = np.zeros(len(self.layout))
        reach = REACH_MM / self.pixel_mm
        for n, (x, y) in enumerate(expected_mm / self.pixel_mm):
            picture = scores[self.kind_of[n]]
            rows = np.arange(max(0, int(y - reach)), min(picture.shape[0], int(y + reach) + 2))
            columns = np.arange(max(0, int(x - reach)), min(picture.shape[1], int(x + reach) + 2))
            if not rows.size or not columns.size:
                continue
            part = picture[np.ix_(rows, columns)]
            top = float(part.max())
            weight = np.where(part > 0.9 * top, part, 0.0) + 1e-12
            centres[n] = (
                np.array([(weight.sum(axis=0) * columns).sum(), (weight.sum(axis=1) * rows).sum()])
                / weight.sum()
                * self.pixel_mm
            )
            found[n] = top
        return centres, found

    def find(self) -> Found:
        """Find the layout; the caller judges score and extra circles and settles symmetries."""
        usable = self.usable_slices()
        tried = np.unique(usable[np.linspace(0, usable.size - 1, min(5, usable.size)).astype(int)])
        if not usable.size:
            raise DataError("the scan shows no phantom", found="no signal", cure="check the phantom's path")
        fits = [(self.best_in_plane(int(k)), int(k)) for k in tried]
        (angle, start, _), middle = max(fits, key=lambda f: f[0][2])
        pose = Pose(angle, start, np.zeros(2), float(middle))
        # From the best slice outwards, then twice again from a better pose.
        for _ in range(3):
            seen, ks, scores = [], [], []
            local = pose
            for direction in (1, -1):
                for k in [k for k in usable[:: 1 if direction > 0 else -1] if (k - middle) * direction >= 0]:
                    if direction < 0 and k == middle:
                        continue
                    expected = local.centres_mm(self.layout, k, step_mm=self.pictures.step_mm)
                    centres, score = self.centres_near(int(k), expected)
                    seen.append(centres)
                    ks.append(k)
                    scores.append(score)
            pose = _fit_pose(self.layout, np.array(seen), np.array(scores), np.array(ks), pose, self.pictures)
        order = np.argsort(ks)
        slices, score = np.array(ks)[order], np.array(scores)[order]
        clear = (score >= PRESENT).mean(axis=1) >= 0.5
        if not clear.any():
            return Found(pose, slices, np.median(score, axis=0), self.pictures, self._extra(pose, slices), [])
        runs = _runs(slices, clear)
        used = max(runs, key=len)
        whole = [slices[r] for r in runs if len(r) > 1 and (np.median(score[r], axis=0) >= PRESENT).all()]
        others = [(int(r[0]), int(r[-1])) for r in whole if len(whole) > 1]
        slices = slices[used]
        return Found(
            pose, slices, np.median(score[used], axis=0), self.pictures, self._extra(pose, slices), others
        )

    def _extra(self, pose: Pose, slices: np.ndarray) -> np.ndarray:
        """Return centres in mm of circles as clear as the vials', where the layout has none."""
        from scipy.ndimage import maximum_filter
        from skimage.feature import peak_local_max

        chosen = slices[np.linspace(0, slices.size - 1, min(7, slices.size)).astype(int)]
        radius = float(np.median(self.radii_px))
        kind = int(np.argmin(np.abs(self.kinds - radius)))
        mean = np.median([self.scores(int(k))[kind] for k in chosen], axis=0)
        # A vial's inside is free of edges, its neighbourhood with a chance circle is not.
        inside = np.hypot(*np.indices((2 * int(radius) + 1,) * 2) - int(radius)) <= 0.5 * radius
        crossed = np.median([maximum_filter(self.edge(int(k)), footprint=inside) for k in chosen], axis=0)
        bright = np.median([self.magnitude[..., k] for k in chosen], axis=0)
        expected = pose.centres_mm(self.layout, float(np.median(chosen)), step_mm=self.pictures.step_mm)
        at = np.round(expected / self.pixel_mm).astype(int)
        rows, columns = (np.clip(at[:, c], 0, mean.shape[1 - c] - 1) for c in (1, 0))
        lit = bright > 0.3 * np.median(bright[rows, columns])
        peaks = peak_local_max(mean * lit * (crossed == 0), min_distance=round(radius), threshold_abs=CERTAIN)
        centres = peaks[:, ::-1] * self.pixel_mm
        if not len(centres):
            return np.zeros((0, 2))
        apart = np.linalg.norm(centres[:, None] - expected[None], axis=-1)
        own = self.layout.diameters_mm / 2 + 0.5 * radius * self.pixel_mm
        return np.asarray(centres[(apart > own).all(axis=1)])


def _summed(scores: np.ndarray, shifts: np.ndarray, kind_of: np.ndarray, pad: int) -> np.ndarray:
    """Return the sum of score pictures shifted by (column, row) pixels, zero outside."""
    height, width = scores.shape[1:]
    padded = np.pad(scores, ((0, 0), (pad, pad), (pad, pad)))
    total = np.zeros((height, width), np.float32)
    for (column, row), kind in zip(np.round(shifts).astype(int), kind_of, strict=True):
        total += padded[kind, pad + row : pad + row + height, pad + column : pad + column + width]
    return total


def _runs(ks: np.ndarray, flags: np.ndarray) -> list[np.ndarray]:
    """Return the places in ks (rising) of every run of neighbouring slices that are flagged."""
    at = np.flatnonzero(flags)
    return np.split(at, np.flatnonzero(np.diff(ks[at]) > 1) + 1)


def _fit_pose(
    layout: Layout, seen: np.ndarray, scores: np.ndarray, ks: np.ndarray, pose: Pose, pictures: Pictures
) -> Pose:
    """Fit angle, place and drift to the centres (slice, vial, 2) that were seen, outliers left out."""
    from scipy.optimize import least_squares

    points = layout.points_mm - layout.points_mm.mean(axis=0)
    usable = (scores >= PRESENT) & np.isfinite(seen).all(axis=-1)
    if usable.sum() < 2:
        return pose
    heights = (ks - pose.middle) * pictures.step_mm
    slanted = np.ptp(heights[usable.any(axis=1)]) > 5

    def model(p: np.ndarray) -> np.ndarray:
        drift = p[3:] * slanted
        place = (points @ turn(p[0]).T)[None] + p[1:3] + (heights[:, None] * drift)[:, None, :]
        return np.asarray(((place - seen)[usable] * np.array([1.0, 1.0])).ravel())

    start = np.array([pose.angle_deg, *pose.start_mm, *pose.drift])
    fit = least_squares(model, start, loss="soft_l1", x_scale=[1.0, 1.0, 1.0, 0.05, 0.05], f_scale=0.5).x
    return Pose(float(fit[0]), fit[1:3], np.clip(fit[3:] * slanted, -MOST_TILT, MOST_TILT), pose.middle)


def settle(
    found: Found,
    layout: Layout,
    *,
    rotation_deg: float | None,
    t1_of: dict[float, np.ndarray] | None = None,
    distinguishing: str | None = None,
    expected: np.ndarray | None = None,
) -> Found:
    """Choose among the turns that a symmetric layout leaves open; refuse where nothing tells them apart.

    Parameters
    ----------
    found : Found
        From Finder.find.
    layout : Layout
    rotation_deg : float or None
        Approximate turn of the phantom in the picture (x towards y), within half a symmetry.
    t1_of : dict or None
        Turn in degrees to the vials' T1 under it; needed for a distinguishing vial.
    distinguishing : str or None
        A vial whose true T1 is the longest or shortest of all.
    expected : ndarray or None
        True T1, or -concentration: anything that rises with T1, per vial.
    """
    angles = [0.0, *layout.symmetries_deg]
    if rotation_deg is not None:
        away = [abs((found.pose.angle_deg + a - rotation_deg + 180) % 360 - 180) for a in angles]
        chosen = angles[int(np.argmin(away))]
        if min(away) > 45 or (len(angles) > 1 and np.sort(away)[1] - min(away) < 10):
            raise DataError(
                "the phantom's approximate rotation does not settle how it lies",
                file="config/phantoms.tsv",
                field="rotation_deg",
                found=f"{rotation_deg:g}; the layout fits at "
                + ", ".join(f"{(found.pose.angle_deg + a) % 360:.0f}" for a in angles),
                wanted="within 45 degrees of one of them, and clearly nearer to it",
                cure="correct rotation_deg or the layout",
            )
    elif len(angles) == 1:
        chosen = 0.0
    elif distinguishing is not None and t1_of is not None and expected is not None:
        if distinguishing not in layout.vials:
            raise DataError(
                "the distinguishing vial is not in the layout",
                file="config/phantoms.tsv",
                field="distinguishing_vial",
                found=distinguishing,
                wanted=", ".join(layout.vials),
                cure="name a vial of the layout",
            )
        n = layout.vials.index(distinguishing)
        side = 1 if expected[n] == np.nanmax(expected) else -1 if expected[n] == np.nanmin(expected) else 0
        if side == 0:
            raise DataError(
                "the distinguishing vial is neither the longest nor the shortest T1 of the layout",
                file="config/phantoms.tsv",
                field="distinguishing_vial",
                found=distinguishing,
                cure="name the vial of the longest or shortest T1, or give rotation_deg",
            )
        fits = [a for a in angles if np.nanargmax(side * t1_of[a]) == n]
        if len(fits) != 1:
            raise DataError(
                "the distinguishing vial does not settle how the phantom lies",
                file="config/phantoms.tsv",
                field="distinguishing_vial",
                found=f"{distinguishing} stands out at {len(fits)} of {len(angles)} turns",
                cure="give rotation_deg, or a layout with a marker",
            )
        chosen = fits[0]
    else:
        raise DataError(
            "the layout is symmetric: how the phantom lies cannot be told from the vials' places",
            file=layout.name,
            found=f"it covers itself when turned by {', '.join(f'{a:.0f}' for a in angles[1:])} degrees",
            wanted="one way to lay it over the scan",
            cure="give distinguishing_vial or rotation_deg in phantoms.tsv, or a marker in the layout",
        )
    return turned(found, chosen)


def turned(found: Found, angle_deg: float) -> Found:
    """Return the same finding with the layout turned further."""
    return replace(found, pose=replace(found.pose, angle_deg=(found.pose.angle_deg + angle_deg) % 360))


def with_markers(values: np.ndarray, layout: Layout) -> np.ndarray:
    """Return values of the vials as values of all objects, NaN for the markers."""
    full = np.full(len(layout), np.nan)
    full[~layout.marker] = values
    return full


def locate(
    layout: Layout,
    t1: Volume,
    magnitude: np.ndarray,
    validity: np.ndarray,
    *,
    axis: str = "slice",
    slices: tuple[int, int] | None = None,
    rotation_deg: float | None = None,
    distinguishing: str | None = None,
    expected: np.ndarray | None = None,
    show: Callable[[Found], None] | None = None,
    picture: str | Path | None = None,
) -> Found:
    """Find the layout in a scan and check that all of it is there and nothing else.

    Parameters
    ----------
    layout : Layout
    t1 : Volume
        Seconds, NaN where unknown.
    magnitude, validity : ndarray
        Signal and codes on the same grid.
    axis, slices, rotation_deg, distinguishing, expected
        See Finder and settle.
    show : callable or None
        Draws what was found, before anything is refused.
    picture : path or None
        Where it draws, for the message.

    Raises DataError where a vial is missing, one is too many, or the turn stays open.
    """
    found = Finder(layout, t1, magnitude, axis=axis, slices=slices).find()
    if show is not None:
        show(found)
    where = f"see {picture}" if picture else "look at the scan"
    missing = [v for v, score in zip(layout.vials, found.score, strict=True) if score < PRESENT]
    if missing:
        mirrored = replace(layout, points_mm=layout.points_mm * np.array([-1.0, 1.0]))
        other = Finder(mirrored, t1, magnitude, axis=axis, slices=slices).find().score
        hint = "; the mirrored layout fits: change the sign of x_mm" if (other >= PRESENT).all() else ""
        raise DataError(
            f"vials {', '.join(missing)} of the layout were not found" + hint,
            file=layout.name,
            found=f"{len(layout) - len(missing)} of {len(layout)} objects; {where}",
            wanted="every vial of the layout, shifted, turned in the plane or tilted by less than 8 degrees",
            cure="correct the layout (places, diameters), name the axis of the vials in phantoms.tsv, "
            "or give a label image in its column labels",
        )
    if found.places:
        raise DataError(
            "the layout is found at several heights of the phantom",
            file=layout.name,
            found="slices " + " and ".join(f"{a} to {b}" for a, b in found.places) + f"; {where}",
            wanted="one",
            cure="name the slices in phantoms.tsv, column slices, as 13-18 (the first slice is 0)",
        )
    if len(found.extra_mm):
        raise DataError(
            "the scan shows more vials than the layout has",
            file=layout.name,
            found=f"{len(found.extra_mm)} more than the layout's {len(layout)}; {where}",
            wanted="a layout of all vials (marker: yes for those that are not measured)",
            cure="add them to the layout, or give a label image in the column labels of phantoms.tsv",
        )
    t1_of = {}
    for angle in [0.0, *layout.symmetries_deg]:
        placed = labels(turned(found, angle), layout, t1.shape)
        # Below the range is shorter than any T1 that was read.
        seconds = np.where(validity == Validity.T1_BELOW_RANGE, 0.0, t1.data)
        t1_of[angle] = np.array(
            [
                np.nan if m else float(np.nanmedian(seconds[placed == n + 1]))
                for n, m in enumerate(layout.marker)
            ]
        )
    return settle(
        found,
        layout,
        rotation_deg=rotation_deg,
        t1_of=t1_of,
        distinguishing=distinguishing,
        expected=expected,
    )


def given_labels(image: Volume, t1: Volume, layout: Layout) -> np.ndarray:
    """Return a label image that the study brings, checked: n for the n-th object of the layout."""
    if image.shape != t1.shape or np.abs(image.affine - t1.affine).max() > 0.01:
        raise DataError(
            "the label image is not on the grid of the T1 map",
            file="config/phantoms.tsv",
            field="labels",
            found=f"{image.shape}",
            wanted=f"{t1.shape}, the same place",
            cure="draw the labels on results/phantoms/<phantom>/T1map.nii.gz",
        )
    there = set(np.unique(np.round(image.data).astype(int))) - {0}
    wanted = {n + 1 for n, m in enumerate(layout.marker) if not m}
    if not wanted <= there or there - set(range(1, len(layout) + 1)):
        raise DataError(
            "the label image and the layout differ in their vials",
            file="config/phantoms.tsv",
            field="labels",
            found=", ".join(str(n) for n in sorted(there)),
            wanted=f"1 to {len(layout)}, the rows of the layout",
            cure="number the vials in the order of the layout",
        )
    return np.round(image.data).astype(np.uint8)


def labels(found: Found, layout: Layout, shape: tuple[int, int, int]) -> np.ndarray:
    """Return a label image of the vials' cores: n for the n-th object of the layout, 0 elsewhere."""
    result = np.zeros(shape, np.uint8)
    view = found.pictures.of(result)
    rows_mm, columns_mm = found.pictures.pixel_mm
    y, x = np.arange(view.shape[0]) * rows_mm, np.arange(view.shape[1]) * columns_mm
    core = np.maximum(
        layout.diameters_mm / 2 - WALL_VOXELS * max(rows_mm, columns_mm), layout.diameters_mm / 4
    )
    for k in found.slices:
        centres = found.pose.centres_mm(layout, float(k), step_mm=found.pictures.step_mm)
        for n, (cx, cy) in enumerate(centres):
            view[..., k][np.hypot(y[:, None] - cy, x[None] - cx) <= core[n]] = n + 1
    return result


def measure(
    t1: Volume,
    validity: np.ndarray,
    label_image: np.ndarray,
    layout: Layout,
    *,
    axis: str = "slice",
    sd_s: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return T1 of every vial of a label image, one row each.

    The median over the core, voxels beyond the range of the sequence counted at the end where they are;
    slices whose median is off that of the vial's middle third by more than 2 % and noise are left out.
    Columns: vial, n_voxels, n_slices, t1_s (NaN where more than half of the core is beyond the range),
    t1_sd_s (over the voxels, 1.4826 MAD), t1_se_s, known (share of voxels with a T1), model_sd_s (median of
    the model's own SD).
    """
    pictures = Pictures(t1, axis=axis)
    values = np.where(validity == Validity.T1_BELOW_RANGE, -np.inf, t1.data).astype(np.float64)
    values = np.where(validity == Validity.T1_ABOVE_RANGE, np.inf, values)
    empty = validity == Validity.NO_SIGNAL
    values, label, empty = pictures.of(values), pictures.of(label_image), pictures.of(empty)
    spread = None if sd_s is None else pictures.of(sd_s)
    rows = []
    for n, vial in enumerate(layout.vials):
        if layout.marker[n]:
            continue
        inside = (label == n + 1) & ~empty & ~np.isnan(values)
        ks = np.flatnonzero(inside.any(axis=(0, 1)))
        row: dict[str, Any] = {"vial": vial, "n_voxels": 0, "n_slices": 0, "known": 0.0}
        row |= dict.fromkeys(("t1_s", "t1_sd_s", "t1_se_s", "model_sd_s"), np.nan)
        if ks.size:
            whole = np.median([inside[..., k].sum() for k in ks])
            ks = np.array([k for k in ks if inside[..., k].sum() >= 0.7 * whole])
            cores = [values[..., k][inside[..., k]] for k in ks]
            medians, sds = (np.array([f(c) for c in cores]) for f in (np.median, _robust_sd))
            if np.isfinite(medians).mean() >= 0.5:
                # The middle of the vial is surely whole; slices that agree with it are too.
                third = slice(ks.size // 3, ks.size - ks.size // 3)
                middle = np.median(medians[third][np.isfinite(medians[third])])
                allowed = max(HOMOGENEOUS * middle, 4 * 1.2533 * np.nanmedian(sds) / np.sqrt(whole))
                agree = np.abs(medians - middle) <= allowed
                ks = ks[agree] if agree.any() else ks[third]
            core = values[..., ks][inside[..., ks]]
            known = core[np.isfinite(core)]
            row |= {"n_voxels": core.size, "n_slices": ks.size, "known": known.size / core.size}
            median = float(np.median(core))
            if np.isfinite(median) and row["known"] >= 0.5:
                sd = _robust_sd(core)
                row |= {"t1_s": median, "t1_sd_s": sd, "t1_se_s": 1.2533 * sd / np.sqrt(core.size)}
                if spread is not None:
                    row["model_sd_s"] = float(np.nanmedian(spread[..., ks][inside[..., ks]]))
        rows.append(row)
    return pd.DataFrame(rows)


def _robust_sd(values: np.ndarray) -> float:
    """Return 1.4826 median absolute deviations; NaN where the median is not finite."""
    if not np.isfinite(np.median(values)):
        return float("nan")
    return float(1.4826 * np.median(np.abs(values - np.median(values))))
