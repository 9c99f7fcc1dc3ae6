"""T1 map of one phantom, with SD, validity codes and the magnitude that shows its vials."""

import json

import numpy as np

from nanouptake.images import save, write_atomic
from nanouptake.steps import run_step
from nanouptake.t1_models import map_phantom
from nanouptake.validity import MEANING


def main(out, folder, method, protocol, override, check):
    def work():
        found = map_phantom(folder, method=method, protocol=protocol, override=override, check=check)
        save(out["t1"], found.t1)
        save(out["sd"], found.t1.like(found.sd_s))
        save(out["validity"], found.t1.like(found.validity))
        save(out["magnitude"], found.t1.like(found.magnitude.astype(np.float32)))
        sidecar = {
            "Units": "s",
            "MagneticFieldStrength": found.field_t,
            "Model": found.details,
            "ValidityCodes": {int(code): meaning for code, meaning in MEANING.items()},
        }
        write_atomic(out["sidecar"], json.dumps(sidecar, indent=1, sort_keys=True) + "\n")
        return {"flags": found.flags, "details": found.details, "series": found.series}

    outputs = [out[k] for k in ("t1", "sd", "validity", "magnitude", "sidecar")]
    run_step("map phantom", work, status=out["status"], outputs=outputs, source=folder)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    p = s.params
    main(dict(s.output.items()), p.folder, p.method, p.protocol, p.override, p.check)
