"""Phantoms of the reference trial: vials of known T1 and concentration, as MP2RAGE DICOM with their truth."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from . import geometry
from .errors import DataError
from .mp2rage import Protocol
from .phantoms import true_t1
from .reference import write_mp2rage_series
from .reference_dicom import Grid, Study, orientation
from .vials import Layout, read_layout

FINER = (4, 4, 2)  # points per voxel along columns, rows, slices
B1_NODES = np.linspace(0.8, 1.2, 41)


def vial_t1_s(entry: dict[str, Any], layout: Layout, *, agent: dict[str, float], tables: Path) -> np.ndarray:
    """Return the true T1 of every object of a layout in seconds; markers hold the phantom's water."""
    water = entry["water_t1_s"]
    if "gel" in layout.truth:
        own = layout.truth[~layout.marker]
        known, _ = true_t1(own, temperature_k=entry["temperature_k"], tables=[tables], field_t=None)
        t1 = known.set_index("vial")["true_t1_s"].reindex(layout.vials).to_numpy()
    else:
        mm = layout.truth["concentration_mg_ml"].to_numpy(float) * agent["mm_per_mg_per_ml"]
        t1 = 1 / (1 / water + agent["r1_per_mm_per_s"] * mm)
    return np.where(layout.marker, water, t1)


def write_phantom(
    spec: dict[str, Any], trial: dict[str, Any], name: str, out_dir: Path, *, tables: Path
) -> None:
    """Write a phantom's DICOM, truth.csv and truth.json; the same descriptions always give the same files.

    Parameters
    ----------
    spec, trial : dict
        As in resources/phantoms/reference_phantoms.yaml and reference_trial.yaml (protocol, agent, identity).
    name : str
        A key of spec["phantoms"].
    out_dir : Path
        Made where missing.
    tables : Path
        Folder of layouts and gel tables.
    """
    if name not in spec["phantoms"]:
        raise DataError(
            "the reference trial has no such phantom",
            field="phantom",
            found=name,
            wanted=", ".join(spec["phantoms"]),
            cure="name a phantom of the description",
        )
    entry = spec["phantoms"][name]
    layout = read_layout(tables / f"{entry['layout']}.tsv")
    protocol = Protocol(**trial["mp2rage"]["protocol"])
    t1 = vial_t1_s(entry, layout, agent=trial["agent"], tables=tables)
    image = spec["image"]
    grid = Grid(
        shape=tuple(image["matrix"]),
        spacing_mm=np.array(image["spacing_mm"], float),
        axes=orientation("axial"),
        centre_mm=np.zeros(3),
    )
    pose = geometry.rigid(
        geometry.rotation(x_deg=entry["tilt_deg"][0], y_deg=entry["tilt_deg"][1], z_deg=entry["turn_deg"]),
        np.array(entry["shift_mm"], float),
    )
    signals = _signals(entry, layout, t1, protocol, grid, pose, b1=image["b1"])
    digest = hashlib.sha256(json.dumps([spec, trial["mp2rage"]], sort_keys=True, default=str).encode())
    identity = trial["identity"]
    study = Study(
        entropy=digest.hexdigest(),
        patient=name,
        session="phantom",
        word=identity["word"],
        birth_date=identity["birth_date"],
        date=identity["study_date"],
        time="071500",
    )
    seed = hashlib.sha256(f"{spec['seed']}|{name}".encode()).digest()[:8]
    write_mp2rage_series(
        Path(out_dir),
        study=study,
        grid=grid,
        signals=signals,
        noise_sd=float(protocol.signal(entry["water_t1_s"])[1]) / image["snr"] if image["snr"] else 0.0,
        rng=np.random.default_rng(int.from_bytes(seed, "big")),
        protocol=protocol,
        te_s=trial["mp2rage"]["te_s"],
        number=1,
    )
    places = geometry.apply(pose, np.column_stack([_centred(layout), np.zeros(len(layout))]))
    with (Path(out_dir) / "truth.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["vial", "t1_s", "x_mm", "y_mm", "z_mm"])
        for vial, seconds, place in zip(layout.vials, t1, places, strict=True):
            writer.writerow([vial, f"{seconds:.6f}", *(f"{v:.4f}" for v in place)])
    (Path(out_dir) / "truth.json").write_text(json.dumps({"phantom_to_scanner": pose.tolist()}) + "\n")


def _centred(layout: Layout) -> np.ndarray:
    return np.asarray(layout.points_mm - layout.points_mm.mean(axis=0))


def _signals(
    entry: dict[str, Any],
    layout: Layout,
    t1_s: np.ndarray,
    protocol: Protocol,
    grid: Grid,
    pose: np.ndarray,
    *,
    b1: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return both signals, averaged over points finer than the voxels, as (slice, row, column)."""
    to_phantom = np.linalg.inv(pose) @ grid.affine
    points, radii = _centred(layout), layout.diameters_mm / 2
    # 0: no signal (air, plastic); 1: water; 2 and on: the vials
    materials = np.array([1.0, entry["water_t1_s"], *t1_s])
    tables = np.stack(protocol.signal(materials[:, None], B1_NODES[None]))
    tables[:, 0] = 0
    nx, ny, nz = grid.shape
    offsets = [(np.arange(n) + 0.5) / n - 0.5 for n in FINER]
    i = (np.arange(nx)[:, None] + offsets[0]).ravel()
    j = (np.arange(ny)[:, None] + offsets[1]).ravel()
    out = np.zeros((2, nx, ny, nz), np.float32)
    filled, wall = entry["filled"], entry["wall_mm"]
    for k in range(nz):
        for dk in offsets[2]:
            x, y, z = (r[0] * i[:, None] + r[1] * j[None] + r[2] * (k + dk) + r[3] for r in to_phantom[:3])
            inside = (np.hypot(x, y) < entry["container_mm"] / 2) & (np.abs(z) < entry["length_mm"] / 2)
            label = np.where(inside & filled, 1, 0).astype(np.uint8)
            within = np.abs(z) < entry["length_mm"] / 2 - 2
            for n, (px, py) in enumerate(points):
                distance = np.hypot(x - px, y - py)
                label[(distance < radii[n] + wall) & inside] = 0
                label[(distance < radii[n]) & within] = n + 2
            for bubble in entry.get("bubbles", []):
                bx, by = points[layout.vials.index(str(bubble["vial"]))] + np.array(bubble["at_mm"][:2])
                bz, size = bubble["at_mm"][2], bubble["radius_mm"]
                label[(x - bx) ** 2 + (y - by) ** 2 + (z - bz) ** 2 < size**2] = 0
            # The transmit field is smooth: a bowl, highest in the middle.
            field = 1 + b1 * (1 - 2 * (x**2 + y**2) / (entry["container_mm"] / 2) ** 2)
            at = np.clip((field - B1_NODES[0]) / (B1_NODES[1] - B1_NODES[0]), 0, B1_NODES.size - 1.001)
            low = at.astype(int)
            part = at - low
            for s in range(2):
                value = tables[s][label, low] * (1 - part) + tables[s][label, low + 1] * part
                out[s, :, :, k] += value.reshape(nx, FINER[0], ny, FINER[1]).mean(axis=(1, 3)) / FINER[2]
    turned = out.transpose(0, 3, 2, 1)
    return turned[0], turned[1]
