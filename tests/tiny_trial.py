"""A trial of very small patients (4 mm voxels, BIDS-named NIfTI) on which the whole real workflow runs.

Its numbers mean nothing at this voxel size: it is for tests of the engine, not of the science.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import yaml

from nanouptake import geometry
from nanouptake.images import Volume, save
from nanouptake.mp2rage import Protocol, combine, to_dn

ROOT = Path(__file__).parents[1]
SHAPE, SPACING_MM = (48, 56, 48), 4.0
SEMI_AXES_MM = np.array([72.0, 90.0, 78.0])
R1_PER_MG_ML_S = 6.7 / (4 / 3)
#: centre in LPS mm, radius in mm, uptake in mg/ml
TUMOURS = (((25.0, -20.0, 20.0), 14.0, 0.10), ((-30.0, 25.0, 10.0), 11.0, 0.05))


def rows(patients: int, *, posts: int = 1) -> list[tuple[str, str, str]]:
    """Return patient, timepoint and path of every scan of a trial."""
    times = ["planning", "pre", *(f"post{n or ''}" for n in range(posts))]
    return [(f"T{n:03d}", t, f"scans/T{n:03d}/{t}") for n in range(1, patients + 1) for t in times]


def write_sheet(study: Path, scans: list[tuple[str, str, str]]) -> None:
    """Write config/scans.tsv."""
    lines = ["patient\ttimepoint\tpath", *("\t".join(scan) for scan in scans)]
    (study / "config/scans.tsv").write_text("\n".join(lines) + "\n")


def write_config(study: Path) -> None:
    """Write config/config.yaml: the built-in one, without phantoms."""
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config.pop("phantoms", None)
    config["agent"]["r1"] = {"per_mm_per_s": 6.7, "sd_per_mm_per_s": 0.1}
    (study / "config").mkdir(parents=True, exist_ok=True)
    (study / "config/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def write_study(study: Path, *, patients: int = 2, posts: int = 1) -> Path:
    """Write a study folder with config, sheet and images; return it."""
    write_config(study)
    scans = rows(patients, posts=posts)
    write_sheet(study, scans)
    for patient, timepoint, path in scans:
        write_scan(study / path, patient, timepoint)
    return study


def write_scan(folder: Path, patient: str, timepoint: str) -> None:
    """Write the images of one timepoint; patient and timepoint decide position, noise and uptake."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(zlib.crc32(f"{patient} {timepoint}".encode()))
    turn = geometry.rotation(**dict(zip(("x_deg", "y_deg", "z_deg"), rng.uniform(-3, 3, 3), strict=True)))
    scanner_to_head = np.linalg.inv(geometry.rigid(turn, rng.uniform(-3, 3, 3)))
    affine = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    affine[:3, 3] = -SPACING_MM * (np.array(SHAPE) - 1) / 2
    fine = np.moveaxis(np.indices([2 * n for n in SHAPE]), 0, -1) / 2 - 0.25
    points = geometry.apply(scanner_to_head @ affine, fine)
    uptake = (0.8 + 0.4 * rng.random()) if timepoint.startswith("post") else 0.0
    density, t1_s, labels = head(points, zlib.crc32(patient.encode()), uptake)
    name = f"sub-{patient}_ses-{timepoint}"

    def write(suffix: str, fine_data: np.ndarray, kind: type) -> None:
        blocks = fine_data.reshape(SHAPE[0], 2, SHAPE[1], 2, SHAPE[2], 2)
        save(
            folder / f"{name}_{suffix}.nii.gz", Volume(np.round(blocks.mean((1, 3, 5))).astype(kind), affine)
        )

    noise = rng.normal(0, 2, (2, *density.shape))
    weighted = density * (1 - 1.8 * np.exp(-0.9 / t1_s) / (1 + np.exp(-2 / t1_s)))
    write("T1w", np.hypot(500 * np.abs(weighted) + noise[0], noise[1]), np.int16)
    if timepoint == "planning":
        save(folder / f"{name}_dseg.nii.gz", Volume(labels[::2, ::2, ::2].astype(np.uint8), affine))
        names = "".join(f"{n}\tGTV{n}\n" for n in range(1, len(TUMOURS) + 1))
        (folder / f"{name}_dseg.tsv").write_text("index\tname\n" + names)
        return
    protocol = Protocol(**yaml.safe_load((ROOT / "config/config.yaml").read_text())["mp2rage"])
    grid = np.geomspace(0.05, 5, 400)
    signals = [density * np.interp(t1_s, grid, s) for s in protocol.signal(grid)]
    coarse = [s.reshape(SHAPE[0], 2, SHAPE[1], 2, SHAPE[2], 2).mean((1, 3, 5)) for s in signals]
    noisy = [s + rng.normal(0, 5e-4, s.shape) + 1j * rng.normal(0, 5e-4, s.shape) for s in coarse]
    save(folder / f"{name}_UNIT1.nii.gz", Volume(to_dn(combine(*noisy)).astype(np.int16), affine))
    for number, one in enumerate(noisy, start=1):
        image = Volume(np.round(3e4 * np.abs(one)).astype(np.int16), affine)
        save(folder / f"{name}_inv-{number}_MP2RAGE.nii.gz", image)
        header = {
            "RepetitionTime": protocol.tr_s,
            "InversionTime": (protocol.ti1_s, protocol.ti2_s)[number - 1],
            "FlipAngle": (protocol.flip1_deg, protocol.flip2_deg)[number - 1],
        }
        (folder / f"{name}_inv-{number}_MP2RAGE.json").write_text(json.dumps(header))


