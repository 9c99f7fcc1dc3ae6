"""Single tumours of the reference trial with known truth: small fields of view, made in a second.

The heads, the tumours' patterns, the signal and the noise are those of the reference trial; the contours are
exact sections of the ellipsoid on an oblique planning grid. Nothing is written to disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import geometry
from .contours import Solid
from .images import Volume
from .mp2rage import Protocol, combine, to_dn
from .partial_volume import signals
from .reference_anatomy import (
    PATTERNS,
    TISSUES,
    Contrast,
    Head,
    Tumour,
    Warp,
    nodes,
    place_tumours,
    sample,
    unit_ball,
)
from .reference_dicom import ellipse_on_slice

MARGIN_MM = 9.0  # of the field of view around a tumour
STORED_MAX = 3000.0  # of INV2 in white matter's neighbourhood, as the scanner scales it
PLANNING_SPACING_MM = np.array([0.9, 0.9, 1.0])


@dataclass(frozen=True)
class Scan:
    """Scanner's UNI and INV2 (whole numbers) of a small field of view; pose: head to scanner, LPS mm."""

    uni: Volume
    inv2: Volume
    pose: np.ndarray

    def noisy(self, noise_sd: float, rng: Any) -> Scan:
        """Return the scan with noise of an SD in the unit of INV2 in each part of both signals."""
        s = signals(self.uni.data, self.inv2.data).astype(complex)
        s += noise_sd * (rng.standard_normal(s.shape) + 1j * rng.standard_normal(s.shape))
        uni = to_dn(np.nan_to_num(combine(s[0], s[1])))
        return Scan(self.uni.like(uni), self.inv2.like(np.round(abs(s[1])).astype(np.uint16)), self.pose)


@dataclass(frozen=True)
class Case:
    """One simulated tumour before and after infusion, its contour and its truth.

    Matrices map points of one space to another, LPS mm. upper_quartile_mean_mg_ml is the mean of the quarter
    of the volume with the most agent.
    """

    tumour: Tumour
    pre: Scan
    post: Scan
    solid: Solid
    pre_to_contours: np.ndarray
    pre_to_post: np.ndarray
    mean_mg_ml: float
    upper_quartile_mean_mg_ml: float

    def drawn(self, *, offset_mm: float) -> Solid:
        """Return the contour that a reader draws who sees the surface that far outside."""
        axes = np.maximum(self.tumour.semi_axes_mm + offset_mm, 0.3 * self.tumour.semi_axes_mm)
        pose = self.pre_to_contours @ self.pre.pose
        return Solid(contours_of(replace(self.tumour, semi_axes_mm=axes), pose))


def draw_cases(
    spec: dict[str, Any],
    *,
    n: int,
    seed: int,
    diameters_mm: tuple[float, float] = (5.0, 25.0),
    uptakes_mg_ml: tuple[float, float] = (0.0, 0.2),
    snr: float | None = None,
    b1: float | None = None,
) -> Iterator[Case]:
    """Yield n tumours of heads of the reference trial.

    Parameters
    ----------
    spec : dict
        A reference trial's description; its anatomy, agent, mp2rage and poses are used.
    n, seed : int
        How many; the same seed gives the same tumours.
    diameters_mm, uptakes_mg_ml : tuple of float
        Ranges of the equal-volume diameter (log-uniform) and of the mean uptake (uniform).
    snr, b1 : float or None
        Instead of the description's.
    """
    rng = np.random.default_rng(seed)
    settings = dict(spec["mp2rage"])
    settings |= {k: v for k, v in (("snr", snr), ("b1", b1)) if v is not None}
    anatomy = spec["anatomy"]
    made = 0
    while made < n:
        warp = Warp.draw(rng, warp_mm=anatomy["warp_mm"], scale_range=tuple(anatomy["scale_range"]))
        wanted = sorted(
            np.exp(rng.uniform(np.log(diameters_mm[0]), np.log(diameters_mm[1]), min(6, n - made))),
            reverse=True,
        )
        items = [
            {
                "diameter_mm": float(d),
                "pattern": PATTERNS[(made + k) % 4],
                "mean_mg_ml": float(rng.uniform(*uptakes_mg_ml)),
                "t1_s": float(rng.uniform(1.2, 1.7)),
            }
            for k, d in enumerate(wanted)
        ]
        tumours = place_tumours(
            items, warp=warp, rng=rng, axis_ratio=anatomy["axis_ratio"], gap_mm=6.0, edge_mm=3.0
        )
        head = Head(warp=warp, tumours=tumours, t1_variation=anatomy["t1_variation"])
        phases = rng.uniform(0, 2 * np.pi, 2)
        for k in range(len(tumours)):
            yield _case(head, k, spec, settings, phases, rng)
        made += len(tumours)


