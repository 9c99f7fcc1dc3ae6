"""T1 map and validity codes of one session."""

import json

import numpy as np

from nanouptake.concentration import foreground, relative_b1
from nanouptake.images import load, save, write_atomic
from nanouptake.mp2rage import Lookup, Protocol
from nanouptake.steps import run_step
from nanouptake.validity import MEANING, Validity


def main(uni, inv2, tb1, ingested, out, protocol):
    def work():
        image = load(uni)
        lookup = Lookup(Protocol(**protocol))
        b1 = relative_b1(tb1, shape=image.shape, affine=image.affine)
        found = lookup.estimate(image.data, b1=b1)
        empty = ~foreground(load(inv2).data)
        found.validity[empty] = Validity.NO_SIGNAL
        found.t1_s[empty] = np.nan
        save(out["t1"], image.like(found.t1_s))
        save(out["validity"], image.like(found.validity))
        sidecar = {
            "Units": "s",
            "MP2RAGE": protocol,
            "B1": "nominal" if b1 is None else "from the map",
            "T1RangeS": [round(t, 4) for t in lookup.t1_range_s],
            "ValidityCodes": {int(code): meaning for code, meaning in MEANING.items()},
        }
        write_atomic(out["sidecar"], json.dumps(sidecar, indent=1, sort_keys=True) + "\n")

    outputs = [out[k] for k in ("t1", "sidecar", "validity")]
    run_step("map T1", work, status=out["status"], outputs=outputs, upstream=[ingested])


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(s.input.uni, s.input.inv2, s.input.tb1, s.input.ingested, dict(s.output.items()), s.params.protocol)
