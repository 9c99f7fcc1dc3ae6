"""Physician contours: RTSTRUCT to polygons, polygons to a solid, the solid to coverage of voxels."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import shapely

from . import geometry
from .errors import DataError


@dataclass
class Structure:
    """One region of interest: its closed planar contours, each (n, 3) LPS mm."""

    name: str
    number: int
    frame_of_reference_uid: str
    contours: list[np.ndarray] = field(default_factory=list)
    problem: str = ""


def read_rtstruct(path: str | Path) -> list[Structure]:
    """Read all structures of an RTSTRUCT file; a structure that cannot be used says why in ``problem``."""
    try:
        ds = pydicom.dcmread(path)
        rois = {int(r.ROINumber): r for r in ds.StructureSetROISequence}
    except (OSError, AttributeError, ValueError) as error:
        raise DataError(
            "the RTSTRUCT cannot be read", found=type(error).__name__, cure="export the structure set again"
        ) from error
    found = []
    for item in ds.get("ROIContourSequence", []):
        number = int(item.ReferencedROINumber)
        roi = rois.pop(number, None)
        if roi is None:
            continue
        one = Structure(
            str(roi.get("ROIName", "")), number, str(roi.get("ReferencedFrameOfReferenceUID", ""))
        )
        for contour in item.get("ContourSequence", []):
            points = np.array(contour.get("ContourData", None) or [], float).reshape(-1, 3)
            if str(contour.get("ContourGeometricType", "")).upper() != "CLOSED_PLANAR" or len(points) < 3:
                one.problem = f"a contour that is no closed polygon ({len(points)} points)"
            else:
                one.contours.append(points)
        if not one.contours and not one.problem:
            one.problem = "no contours"
        found.append(one)
    for number, roi in rois.items():
        found.append(Structure(str(roi.get("ROIName", "")), number, "", [], "no contours"))
    return sorted(found, key=lambda s: s.number)


def safe_name(name: str) -> str:
    """Return a name fit for tables and file names: letters, digits, dot, dash and underscore.

    >>> safe_name("../../GTV 1")
    'GTV_1'
    """
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.-]+", "_", ascii_only).strip("._-")[:64]


def usable(structures: list[Structure], pattern: str) -> tuple[list[Structure], list[tuple[str, str]]]:
    """Split structures into tumours (name matches the pattern, any case) and those set aside with reason.

    Raises DataError when a tumour cannot be used or two tumours have one name.
    """
    tumours: list[Structure] = []
    aside: list[tuple[str, str]] = []
    for one in structures:
        if not re.match(pattern, one.name, re.I):
            aside.append((safe_name(one.name), "not a tumour by its name"))
            continue
        name = safe_name(one.name)
        if one.problem:
            raise DataError(
                f"the contours of {name} cannot be used",
                field=name,
                found=one.problem,
                wanted="closed planar polygons",
                cure="repair or remove the structure in the planning system",
            )
        if not name or name in {t.name for t in tumours}:
            raise DataError(
                "two tumours have one name, or a name without letters",
                field="ROIName",
                found=name,
                cure="give every structure a name of its own",
            )
        tumours.append(Structure(name, one.number, one.frame_of_reference_uid, one.contours))
    return tumours, aside


class Solid:
    """A continuous solid: in every slab around a contour plane, the polygons of that plane (even-odd).

    The slab of a plane reaches half-way to its neighbours; the outermost reach half the usual spacing
    beyond. The spacing is that of the contours, whatever SliceThickness says; planes may be oblique.
    Even-odd handles holes drawn as keyholes and as inner polygons alike.
    """

    def __init__(self, contours: list[np.ndarray]) -> None:
        everything = np.concatenate(contours)
        largest = max(contours, key=lambda c: np.ptp(c, axis=0).max())
        _, sizes, axes = np.linalg.svd(largest - largest.mean(axis=0), full_matrices=False)
        if sizes[2] > 0.05 * np.sqrt(len(largest)):
            raise DataError("a contour is not planar", found=f"{sizes[2]:.2f} mm", cure="draw it again")
        self.normal = axes[2]
        self.axes = axes[:2]
        heights = np.array([float(np.mean(c @ self.normal)) for c in contours])
        order = np.argsort(heights)
        planes: list[list[int]] = []
        for place in order:
            if planes and heights[place] - heights[planes[-1][0]] < 0.05:
                planes[-1].append(int(place))
            else:
                planes.append([int(place)])
        self.heights = np.array([heights[p[0]] for p in planes])
        gaps = np.diff(self.heights)
        self.spacing_mm = float(np.median(gaps)) if gaps.size else 1.0
        self.shapes = []
        for plane in planes:
            shape = shapely.Polygon()
            for place in plane:
                shape = shape.symmetric_difference(
                    shapely.make_valid(shapely.Polygon(contours[place] @ self.axes.T))
                )
            shapely.prepare(shape)
            self.shapes.append(shape)
        self.box = np.array([everything.min(axis=0), everything.max(axis=0)])

    @property
    def edges(self) -> np.ndarray:
        """Heights along the normal that bound the slabs; missing planes are bridged from both sides."""
        middle = (self.heights[1:] + self.heights[:-1]) / 2
        half = self.spacing_mm / 2
        return np.concatenate([[self.heights[0] - half], middle, [self.heights[-1] + half]])

    @property
    def volume_ml(self) -> float:
        """Volume of the solid: area times slab height."""
        return float(sum(s.area * h for s, h in zip(self.shapes, np.diff(self.edges), strict=True))) / 1000

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return True for points, shape (n, 3) LPS mm, inside the solid."""
        slab = np.searchsorted(self.edges, points @ self.normal) - 1
        inside = np.zeros(len(points), bool)
        flat = points @ self.axes.T
        for number, shape in enumerate(self.shapes):
            here = np.flatnonzero(slab == number)
            inside[here] = shapely.contains_xy(shape, flat[here, 0], flat[here, 1])
        return inside


def coverage(
    solid: Solid,
    shape: tuple[int, int, int],
    affine: np.ndarray,
    *,
    matrix: np.ndarray | None = None,
    supersampling: int = 5,
) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """Return the fraction of each voxel that lies inside a solid, on its bounding box in a grid.

    Parameters
    ----------
    solid : Solid
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
