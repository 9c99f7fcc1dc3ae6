"""Rigid registration with ANTsPy: masks, start, two stages, and measures of how good the result is."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy import ndimage

from . import geometry
from .errors import DataError
from .images import Volume

#: moving-fixed pair: values below which a result is flagged and failed. On the reference trial (4 patients)
#: right, 2 mm off, 4 mm off, 10 mm off read: gradient_correlation uni-uni 0.74-0.79, 0.63, 0.42, 0.1;
#: t1w-uni 0.69-0.76, 0.59, 0.43, 0.1; t1w-t1w 0.91-0.97, 0.75-0.85, 0.47-0.59, 0.1; mutual_information
#: ct-t1w 0.43-0.58, 0.31-0.36, 0.16-0.21, 0.04-0.06 (the gradients do not tell CT results apart).
THRESHOLDS: dict[str, dict[str, tuple[float, float]]] = {
    "uni-uni": {"gradient_correlation": (0.6, 0.35), "mutual_information": (0.3, 0.12)},
    "t1w-uni": {"gradient_correlation": (0.5, 0.25), "mutual_information": (0.3, 0.12)},
    "t1w-t1w": {"gradient_correlation": (0.6, 0.35), "mutual_information": (0.3, 0.12)},
    "ct-t1w": {"mutual_information": (0.2, 0.08)},
}
#: Relative gain of the probe above which a result is flagged. Right results read 0 to 0.06; MR 1.5 mm off
#: 0.14 or more; CT 2 mm off 0.11 or more, 1.5 mm off now and then 0.02.
PROBE_LIMIT = 0.1
#: whether the bias field of the fixed and of the moving image is taken out first
UNBIASED: dict[str, tuple[bool, bool]] = {
    "uni-uni": (False, False),
    "t1w-uni": (False, True),
    "t1w-t1w": (True, True),
    "ct-t1w": (True, False),
}
#: Stages: sampling of the Mattes mutual information, convergence, shrink factors, smoothing in voxels.
#: The coarse one sees the whole image, the fine one the mask. At full resolution 15 % of the voxels do
#: better than 100 % of those shrunk by 2, in half the time.
COARSE = ("Regular,0.5", "[60x20,1e-5,5]", "8x4", "3x2vox")
FINE = ("Regular,0.15", "[20,1e-6,5]", "1", "0.7vox")


@dataclass
class Registration:
    """A rigid transform (fixed points to moving points, LPS mm), its quality, and what follows from it."""

    matrix: np.ndarray
    quality: dict[str, float] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""

    def raise_if_failed(self, what: str) -> None:
        """Raise DataError when the quality says that the transform is wrong."""
        if self.status == "failed":
            raise DataError(
                f"the registration {what} failed",
                found=self.reason,
                cure="look at both images: same patient, whole head, right series?",
            )


def _coarse(volume: Volume, spacing_mm: float = 2.0) -> tuple[Volume, np.ndarray]:
    """Return the block-averaged image at about the spacing asked for, and the factors."""
    factors = np.clip(np.round(spacing_mm / volume.spacing_mm), 1, volume.shape).astype(int)
    shape = [n // f * f for n, f in zip(volume.shape, factors, strict=True)]
    blocks = volume.data[tuple(slice(n) for n in shape)].astype(np.float32)
    for axis, factor in enumerate(factors):
        new = [*blocks.shape[:axis], blocks.shape[axis] // factor, factor, *blocks.shape[axis + 1 :]]
        blocks = blocks.reshape(new).mean(axis=axis + 1)
    grid = np.diag([*factors, 1.0])
    grid[:3, 3] = (factors - 1) / 2
    return Volume(blocks, volume.affine @ grid), factors


def _coarse_mask(mask: np.ndarray, factors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a mask at about the middle of each block."""
    thin = mask[tuple(slice(f // 2, None, f) for f in factors)]
    return thin[tuple(slice(n) for n in shape)]


def _fine(mask: np.ndarray, factors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a coarse mask on the full grid."""
    for axis, factor in enumerate(factors):
        mask = np.repeat(mask, factor, axis=axis)
        mask = np.pad(mask, [(0, shape[a] - mask.shape[a] if a == axis else 0) for a in range(3)])
    return mask


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels == int(np.argmax(sizes))


def _ball(radius: int) -> np.ndarray:
    grid = np.indices((2 * radius + 1,) * 3) - radius
    return (grid**2).sum(axis=0) <= radius**2


def head_mask(volume: Volume) -> np.ndarray:
    """Return the head of a magnitude image or CT as a bool mask, filled."""
    from skimage.filters import threshold_otsu

    coarse, factors = _coarse(volume)
    smooth = ndimage.gaussian_filter(coarse.data, 1)
    low, high = np.percentile(smooth, [1, 99])
    level = threshold_otsu(smooth.clip(low, high)) if high > low else high
    mask = _largest(smooth > (level if low < -500 else 0.5 * level))
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(mask, _ball(3), iterations=1))
    return _fine(mask, factors, volume.shape)


def _brain(inside: np.ndarray, factors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the largest piece left after an opening, closed, filled and grown by 4 mm."""
    core = _largest(ndimage.binary_erosion(inside, _ball(3)))
    core = ndimage.binary_dilation(core, _ball(3)) & inside
    core = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(core, 6), _ball(5)))[6:-6, 6:-6, 6:-6]
    return _fine(ndimage.binary_dilation(core, _ball(2)), factors, shape)


def brain_mask(t1_s: Volume, inv2: Volume) -> np.ndarray:
    """Return a generous brain mask from T1 in seconds (NaN allowed) and INV2."""
    coarse, factors = _coarse(t1_s.like(np.nan_to_num(t1_s.data, nan=0.0)))
    bright, _ = _coarse(inv2)
    level = 0.25 * np.percentile(bright.data, 98)
    inside = (coarse.data > 0.7) & (coarse.data < 2.0) & (bright.data > level)
    return _brain(ndimage.median_filter(inside, 3), factors, t1_s.shape)


def brain_mask_t1w(volume: Volume) -> np.ndarray:
    """Return a generous brain mask of a T1-weighted image: what is left of the head after a deep opening."""
    coarse, factors = _coarse(volume)
    head = _coarse_mask(head_mask(volume), factors, coarse.shape)
    level = np.median(coarse.data[head])
    inside = head & (coarse.data > 0.5 * level) & (coarse.data < 2.0 * level)
    return _brain(ndimage.median_filter(inside, 3), factors, volume.shape)


def _prepare(volume: Volume, mask: np.ndarray, name: str) -> np.ndarray:
    data = np.nan_to_num(volume.data.astype(np.float32))
    inside = data[mask]
    if inside.size < 1000:
        raise DataError(
            f"the mask of the {name} image is empty",
            found=f"{inside.size} voxels",
            wanted="a head",
            cure="look at the image: is it a whole head with contrast?",
        )
    low, high = np.percentile(inside, [0.5, 99.5])
    if not high > low:
        raise DataError(f"the {name} image is constant", found=low, cure="export the image again")
    return data.clip(low, high)


def _antspy() -> ModuleType:
    """Import ANTsPy without the parts that draw and learn: those take 1.3 of its 1.7 CPU seconds."""
    for name in ("contrib", "deeplearn", "learn", "math", "plotting"):
        sys.modules.setdefault(f"ants.{name}", ModuleType(f"ants.{name}"))
    import ants

    return ants


def _ants_image(data: np.ndarray, affine: np.ndarray) -> Any:
    ants = _antspy()

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=affine[:3, :3] / spacing,
    )


def _crop(volume: Volume, mask: np.ndarray, margin_mm: float = 8.0) -> tuple[Volume, np.ndarray]:
    """Return volume and mask on the box of the mask plus a margin."""
    grow = np.ceil(margin_mm / volume.spacing_mm).astype(int)
    box = tuple(
        slice(max(0, s.start - g), min(n, s.stop + g))
        for s, g, n in zip(ndimage.find_objects(mask.astype(np.uint8))[0], grow, mask.shape, strict=True)
    )
    corner = np.eye(4)
    corner[:3, 3] = [s.start for s in box]
    return Volume(volume.data[box], volume.affine @ corner), mask[box]


def _centre(volume: Volume, mask: np.ndarray) -> np.ndarray:
    return geometry.apply(volume.affine, np.array(ndimage.center_of_mass(mask)))


def _sample(volume: Volume, points: np.ndarray) -> np.ndarray:
    index = geometry.apply(np.linalg.inv(volume.affine), points).T
    return ndimage.map_coordinates(volume.data, index, order=1, cval=np.nan)


def nmi(a: np.ndarray, b: np.ndarray, bins: int = 32) -> float:
    """Return mutual information over the smaller entropy of two samples, 0 to 1; NaN pairs are left out."""
    good = np.isfinite(a) & np.isfinite(b)
    if good.mean() < 0.3:
        return 0.0
    joint = np.histogram2d(a[good], b[good], bins)[0] / good.sum()
    pa, pb = joint.sum(axis=1), joint.sum(axis=0)
    entropy = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (pa, pb, joint)]
    return float((entropy[0] + entropy[1] - entropy[2]) / max(min(entropy[:2]), 1e-9))


