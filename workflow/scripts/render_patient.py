"""Registration views of one patient, for the page."""

import json
from pathlib import Path

from nanouptake.geometry import read_itk
from nanouptake.images import load, write_atomic
from nanouptake.steps import run_step
from nanouptake.views import registration_views


def main(inp, out):
    def work():
        planning = load(inp["planning"]) if Path(inp["planning"]).stat().st_size else None
        views = registration_views(
            pre=load(inp["pre_t1"]),
            post=load(inp["post_t1"]),
            planning=planning,
            planning_matrix=read_itk(inp["xfm"]),
            coverage=load(inp["coverage"]).data,
            labels=load(inp["labels"]).data,
        )
        write_atomic(out["views"], json.dumps(views, indent=1) + "\n")

    upstream = [inp["labelled"], inp["mapped"]]
    run_step("render patient", work, status=out["status"], outputs=[out["views"]], upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()))
