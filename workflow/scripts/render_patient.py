"""Registration views of one patient, and the figure of how the contour travels."""

import json
from pathlib import Path

import numpy as np

from nanouptake.figures import save_figure
from nanouptake.geometry import read_itk
from nanouptake.images import load, write_atomic
from nanouptake.steps import run_step
from nanouptake.views import propagation_figure, registration_views


def main(inp, out, space):
    def work():
        to_pre = np.eye(4) if space == "pre" else np.linalg.inv(read_itk(inp["planning_xfm"]))
        others = [
            (name, load(inp[key]), read_itk(inp[f"{key}_xfm"]) @ to_pre)
            for name, key in (("MPRAGE", "t1w"), ("planning MR", "planning"))
            if Path(inp[key]).stat().st_size
        ]
        views = registration_views(
            pre=load(inp["pre_t1"]),
            post=load(inp["post_t1"]),
            others=others,
            coverage=load(inp["coverage"]).data,
            labels=load(inp["labels"]).data,
        )
        save_figure(propagation_figure(views), out["figure_png"], out["figure_svg"])
        write_atomic(out["views"], json.dumps(views, indent=1) + "\n")

    outputs = [out[k] for k in ("views", "figure_png", "figure_svg")]
    upstream = [inp["labelled"], inp["mapped"]]
    run_step("render patient", work, status=out["status"], outputs=outputs, upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()), s.params.space)