def head(points: np.ndarray, seed: int, uptake: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return proton density, T1 in seconds and tumour labels at points (..., 3) in LPS mm of the head."""
    phase = np.random.default_rng(seed).uniform(0, 2 * np.pi, 6)
    depth = np.linalg.norm(points / SEMI_AXES_MM, axis=-1)
    waves = sum(
        np.sin(points @ np.array(k) / length + p)
        for k, length, p in zip(
            [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.7, 0.7, 0), (0, 0.7, -0.7), (0.7, 0, 0.7)],
            (9, 11, 10, 13, 12, 14),
            phase,
            strict=True,
        )
    )
    density = np.select([depth < 0.85, depth < 0.92, depth < 1], [0.75, 0.05, 0.9], 0.0)
    t1_s = np.select([depth < 0.85, depth < 0.92, depth < 1], [0.95, 0.5, 0.35], 1.0)
    brain = depth < 0.81
    density[(depth >= 0.81) & (depth < 0.85)] = 1.0
    t1_s[(depth >= 0.81) & (depth < 0.85)] = 4.0
    grey = brain & ((waves > 0.6) | (depth > 0.74))
    density[grey], t1_s[grey] = 0.85, 1.45
    ventricle = np.linalg.norm((points - (6, 5, 12)) / (9, 28, 12), axis=-1) < 1
    density[ventricle], t1_s[ventricle] = 1.0, 4.0
    labels = np.zeros(depth.shape, int)
    for number, (centre, radius, mg_ml) in enumerate(TUMOURS, start=1):
        inside = np.linalg.norm(points - np.array(centre), axis=-1) <= radius
        labels[inside], density[inside] = number, 0.85
        t1_s[inside] = 1 / (1 / 1.4 + R1_PER_MG_ML_S * uptake * mg_ml)
    return density, t1_s, labels


def command(study: Path, *arguments: str, cores: int | None = 1) -> list[str]:
    """Return the words that run the workflow on a study."""
    words = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(study)]
    return [*words, *(["--cores", str(cores)] if cores else []), *arguments]


def start(
    study: Path, *arguments: str, cores: int | None = 1, env: dict[str, str] | None = None
) -> subprocess.Popen:
    """Start the workflow in a process group of its own, its words in run.log; return the process."""
    with (study / "run.log").open("ab") as log:
        return subprocess.Popen(
            command(study, *arguments, cores=cores),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )


def run(
    study: Path,
    *arguments: str,
    cores: int | None = 1,
    env: dict[str, str] | None = None,
    expected: int = 0,
) -> str:
    """Run the workflow; return what it said; fail with it when it ends with another status than expected."""
    before = log.stat().st_size if (log := study / "run.log").exists() else 0
    process = start(study, *arguments, cores=cores, env=env)
    try:
        status = process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    said = log.read_bytes()[before:].decode()
    assert status == expected, said[-4000:]
    return said


def copy_inputs(study: Path, target: Path) -> Path:
    """Copy config and scans, and nothing that a run has made; return the copy."""
    for name in ("config", "scans"):
        shutil.copytree(study / name, target / name, copy_function=shutil.copy2)
    return target


def differences(first: dict[str, bytes], second: dict[str, bytes]) -> list[str]:
    """Return the paths that only one of two results has, or whose bytes differ."""
    return sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))


def results(study: Path) -> dict[str, bytes]:
    """Return the bytes of every file below results/, by its path."""
    top = study / "results"
    return {str(p.relative_to(top)): p.read_bytes() for p in sorted(top.rglob("*")) if p.is_file()}