def _case(
    head: Head, index: int, spec: dict[str, Any], settings: dict[str, Any], phases: np.ndarray, rng: Any
) -> Case:
    tumour = head.tumours[index]
    r1 = spec["agent"]["r1_per_mm_per_s"] * spec["agent"]["mm_per_mg_per_ml"]
    poses = [_pose(rng, tumour.centre_mm, spec["poses"]) for _ in range(3)]
    scans = [
        _scan(head, index, spec, settings, pose, float(phase), uptake, r1, rng)
        for pose, phase, uptake in zip(poses[:2], phases, (0.0, 1.0), strict=True)
    ]
    to_planning = poses[2]
    solid = Solid(contours_of(tumour, to_planning))
    back = np.linalg.inv(poses[0])
    relative = np.sort(tumour.relative_uptake(unit_ball()))
    return Case(
        tumour,
        scans[0],
        scans[1],
        solid,
        to_planning @ back,
        poses[1] @ back,
        float(tumour.mean_mg_ml * relative.mean()),
        float(tumour.mean_mg_ml * relative[3 * relative.size // 4 :].mean()),
    )


def _pose(rng: Any, centre_mm: np.ndarray, limits: dict[str, float]) -> np.ndarray:
    turn = geometry.rotation(**{f"{a}_deg": rng.uniform(-1, 1) * limits["session_deg"] for a in "xyz"})
    shift = rng.uniform(-1, 1, 3) * limits["session_mm"]
    return geometry.rigid(turn, shift, centre_mm=centre_mm)


def _scan(
    head: Head,
    index: int,
    spec: dict[str, Any],
    settings: dict[str, Any],
    pose: np.ndarray,
    phase: float,
    uptake: float,
    r1: float,
    rng: Any,
) -> Scan:
    protocol = Protocol(**settings["protocol"])
    t1, b1 = nodes()
    tissues = spec["anatomy"]["tissues"]
    contrast = Contrast(
        tables=np.stack(protocol.signal(t1[:, None], b1[None, :])),
        tissue_t1_s=np.array([tissues[t]["t1_s"] for t in TISSUES]),
        tissue_weight=np.array([tissues[t]["proton_density"] for t in TISSUES]),
        tumour_weight=spec["anatomy"]["tumour"]["proton_density"],
    )
    spacing = np.array(settings["spacing_mm"], float)
    tumour = head.tumours[index]
    half = tumour.semi_axes_mm.max() + MARGIN_MM
    count = np.ceil(2 * half / spacing).astype(int) + 1
    affine = np.diag([*spacing, 1.0])
    middle = geometry.apply(pose, tumour.centre_mm) + rng.uniform(-0.5, 0.5, 3) * spacing
    affine[:3, 3] = middle - (count - 1) / 2 * spacing
    signals = sample(
        head,
        contrast=contrast,
        index_to_head=np.linalg.inv(pose) @ affine,
        shape=(int(count[0]), int(count[1]), int(count[2])),
        tumour_t1_s=[t.t1_s for t in head.tumours],
        tumour_mg_ml=[uptake * t.mean_mg_ml for t in head.tumours],
        r1_per_mg_ml_s=r1,
        b1=settings["b1"],
        b1_phase=phase,
        receive=0.0,
    ).transpose(0, 3, 2, 1)
    white = tissues["wm"]["proton_density"] * float(protocol.signal(tissues["wm"]["t1_s"])[1])
    noisy = signals.astype(complex)
    if settings["snr"]:
        sd = white / settings["snr"]
        noisy += sd * (rng.standard_normal(signals.shape) + 1j * rng.standard_normal(signals.shape))
    uni = to_dn(np.nan_to_num(combine(noisy[0], noisy[1])))
    inv2 = np.round(abs(noisy[1]) * (STORED_MAX / (2 * white))).astype(np.uint16)
    return Scan(Volume(uni, affine), Volume(inv2, affine), pose)


def contours_of(tumour: Tumour, head_to_planning: np.ndarray) -> list[np.ndarray]:
    """Return the tumour's exact outlines on the slices of a planning grid, each (n, 3) planning LPS mm."""
    affine = np.diag([*PLANNING_SPACING_MM, 1.0])
    affine[:3, :3] = geometry.rotation(x_deg=-10.0) @ affine[:3, :3]
    index = np.linalg.inv(affine) @ head_to_planning @ np.append(tumour.centre_mm, 1.0)
    reach = int(np.ceil(tumour.semi_axes_mm.max() / PLANNING_SPACING_MM[2])) + 2
    middle = round(float(index[2]))
    found = [
        ellipse_on_slice(tumour, head_to_scanner=head_to_planning, affine=affine, index=k)
        for k in range(middle - reach, middle + reach + 1)
    ]
    return [points for points in found if points is not None]