def _rotation_grid(fixed: Volume, moving: Volume, mask: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the best of all head turns up to 70 degrees by normalised mutual information at 6 mm."""
    thin, factors = _coarse(fixed, 6.0)
    points = geometry.apply(thin.affine, np.argwhere(_coarse_mask(mask, factors, thin.shape)))
    smooth_f, smooth_m = (_coarse(v)[0] for v in (fixed, moving))
    values = _sample(smooth_f, points)
    centre = points.mean(axis=0)
    shift = (
        starts[:3, 3] if np.allclose(starts[:3, :3], np.eye(3)) else geometry.apply(starts, centre) - centre
    )
    best, found = -1.0, starts
    angles = [float(a) for a in range(-60, 61, 20)]
    for x in angles:
        for y in angles:
            for z in angles:
                matrix = geometry.rigid(geometry.rotation(x_deg=x, y_deg=y, z_deg=z), shift, centre_mm=centre)
                score = nmi(values, _sample(smooth_m, geometry.apply(matrix, points)))
                if score > best:
                    best, found = score, matrix
    return found


def quality(fixed: Volume, moving: Volume, mask: np.ndarray, matrix: np.ndarray) -> dict[str, float]:
    """Return how well two images agree under a transform, sampled at 2 mm inside the mask.

    gradient_correlation compares the lengths of the gradients; mutual_information is normalised;
    probe is the largest relative gain of mutual information by a step of 1 mm or 1 degree.
    """
    (fixed, factors), (moving, _) = _coarse(fixed), _coarse(moving)
    points = geometry.apply(fixed.affine, np.argwhere(_coarse_mask(mask, factors, fixed.shape)))
    gradients = [
        v.like(ndimage.gaussian_gradient_magnitude(v.data, 2.0 / v.spacing_mm)) for v in (fixed, moving)
    ]
    moved = geometry.apply(matrix, points)
    a, b = _sample(gradients[0], points), _sample(gradients[1], moved)
    good = np.isfinite(a) & np.isfinite(b)
    correlation = float(np.corrcoef(a[good], b[good])[0, 1]) if good.mean() > 0.3 else 0.0
    values = _sample(fixed, points)
    here = nmi(values, _sample(moving, moved))
    centre = points.mean(axis=0)
    gain = 0.0
    for axis in range(3):
        for sign in (-1.0, 1.0):
            shift = np.zeros(3)
            shift[axis] = sign
            turn = geometry.rotation(**{f"{'xyz'[axis]}_deg": sign})
            for change in (
                geometry.rigid(np.eye(3), shift),
                geometry.rigid(turn, np.zeros(3), centre_mm=centre),
            ):
                there = nmi(values, _sample(moving, geometry.apply(matrix @ change, points)))
                gain = max(gain, there / here - 1 if here > 0 else 1.0)
    return {
        "gradient_correlation": round(correlation, 4),
        "mutual_information": round(here, 4),
        "probe": round(gain, 4),
    }


def register(
    fixed: Volume,
    moving: Volume,
    *,
    pair: str,
    fixed_mask: np.ndarray,
    moving_mask: np.ndarray | None = None,
    work_dir: Path | None = None,
    seed: int = 1,
) -> Registration:
    """Register two images rigidly.

    Parameters
    ----------
    fixed, moving : Volume
        Images of one head.
    pair : str
        Contrasts, "moving-fixed": a key of THRESHOLDS.
    fixed_mask : bool ndarray
        Brain (head for a CT) on the fixed grid.
    moving_mask : bool ndarray or None
        Head on the moving grid; found in the image itself when None (a UNI does not show it). What lies
        outside is set to the lowest value: with the air's noise left in, the error is four times larger
        (0.16 instead of 0.04 mm, MPRAGE to MPRAGE).
    work_dir : Path or None
        Folder in which a folder for temporary files is made; the system's own when None, so that a killed
        run leaves nothing among the results.
    seed : int
        Seed of the sampling; with one ITK thread the matrix is the same bit for bit.

    Returns
    -------
    Registration
        The matrix maps points of fixed to points of moving, LPS mm. quality has sd_mm, see half_sample_sd_mm.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    os.environ["ANTS_RANDOM_SEED"] = str(seed)
    ants = _antspy()
    from ants.internal import get_lib_fn, process_arguments
    from ants.internal import get_pointer_string as get_pointer

    fixed = fixed.like(_prepare(fixed, fixed_mask, "fixed"))
    head = head_mask(moving) if moving_mask is None else moving_mask
    moving = moving.like(_prepare(moving, head, "moving"))
    moving = moving.like(np.where(head, moving.data, moving.data[head].min()))
    start = np.eye(4)
    start[:3, 3] = _centre(moving, head) - _centre(
        fixed, head_mask(fixed) if pair != "uni-uni" else fixed_mask
    )
    cropped, mask = _crop(fixed, fixed_mask)
    moving, head = _crop(moving, head)
    if UNBIASED[pair][0]:
        cropped = _unbiased(cropped, mask)
    if UNBIASED[pair][1]:
        moving = _unbiased(moving, head)
    images = [_ants_image(v.data, v.affine).clone("double") for v in (cropped, moving)]
    mask_image = _ants_image(mask, cropped.affine)
    with tempfile.TemporaryDirectory(dir=work_dir) as scratch:

        def run(initial: np.ndarray, stage: str, where: Any = mask_image) -> np.ndarray:
            geometry.write_itk(Path(scratch, f"{stage}_start.txt"), initial)
            sampling, convergence, shrink, smooth = COARSE if stage == "coarse" else FINE
            fixed_at, moving_at = (get_pointer(i) for i in images)
            arguments: list[Any] = [
                "-d", "3",
                "-r", str(Path(scratch, f"{stage}_start.txt")),
                "-m", f"MI[{fixed_at},{moving_at},1,32,{sampling}]",
                "-t", "Rigid[0.1]", "-c", convergence, "-f", shrink, "-s", smooth,
                "-u", "0", "-z", "1",
                "-o", f"[{Path(scratch, stage)}]",
                "--float", "0", "--write-composite-transform", "0", "--random-seed", str(seed),
            ]  # fmt: skip
            if stage == "fine":
                arguments += ["-x", f"[{get_pointer(where)},NA]"]
            get_lib_fn("antsRegistration")(process_arguments(arguments))
            made = sorted(Path(scratch).glob(f"{stage}0*"))
            if len(made) != 1:
                raise DataError(
                    "ANTs made no transform",
                    found=f"{len(made)} files",
                    wanted="one",
                    cure="check that both images show the same head and overlap",
                )
            transform = ants.read_transform(str(made[0]))
            made[0].unlink()
            parameters = np.asarray(transform.parameters, float)
            centre = np.asarray(transform.fixed_parameters, float)
            return geometry.rigid(parameters[:9].reshape(3, 3), parameters[9:], centre_mm=centre)

        def judged(initial: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
            matrix = run(run(initial, "coarse"), "fine")
            return matrix, quality(cropped, moving, mask, matrix)

        matrix, measures = judged(start)
        if verdict(pair, measures)[0] != "ok":
            second, other = judged(_rotation_grid(cropped, moving, mask, start))
            if other["mutual_information"] > measures["mutual_information"]:
                matrix, measures = second, other
        black, white = (
            run(matrix, "fine", _ants_image(half, cropped.affine)) for half in _halves(cropped, mask)
        )
        measures["sd_mm"] = round(half_sample_sd_mm(black, white, cropped, mask), 4)
    status, reason = verdict(pair, measures)
    return Registration(matrix, measures, status, reason)


def _halves(volume: Volume, mask: np.ndarray, block_mm: float = 15.0) -> list[np.ndarray]:
    """Return the mask in two halves, the white and the black blocks of a chessboard in space."""
    size = np.maximum(1, np.round(block_mm / volume.spacing_mm)).astype(int)
    blocks = [(np.arange(n) // s) % 2 for n, s in zip(mask.shape, size, strict=True)]
    black = (blocks[0][:, None, None] + blocks[1][None, :, None] + blocks[2][None, None, :]) % 2 == 1
    return [mask & black, mask & ~black]


def half_sample_sd_mm(first: np.ndarray, second: np.ndarray, fixed: Volume, mask: np.ndarray) -> float:
    """Return the SD of a registration along one axis in mm, mean over a mask, from those of its two halves.

    Two estimates from independent halves of the data each have twice the variance of that from all of it, so
    their difference has four times. What both halves share (distortion, a wrong pair) is not in it.
    """
    thin = np.argwhere(mask[::4, ::4, ::4]) * 4
    apart = geometry.displacement_mm(first, second, geometry.apply(fixed.affine, thin))
    return float(np.sqrt((apart**2).mean() / 3) / 2)


def _unbiased(volume: Volume, mask: np.ndarray) -> Volume:
    """Return the volume without its bias field, which N4 estimates on a grid of 6 mm inside the mask."""
    ants = _antspy()

    base = float(volume.data.min()) - 1
    coarse, factors = _coarse(volume, 6.0)
    field_ = ants.n4_bias_field_correction(
        _ants_image(coarse.data - base, coarse.affine),
        mask=_ants_image(_coarse_mask(mask, factors, coarse.shape), coarse.affine),
        shrink_factor=1,
        convergence={"iters": [30, 20, 10], "tol": 1e-6},
        return_bias_field=True,
    )
    log_field = np.log(field_.numpy())
    for axis, (n, f) in enumerate(zip(volume.shape, factors, strict=True)):  # linear, one axis at a time
        place = ((np.arange(n) - (f - 1) / 2) / f).clip(0, log_field.shape[axis] - 1)
        low = np.minimum(place.astype(int), log_field.shape[axis] - 2)
        weight = np.expand_dims((place - low).astype(np.float32), [a for a in range(3) if a != axis])
        log_field = np.take(log_field, low, axis) * (1 - weight) + np.take(log_field, low + 1, axis) * weight
    return volume.like((volume.data - base) / np.exp(log_field))


def verdict(pair: str, measures: dict[str, float]) -> tuple[str, str]:
    """Return status and reason of the measures of a pair."""
    status, reasons = "ok", []
    for name, (flag, fail) in THRESHOLDS[pair].items():
        value = measures[name]
        if value < flag:
            status = "failed" if value < fail or status == "failed" else "flagged"
            reasons.append(f"{name} {value:.3f}, wanted {flag} or more")
    if measures["probe"] > PROBE_LIMIT:
        status = "flagged" if status == "ok" else status
        reasons.append(f"a step of 1 mm or 1 degree raises the mutual information by {measures['probe']:.1%}")
    return status, "; ".join(reasons)
