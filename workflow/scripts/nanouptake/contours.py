"""Physician contours: RTSTRUCT to polygons, polygons to a solid, the solid to coverage of voxels."""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pydicom
import shapely
from pydicom.errors import BytesLengthException, InvalidDicomError
from scipy import ndimage

from . import geometry
from .errors import DAMAGED, DataError
from .images import Volume, load

UNREADABLE: tuple[type[Exception], ...] = (csv.Error, InvalidDicomError, BytesLengthException, *DAMAGED)


@dataclass
class Structure:
    """One region of interest: its closed planar contours, each (n, 3) LPS mm."""

    name: str
    number: int
    frame_of_reference_uid: str
    contours: list[np.ndarray] = field(default_factory=list)
    problem: str = ""
    referenced_series_uid: str = ""


@dataclass
class RTStruct:
    """An RTSTRUCT file: iterating over it gives its structures in the order of their numbers."""

    frame_of_reference_uids: list[str]
    referenced_series_uids: list[str]
    structures: list[Structure]

    def __iter__(self) -> Iterator[Structure]:
        return iter(self.structures)

    def __len__(self) -> int:
        return len(self.structures)


def read_rtstruct(path: str | Path) -> RTStruct:
    """Read all structures of an RTSTRUCT file; one that cannot be used says why in ``problem``.

    Raises DataError for a file that is no readable RTSTRUCT.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # they print values
            return _parse(pydicom.dcmread(path))
    except UNREADABLE as error:
        raise DataError(
            "the RTSTRUCT cannot be read",
            field="RTSTRUCT",
            found=type(error).__name__,
            wanted="a whole RT structure set",
            cure="export the structure set again (it may be truncated)",
        ) from error


def _parse(ds: pydicom.Dataset) -> RTStruct:
    rois = {int(r.ROINumber): r for r in ds.StructureSetROISequence}
    frames: list[str] = []
    series: dict[str, list[str]] = {}
    for frame in ds.get("ReferencedFrameOfReferenceSequence", None) or []:
        uid = str(frame.get("FrameOfReferenceUID", ""))
        frames.append(uid)
        for study in frame.get("RTReferencedStudySequence", None) or []:
            for item in study.get("RTReferencedSeriesSequence", None) or []:
                series.setdefault(uid, []).append(str(item.get("SeriesInstanceUID", "")))
    drawn = {int(i.ReferencedROINumber): i for i in ds.get("ROIContourSequence", None) or []}
    found = []
    for number, roi in sorted(rois.items()):
        uid = str(roi.get("ReferencedFrameOfReferenceUID", ""))
        own = series.get(uid, [])
        one = Structure(str(roi.get("ROIName", "")), number, uid)
        one.referenced_series_uid = own[0] if len(own) == 1 else ""
        items = list(drawn[number].get("ContourSequence", None) or []) if number in drawn else []
        kinds = {str(i.get("ContourGeometricType", "")).upper() for i in items}
        if not items:
            one.problem = "no contours"
        elif kinds == {"POINT"}:
            one.problem = "only points"
        for item in [] if one.problem else items:
            values = np.array(item.get("ContourData", None) or [], float)
            kind = str(item.get("ContourGeometricType", "")).upper()
            if kind != "CLOSED_PLANAR" or values.size < 9 or values.size % 3 or not np.isfinite(values).all():
                one.problem = (
                    f"a contour that is no closed polygon ({kind or 'no type'}, {values.size} numbers)"
                )
            else:
                one.contours.append(values.reshape(-1, 3))
        found.append(one)
    return RTStruct(frames, [u for uids in series.values() for u in uids], found)


def safe_name(name: str) -> str:
    """Return a label fit for tables and file names: at most 64 letters, digits, dots, dashes, underscores.

    Blanks become underscores. A name that loses anything else gets 8 hexadecimal digits of its hash, so
    that two names never share a label by the loss.

    >>> safe_name("GTV 1")
    'GTV_1'
    >>> safe_name("../../GTV 1")
    'GTV_1-85c9b5ce'
    """
    plain = re.sub(r"\s+", "_", name.strip())
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", plain):
        return plain
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    short = re.sub(r"[^A-Za-z0-9.-]+", "_", ascii_only).strip("._-")[:55]
    return f"{short or 'unnamed'}-{_digest(name)}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def usable(
    structures: RTStruct | list[Structure], pattern: str
) -> tuple[list[Structure], list[tuple[str, str]]]:
    """Split structures into tumours (name matches the pattern, any case) and those set aside with reason.

    Tumours come back under their safe names. A structure in which nothing is drawn (no contours, only
    points) is set aside. Raises DataError where something is drawn that cannot be used, and where two
    tumours have one name: leaving it out would lose a tumour unsaid.
    """
    tumours: list[Structure] = []
    aside: list[tuple[str, str]] = []
    for one in structures:
        name = safe_name(one.name)
        if not re.match(pattern, one.name, re.IGNORECASE):
            aside.append((name, "not a tumour by its name"))
        elif one.problem in ("no contours", "only points"):
            aside.append((name, f"a tumour by its name, but {one.problem}"))
        elif one.name.strip() in {t.name.strip() for t in tumours}:
            raise DataError(
                "two tumours have one name",
                field="ROIName",
                found=name,
                cure="give every structure a name of its own",
            )
        else:
            _refuse(one)
            tumours.append(one)
    labels = [safe_name(t.name).lower() for t in tumours]
    named = []
    for one, label in zip(tumours, labels, strict=True):
        name = safe_name(one.name)
        if labels.count(label) > 1:
            name = f"{name[:55]}-{_digest(one.name)}"
        named.append(replace(one, name=name))
    return named, aside


def label_names(folder: Path, pattern: str) -> tuple[list[Structure], list[tuple[str, str]]]:
    """Return the tumours of the table (index, name) beside a label image, and the labels set aside."""
    tables = sorted(folder.rglob("*_dseg.tsv"))
    if len(tables) != 1:
        raise DataError(
            "the label image has no table of names, or several",
            file=str(folder),
            found=[p.name for p in tables],
            wanted="one …_dseg.tsv with the columns index and name",
            cure="write it beside the label image",
        )
    try:
        with tables[0].open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t"))
        structures = [Structure(r["name"].strip(), int(r["index"]), "") for r in rows]
    except UNREADABLE as error:
        raise DataError(
            "the table of names cannot be used",
            file=str(tables[0]),
            found=f"{type(error).__name__}: {error}",
            wanted="the columns index (a whole number) and name, separated by tabs, in UTF-8",
            cure="correct the table",
        ) from error
    return usable(structures, pattern)


def _refuse(one: Structure) -> None:
    """Raise DataError for a structure that cannot be used."""
    if one.problem:
        name = safe_name(one.name)
        raise DataError(
            f"the contours of {name} cannot be used",
            field=name,
            found=one.problem,
            wanted="closed planar polygons",
            cure="repair or remove the structure in the planning system",
        )


def _even_odd(polygons: list[np.ndarray]) -> shapely.Geometry:
    """Return the area inside an odd number of the polygons, each (n, 2): holes of either kind stay open."""
    shape = shapely.Polygon()
    for points in polygons:
        parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(points)))
        areas = shapely.union_all(parts[shapely.area(parts) > 0])
        shape = shape.symmetric_difference(areas)
    return shape


class Solid:
    """A continuous solid through a stack of planar contours.

    Between two planes the in-plane signed distances are interpolated, and the level is moved so that the
    area is linear between the planes; beyond the outermost planes the area falls linearly to zero within
    one spacing. The volume is that of slabs, sum of area times spacing, and the surface has no stairs.
    The spacing is the median of the contours' own, whatever SliceThickness says; planes may be oblique.
    A gap of at most 2.5 spacings (a plane was missed) is bridged; beyond a wider one the solid goes on as
    a part of its own. Even-odd handles holes drawn as keyholes and as inner polygons alike.

    Chosen by simulation: 40 (at 25 mm 12) randomly turned ellipsoids, bias of volume in % +- SD, and in
    brackets the root mean square error of the coverage of surface voxels of 1 mm.

    =========  ==========  ==================  ==================  ==================
    diameter   spacing     slabs               signed distance     this model
    =========  ==========  ==================  ==================  ==================
    5 mm       1 mm        -0.2 +- 1.6 (0.13)  -1.3 +- 1.3 (0.11)  +0.2 +- 1.6 (0.10)
    5 mm       1.25 mm     +0.1 +- 2.9 (0.16)  -1.9 +- 3.0 (0.15)  -0.3 +- 2.3 (0.13)
    5 mm       3 mm        +6.6 +- 9.1 (0.37)  +5.1 +- 11 (0.37)   +6.4 +- 8.7 (0.34)
    10 mm      1 mm        -0.1 +- 0.4 (0.13)  -0.7 +- 0.5 (0.09)  -0.1 +- 0.4 (0.08)
    10 mm      1.25 mm     -0.1 +- 0.6 (0.16)  -1.1 +- 0.7 (0.12)  -0.1 +- 0.6 (0.10)
    10 mm      3 mm        +0.3 +- 2.6 (0.34)  -1.5 +- 3.0 (0.31)  +0.3 +- 2.4 (0.25)
    25 mm      1 mm        -0.1 +- 0.1 (0.13)  -0.3 +- 0.1 (0.07)  -0.1 +- 0.0 (0.06)
    25 mm      1.25 mm     -0.1 +- 0.1 (0.16)  -0.4 +- 0.1 (0.09)  -0.1 +- 0.1 (0.07)
    25 mm      3 mm        -0.1 +- 0.4 (0.37)  -0.8 +- 0.4 (0.24)  -0.1 +- 0.3 (0.17)
    =========  ==========  ==================  ==================  ==================

    Parameters
    ----------
    contours : list of (n, 3) ndarray, or Structure
        Closed polygons in LPS mm.
    spacing_mm : float or None
        Distance between planes, needed only where there is a single plane.

    Raises DataError for a structure with a problem, contours that are not planar or not parallel, and a
    single plane without a spacing.
    """

    def __init__(self, contours: list[np.ndarray] | Structure, *, spacing_mm: float | None = None) -> None:
        if isinstance(contours, Structure):
            _refuse(contours)
            contours = contours.contours
        centred = np.concatenate([c - c.mean(axis=0) for c in contours])
        axes = np.linalg.svd(centred, full_matrices=False)[2]
        axes *= np.sign(axes[np.arange(3), abs(axes).argmax(axis=1)])[:, None]
        self.axes, self.normal = axes[:2], axes[2]
        uneven = max(float(np.ptp(c @ self.normal)) for c in contours)
        if uneven > 0.25:
            raise DataError(
                "the contours are not planar or not parallel",
                found=f"{uneven:.2f} mm out of the plane",
                wanted="at most 0.25 mm",
                cure="draw the structure again on one series",
            )
        height = np.array([float(np.mean(c @ self.normal)) for c in contours])
        planes: list[list[int]] = []
        for place in np.argsort(height, kind="stable"):
            if planes and height[place] - height[planes[-1][0]] < 0.05:
                planes[-1].append(int(place))
            else:
                planes.append([int(place)])
        self.heights = np.array([height[p].mean() for p in planes])
        gaps = np.diff(self.heights)
        if not gaps.size and spacing_mm is None:
            raise DataError(
                "a structure drawn on a single plane has no known thickness",
                found="1 plane",
                wanted="at least 2",
                cure="draw the structure on every plane it reaches",
            )
        self.spacing_mm = float(np.median(gaps)) if gaps.size else float(spacing_mm or 0)
        self.shapes = [_even_odd([contours[i] @ self.axes.T for i in p]) for p in planes]
        self._stack(gaps > 2.5 * self.spacing_mm)
        everything = np.concatenate(contours)
        self.box = np.array([everything.min(axis=0), everything.max(axis=0)])

    def _stack(self, split: np.ndarray) -> None:
        """Prepare signed distances on a grid of the plane, with a plane of no area where a part ends."""
        s = self.spacing_mm
        last = len(self.heights) - 1
        nodes: list[tuple[int, float, float]] = []
        for i, (z, shape) in enumerate(zip(self.heights, self.shapes, strict=True)):
            nodes += [(i, z - s, 0.0)] if i == 0 or split[i - 1] else []
            nodes.append((i, z, shape.area))
            nodes += [(i, z + s, 0.0)] if i == last or split[i] else []
        source, z, area = zip(*nodes, strict=True)
        self._z, self._area = np.array(z), np.array(area)
        bounds = np.array([b.bounds for b in self.shapes if not b.is_empty])
        low, high = bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)
        self._step = max(0.25, float((high - low).max()) / 128)
        self._low = low - 3 * self._step
        u, v = (np.arange(a, b + 3 * self._step, self._step) for a, b in zip(self._low, high, strict=True))
        x, y = np.meshgrid(u, v, indexing="ij")
        points = shapely.points(x.ravel(), y.ravel())
        maps = []
        for shape in self.shapes:
            away = shapely.distance(shape.boundary, points)
            inside = shapely.contains_xy(shape, x.ravel(), y.ravel())
            maps.append(np.where(inside, away, -away).reshape(x.shape))
        self._maps = np.stack([maps[i] for i in source])
        # between planes: the level whose area is the wanted one
        place, level = [0.0], [float(self._maps[0].max())]
        for i in range(len(source) - 1):
            for t in np.linspace(0, 1, 9)[1:]:
                wanted = ((1 - t) * area[i] + t * area[i + 1]) / self._step**2
                mixed = ((1 - t) * self._maps[i] + t * self._maps[i + 1]).ravel()
                k = min(int(round(wanted)), mixed.size - 1)
                exact = t == 1 and area[i + 1] > 0
                place.append(i + t)
                level.append(0.0 if exact else -float(np.partition(-mixed, k)[k]))
            if area[i] > 0:
                level[-9] = 0.0
        self._place, self._level = np.array(place), np.array(level)

    @property
    def volume_ml(self) -> float:
        """Volume of the solid: the area, linear between planes, over the height."""
        return float(np.trapezoid(self._area, self._z)) / 1000

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return True for points, shape (n, 3) LPS mm, inside the solid."""
        height = points @ self.normal
        inside = np.zeros(len(points), bool)
        near = np.flatnonzero((height > self._z[0]) & (height < self._z[-1]))
        place = np.interp(height[near], self._z, np.arange(len(self._z)))
        flat = (points[near] @ self.axes.T - self._low) / self._step
        away = ndimage.map_coordinates(self._maps, [place, *flat.T], order=1, mode="constant", cval=-1e9)
        inside[near] = away > np.interp(place, self._place, self._level)
        return inside


