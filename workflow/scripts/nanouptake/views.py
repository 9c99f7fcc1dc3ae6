"""Pictures in which a reader can judge a registration: two images on one section, and the contour."""

from __future__ import annotations

import base64
import io

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave
from skimage.measure import find_contours

from .figures import STYLE, VERMILION
from .images import Volume
from .profiles import sample

HALF_MM = 100


def _png(plane: np.ndarray, limits: tuple[float, float] | None = None) -> str:
    """Return a grey PNG in base64; without limits from the 1st to the 99th percentile."""
    known = plane[np.isfinite(plane)]
    if limits is None:
        limits = tuple(np.percentile(known, [1, 99])) if known.size else (0.0, 1.0)
    shown = np.nan_to_num(plane, nan=limits[0])
    buffer = io.BytesIO()
    high = max(limits[1], limits[0] + 1e-9)
    metadata: dict = {"Software": None}  # the library's version is not part of a result
    imsave(buffer, shown, cmap="gray", vmin=limits[0], vmax=high, format="png", metadata=metadata)
    return base64.b64encode(buffer.getvalue()).decode()


def registration_views(
    *,
    pre: Volume,
    post: Volume,
    others: list[tuple[str, Volume, np.ndarray]],
    coverage: np.ndarray,
    labels: np.ndarray,
) -> list[dict]:
    """Return views of post and of other images over pre, axial through the largest tumour.

    Parameters
    ----------
    pre, post : Volume
        T1 in seconds on the analysis grid.
    others : list of (name, volume, matrix)
        Images on their own grids; the matrix maps points of the analysis space to theirs, LPS mm.
    coverage, labels : ndarray
        On the analysis grid.

    Returns
    -------
    list of dict
        name, below, above, below_png, above_png (base64), size, path (SVG, in pixels of 1 mm).
    """
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    own = np.argwhere(labels == counts.argmax()) if counts.any() else np.argwhere(np.isfinite(pre.data))
    affine = pre.affine
    tumour = affine[:3, :3] @ own.mean(axis=0) + affine[:3, 3]
    middle = affine[:3, :3] @ ((np.array(pre.shape) - 1) / 2) + affine[:3, 3]
    axis = np.arange(-HALF_MM, HALF_MM) + 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    points = np.stack([middle[0] + x.ravel(), middle[1] + y.ravel(), np.full(x.size, tumour[2])], axis=1)

    def plane(volume: Volume, at: np.ndarray = points) -> np.ndarray:
        return sample(volume, at).reshape(x.shape)

    cover = np.nan_to_num(plane(pre.like(coverage)))
    lines = [
        "M" + "L".join(f"{c + 0.5:.1f} {r + 0.5:.1f}" for r, c in line) for line in find_contours(cover, 0.5)
    ]
    limits = (0.3, 3.0)
    below = _png(plane(pre), limits)
    common = {"below": "pre T1", "below_png": below, "size": 2 * HALF_MM, "path": "".join(lines)}
    views = [{"name": "Post on pre", "above": "post T1", "above_png": _png(plane(post), limits)} | common]
    for name, volume, matrix in others:
        picture = _png(plane(volume, points @ matrix[:3, :3].T + matrix[:3, 3]))
        views.append({"name": f"{name} on pre", "above": name, "above_png": picture} | common)
    return views


def propagation_figure(views: list[dict]) -> Figure:
    """Planning MR, MPRAGE, T1 before and T1 after on one section with the contour (the paper's figure 4).

    Parameters
    ----------
    views : list of dict
        From registration_views.
    """
    with mpl.rc_context(STYLE):
        planes = [(v["above"], v["above_png"]) for v in reversed(views)]
        planes.insert(len(planes) - 1, (views[0]["below"], views[0]["below_png"]))
        figure = Figure(figsize=(3 * len(planes), 3.2), layout="constrained")
        for axes, (name, png) in zip(figure.subplots(1, len(planes)), planes, strict=True):
            size = views[0]["size"]
            axes.imshow(imread(io.BytesIO(base64.b64decode(png))), extent=(0, size, size, 0))
            for line in filter(None, views[0]["path"].split("M")):
                x, y = np.array([point.split() for point in line.split("L")], float).T
                axes.plot(x, y, color=VERMILION, lw=1)
            axes.set_title(name)
            axes.set_axis_off()
        return figure
