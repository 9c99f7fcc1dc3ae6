"""Concentration map of one post scan in the analysis space: UNI is resampled once, by B-spline."""

import json
from dataclasses import asdict

import numpy as np

from nanouptake.concentration import code_where_unknown, concentration, relative_b1, resample
from nanouptake.geometry import read_itk
from nanouptake.images import load, save, write_atomic
from nanouptake.mp2rage import Lookup, Protocol, from_dn
from nanouptake.phantoms import relaxivity_of
from nanouptake.steps import run_step
from nanouptake.validity import MEANING, Validity


def main(inp, out, timepoint, protocol, agent):
    def work():
        pre, pre_code = load(inp["pre_t1"]), load(inp["pre_validity"]).data
        to_post = read_itk(inp["xfm"])
        if inp.get("planning_to_pre"):
            to_post = to_post @ np.linalg.inv(read_itk(inp["planning_to_pre"]))
        uni, inside = resample(
            load(inp["post_uni"]),
            shape=pre.shape,
            affine=pre.affine,
            matrix=to_post,
            where=pre_code == Validity.OK,
        )
        b1 = relative_b1(inp["post_tb1"], shape=pre.shape, affine=pre.affine, matrix=to_post)
        post = Lookup(Protocol(**protocol)).estimate(from_dn(uni), b1=b1)
        code = code_where_unknown(pre_code, post.validity, inside)
        relaxivity = relaxivity_of(agent, inp["relaxivity"])
        conc = concentration(
            pre.data,
            post.t1_s,
            r1_per_mm_per_s=relaxivity.per_mm_per_s,
            mg_per_ml_per_mm=relaxivity.mg_per_ml_per_mm,
        )
        save(out["concentration"], pre.like(conc.astype(np.float32)))
        save(out["validity"], pre.like(code))
        save(out["t1"], pre.like(post.t1_s))
        codes = {int(c): meaning for c, meaning in MEANING.items()}
        sidecar = {"Units": "mg/ml", "Agent": asdict(relaxivity), "ValidityCodes": codes}
        write_atomic(out["sidecar"], json.dumps(sidecar, indent=1, sort_keys=True) + "\n")

    outputs = [out[k] for k in ("concentration", "sidecar", "validity", "t1")]
    upstream = [*inp["registered"], *inp["relaxed"]]
    run_step(f"map uptake {timepoint}", work, status=out["status"], outputs=outputs, upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    inp, out = dict(s.input.items()), dict(s.output.items())
    for name in ("registered", "relaxed"):
        inp[name] = [inp[name]] if isinstance(inp[name], str) else list(inp[name])
    main(inp, out, s.wildcards.timepoint, s.params.protocol, s.params.agent)
