"""Registrations of a reference patient: CPU seconds, error at the tumours, ratio to ants.registration.

Run after `make demo`: .venv/bin/python benchmarks/registration.py [patient]
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow/scripts"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from nanouptake import geometry, registration  # noqa: E402
from nanouptake.images import Volume, load  # noqa: E402


def cpu_s() -> float:
    """Return the CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def ants_rigid(fixed: Volume, moving: Volume, mask: np.ndarray) -> np.ndarray:
    """Return the matrix of ants.registration's own "Rigid"."""
    import ants

    images = [registration._ants_image(v.data, v.affine) for v in (fixed, moving)]
    cover = registration._ants_image(mask.astype(np.float32), fixed.affine)
    made = ants.registration(*images, type_of_transform="Rigid", mask=cover, random_seed=1)
    found = ants.read_transform(made["fwdtransforms"][0])
    p, centre = np.asarray(found.parameters, float), np.asarray(found.fixed_parameters, float)
    return geometry.rigid(p[:9].reshape(3, 3), p[9:], centre_mm=centre)


def main(patient: str) -> None:
    """Print one line per pair."""
    truth = ROOT / f"resources/reference_trial/{patient}"
    poses = {
        k: np.array(m)
        for k, m in json.loads((truth / "truth.json").read_text())["head_to_scanner_lps"].items()
    }
    centres = pd.read_csv(truth / "truth.csv")[["x_mm", "y_mm", "z_mm"]].to_numpy()

    def image(timepoint: str, name: str) -> Volume:
        stem = f"results/sub-{patient}/ses-{timepoint}/anat/sub-{patient}_ses-{timepoint}_{name}.nii.gz"
        return load(ROOT / stem)

    uni, t1w, planning = image("pre", "UNIT1"), image("pre", "T1w"), image("planning", "T1w")
    brain = registration.brain_mask(image("pre", "T1map"), image("pre", "inv-2_MP2RAGE"))
    pairs = {
        "uni-uni": (uni, image("post", "UNIT1"), brain, "pre_uni", "post_uni"),
        "t1w-uni": (uni, t1w, brain, "pre_uni", "pre_t1w"),
        "t1w-t1w": (t1w, planning, registration.brain_mask_t1w(t1w), "pre_t1w", "planning_mr"),
        "ct-t1w": (
            planning, image("planning", "ct"), registration.head_mask(planning), "planning_mr", "planning_ct",
        ),
    }  # fmt: skip
    import ants  # noqa: F401  (its import is no part of a registration)

    for pair, (fixed, moving, mask, a, b) in pairs.items():
        points = geometry.apply(np.array(poses[a]) @ np.linalg.inv(poses["pre_uni"]), centres)
        true = np.array(poses[b]) @ np.linalg.inv(poses[a])
        head = registration.head_mask(image("post", "inv-2_MP2RAGE")) if pair == "uni-uni" else None
        start = cpu_s()
        with tempfile.TemporaryDirectory() as folder:
            ours = registration.register(
                fixed, moving, pair=pair, fixed_mask=mask, moving_mask=head, work_dir=Path(folder)
            ).matrix
        own = cpu_s() - start
        start = cpu_s()
        theirs = ants_rigid(fixed, moving, mask)
        peer = cpu_s() - start
        error, peer_error = (geometry.displacement_mm(m, true, points).max() for m in (ours, theirs))
        print(
            f"{pair}: {own:.1f} CPU s, {error:.3f} mm at the worst tumour; "
            f"ants Rigid with the mask {peer:.1f} CPU s, {peer_error:.3f} mm; ratio {own / peer:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "P01")
