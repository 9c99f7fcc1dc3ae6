"""The cohort's page."""

from pathlib import Path

import pandas as pd

from nanouptake.images import write_atomic
from nanouptake.report import CAPTIONS, cohort_html, phantom_section
from nanouptake.steps import read_status


def main(inp, out, kinds):
    html = cohort_html(
        tumors=pd.read_csv(inp["tumors"], dtype={"patient": str, "tumor": str, "flags": str}),
        patients=pd.read_csv(inp["patients"], dtype={"patient": str}),
        scans=pd.read_csv(inp["scans"], dtype=str, keep_default_na=False),
        fits=pd.read_csv(inp["fits"]),
        phantoms=[
            phantom_section(
                name,
                kind=kind,
                status=read_status(f"results/phantoms/{name}/status.json"),
                folder=Path(f"results/phantoms/{name}"),
            )
            for name, kind in kinds.items()
        ],
        figures={name: Path(inp[name]).read_text() for name in CAPTIONS},
    )
    write_atomic(out, html)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), s.output[0], s.params.phantoms)