class Voxels:
    """A solid given as one label of a label image: where its linearly interpolated mask exceeds one half.

    Parameters
    ----------
    labels : Volume
        Whole numbers; the affine leads to the contours' LPS mm.
    label : int
        The number of this solid. Raises DataError where no voxel has it.
    """

    def __init__(self, labels: Volume, label: int) -> None:
        index = np.argwhere(labels.data == label)
        if not len(index):
            raise DataError(
                f"no voxel has the label {label}",
                field="index",
                found=f"labels up to {int(labels.data.max())}",
                cure="correct the table of names beside the label image",
            )
        self.spacing_mm = float(labels.spacing_mm.max())
        self.volume_ml = len(index) * labels.voxel_ml
        low = index.min(axis=0) - 1
        self._mask = np.pad(
            labels.data[tuple(map(slice, index.min(axis=0), index.max(axis=0) + 1))] == label, 1
        )
        corner = np.eye(4)
        corner[:3, 3] = low
        self._to_index = np.linalg.inv(labels.affine @ corner)
        corners = np.array(np.meshgrid(*zip(low, index.max(axis=0) + 1, strict=True))).reshape(3, -1).T
        points = geometry.apply(labels.affine, corners)
        self.box = np.array([points.min(axis=0), points.max(axis=0)])

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return True for points, shape (n, 3) LPS mm, inside the solid."""
        index = geometry.apply(self._to_index, points).T
        return ndimage.map_coordinates(self._mask.astype(np.float32), index, order=1) > 0.5


def solids_of(tumours: list[dict], drawn: str | Path) -> list[Solid | Voxels]:
    """Return the solids of the tumours of contours.json; drawn is the label image, if they are labels."""
    return [
        Voxels(load(drawn), one["label"]) if "label" in one else Solid([np.array(c) for c in one["contours"]])
        for one in tumours
    ]


def pixel_centre_mask(structure: Structure, volume: Volume) -> np.ndarray:
    """Return the voxels, bool of the volume's shape, whose centres lie inside the contours (even-odd).

    The contours must lie on the volume's own slices, within a fifth of their distance; DataError else.
    """
    _refuse(structure)
    index = [geometry.apply(np.linalg.inv(volume.affine), c) for c in structure.contours]
    axis = int(np.argmin(np.max([np.ptp(c, axis=0) for c in index], axis=0)))
    others = [a for a in range(3) if a != axis]
    mask = np.zeros(volume.shape, bool)
    view = np.moveaxis(mask, axis, 0)
    slices: dict[int, list[np.ndarray]] = {}
    for c in index:
        number = round(float(c[:, axis].mean()))
        if abs(c[:, axis] - number).max() > 0.2 or not 0 <= number < volume.shape[axis]:
            raise DataError(
                "the contours do not lie on the slices of the image",
                field=safe_name(structure.name),
                found=f"slice {c[:, axis].mean():.2f}",
                wanted=f"whole numbers from 0 to {volume.shape[axis] - 1}",
                cure="give the series on which the contours were drawn",
            )
        slices.setdefault(number, []).append(c[:, others])
    x, y = np.meshgrid(*[np.arange(volume.shape[a]) for a in others], indexing="ij")
    for number, polygons in slices.items():
        shape = _even_odd(polygons)
        shapely.prepare(shape)
        view[number] = shapely.contains_xy(shape, x.ravel(), y.ravel()).reshape(x.shape)
    return mask


def coverage(
    solid: Solid | Voxels,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    *,
    matrix: np.ndarray | None = None,
    supersampling: int = 5,
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Return the fraction of each voxel that lies inside a solid, on its bounding box in a grid.

    Parameters
    ----------
    solid : Solid or Voxels
    shape, affine
        The grid; affine from voxel to LPS mm.
    matrix : (4, 4) ndarray or None
        Maps points of the grid's space to the contours' space.
    supersampling : int
        Points per voxel edge, at the centres of equal cells.

    Returns
    -------
    box : three slices of the grid (empty where the solid lies outside)
    fraction : float32 ndarray of the box's shape, 0 to 1
    """
    to_contours = (np.eye(4) if matrix is None else matrix) @ affine
    corners = (
        np.array(np.meshgrid(*(solid.box + [[-solid.spacing_mm], [solid.spacing_mm]]).T)).reshape(3, -1).T
    )
    index = geometry.apply(np.linalg.inv(to_contours), corners)
    low = np.clip(np.floor(index.min(axis=0)).astype(int), 0, shape)
    high = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, low, shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    steps = (np.arange(supersampling) + 0.5) / supersampling - 0.5
    fine = [(np.arange(a, b)[:, None] + steps).ravel() for a, b in zip(low, high, strict=True)]
    size = high - low
    if not size.all():
        return box, np.zeros(size, np.float32)
    grid = np.stack(np.meshgrid(*fine, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = solid.contains(geometry.apply(to_contours, grid)).reshape(
        size[0], supersampling, size[1], supersampling, size[2], supersampling
    )
    return box, inside.mean(axis=(1, 3, 5)).astype(np.float32)


def label_image(
    parts: list[tuple[tuple[slice, slice, slice], np.ndarray]], shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels (uint16, 1..n where a solid covers more than half) and the largest coverage (float32).

    Where solids overlap, the larger coverage wins.
    """
    labels = np.zeros(shape, np.uint16)
    covered = np.zeros(shape, np.float32)
    for number, (box, fraction) in enumerate(parts, start=1):
        wins = fraction > covered[box]
        labels[box] = np.where(wins & (fraction > 0.5), number, labels[box])
        covered[box] = np.where(wins, fraction, covered[box])
    return labels, covered
