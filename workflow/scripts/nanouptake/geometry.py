"""Points, rigid transforms and ITK transform files, all in LPS millimetres."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .errors import DataError

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS <-> LPS


def rotation(*, x_deg: float = 0.0, y_deg: float = 0.0, z_deg: float = 0.0) -> np.ndarray:
    """Return the 3 x 3 rotation Rz Ry Rx of the given angles in degrees.

    >>> rotation(z_deg=90.0).round(6)[:, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    a, b, c = np.deg2rad([x_deg, y_deg, z_deg])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def rigid(
    linear: np.ndarray, translation_mm: np.ndarray, *, centre_mm: np.ndarray | None = None
) -> np.ndarray:
    """Return the 4 x 4 matrix of x -> linear (x - centre) + centre + translation."""
    centre = np.zeros(3) if centre_mm is None else np.asarray(centre_mm, float)
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.asarray(translation_mm, float) + centre - linear @ centre
    return matrix


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points, shape (..., 3), by a 4 x 4 matrix."""
    points = np.asarray(points, float)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def displacement_mm(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return the distance between the images of each point under two transforms, in mm."""
    return np.linalg.norm(apply(a, points) - apply(b, points), axis=-1)


def rotation_angle_deg(matrix: np.ndarray) -> float:
    """Return the rotation angle of a rigid 4 x 4 matrix in degrees.

    >>> round(rotation_angle_deg(rigid(rotation(x_deg=30.0), np.zeros(3))), 6)
    30.0
    """
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return float(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))


def write_itk(path: str | Path, matrix: np.ndarray) -> None:
    """Write a 4 x 4 matrix (fixed points to moving points, LPS mm) as an ITK text transform."""
    numbers = " ".join(repr(float(v)) for v in [*matrix[:3, :3].ravel(), *matrix[:3, 3]])
    Path(path).write_text(
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )


def read_itk(path: str | Path) -> np.ndarray:
    """Read an ITK text transform file with one rigid or affine transform as a 4 x 4 matrix."""
    text = Path(path).read_text()
    kinds = re.findall(r"^Transform: (\S+)$", text, re.M)
    parameters = re.search(r"^Parameters: (.+)$", text, re.M)
    centre = re.search(r"^FixedParameters: (.+)$", text, re.M)
    affine_like = len(kinds) == 1 and re.match(r"(MatrixOffset|Affine)\w*_double_3_3$", kinds[0])
    if not affine_like or parameters is None or centre is None:
        raise DataError(
            "not a single affine ITK transform",
            file=str(path),
            found=kinds or "no transform",
            wanted="one AffineTransform_double_3_3",
            cure="write the transform as an ITK text file with one matrix",
        )
    values = np.array(parameters[1].split(), float)
    return rigid(values[:9].reshape(3, 3), values[9:], centre_mm=np.array(centre[1].split(), float))
