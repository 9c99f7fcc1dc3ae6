"""The cohort's page."""

from pathlib import Path

import pandas as pd

from nanouptake.images import write_atomic
from nanouptake.report import CAPTIONS, cohort_html


def main(inp, out):
    html = cohort_html(
        tumors=pd.read_csv(inp["tumors"], dtype={"patient": str, "tumor": str, "flags": str}),
        patients=pd.read_csv(inp["patients"], dtype={"patient": str}),
        scans=pd.read_csv(inp["scans"], dtype=str, keep_default_na=False),
        fits=pd.read_csv(inp["fits"]),
        figures={name: Path(inp[name]).read_text() for name in CAPTIONS},
    )
    write_atomic(out, html)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), s.output[0])
