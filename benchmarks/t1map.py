"""T1 mapping of a 240 x 256 x 176 UNI as a whole process: CPU seconds, peak memory, and ratios.

Run: .venv/bin/python benchmarks/t1map.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETUP = f"import sys; sys.path.insert(0, {str(ROOT / 'workflow/scripts')!r})\n"
PROTOCOL = (
    "Protocol(tr_s=5, ti1_s=.7, ti2_s=2.5, flip1_deg=4, flip2_deg=5,"
    " echo_spacing_s=.00718, shots_before=44, shots_after=88)"
)
MAKE = """
import numpy as np
from scipy.ndimage import gaussian_filter, zoom
from nanouptake import images, mp2rage
rng = np.random.default_rng(0)
t1 = 0.8 + 2.0 * np.clip(zoom(gaussian_filter(rng.normal(size=(60, 64, 44)), 3) * 8, 4, order=1) + 0.3, 0, 1)
uni = mp2rage.PROTOCOL_.uni(t1) + rng.normal(0, 0.01, t1.shape)
volume = images.Volume(mp2rage.to_dn(uni.clip(-0.5, 0.5)), np.eye(4))
for suffix in (".nii", ".nii.gz"):
    images.save(FOLDER + "/uni" + suffix, volume)
"""
OURS = """
from nanouptake import images
from nanouptake.mp2rage import Lookup, Protocol
volume = images.load(FOLDER + "/uni" + SUFFIX)
images.save(FOLDER + "/t1" + SUFFIX, volume.like(Lookup(PROTOCOL_).estimate(volume.data).t1_s))
"""
WITH_B1 = """
import numpy as np
from nanouptake import images
from nanouptake.mp2rage import Lookup, Protocol
volume = images.load(FOLDER + "/uni" + SUFFIX)
b1 = np.ones(volume.shape, np.float32) * np.linspace(0.8, 1.2, volume.shape[0])[:, None, None]
b1 = b1.astype(np.float32)
images.save(FOLDER + "/t1_b1" + SUFFIX, volume.like(Lookup(PROTOCOL_).estimate(volume.data, b1=b1).t1_s))
"""
PLAIN = """
import nibabel, numpy as np
from nanouptake.mp2rage import Lookup, Protocol
image = nibabel.load(FOLDER + "/uni" + SUFFIX)
uni, t1 = Lookup(PROTOCOL_).curve
values = np.interp(image.get_fdata() / 4095 - 0.5, uni, t1).astype(np.float32)
nibabel.save(nibabel.Nifti1Image(values, image.affine), FOLDER + "/t1_plain" + SUFFIX)
"""


def run(code: str, folder: str, suffix: str = "") -> tuple[float, float]:
    """Run code in a process of its own; return its CPU seconds and peak memory in MB."""
    code = code.replace("mp2rage.PROTOCOL_", f"mp2rage.{PROTOCOL}").replace("PROTOCOL_", PROTOCOL)
    text = f"{SETUP}FOLDER, SUFFIX = {folder!r}, {suffix!r}\n{code}"
    measured = f"{text}\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run([sys.executable, "-c", measured], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, float(out.stdout.split()[-1])


def main() -> None:
    """Print one line per file type: ours, plain nibabel and numpy, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        run(MAKE, folder)
        for suffix in (".nii", ".nii.gz"):
            pairs = [(run(OURS, folder, suffix), run(PLAIN, folder, suffix)) for _ in range(3)]
            (ours, memory), (plain, _) = sorted(pairs)[1]
            print(
                f"{suffix}: {ours:.2f} CPU s, {memory:.0f} MB peak; plain nibabel + numpy {plain:.2f} CPU s;"
                f" ratio {ours / plain:.2f}"
            )
        with_b1, memory = run(WITH_B1, folder, ".nii")
        without, _ = run(OURS, folder, ".nii")
        print(
            f"with a B1+ map: {with_b1:.2f} CPU s, {memory:.0f} MB; ratio to without {with_b1 / without:.1f}"
        )


if __name__ == "__main__":
    main()
