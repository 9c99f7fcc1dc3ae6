"""The report page."""

from pathlib import Path

import pandas as pd

from nanouptake.images import write_atomic
from nanouptake.report import report_html


def main(inp, out, patients):
    html = report_html(
        tumors=pd.read_csv(inp["tumors"], dtype={"patient": str}),
        patients=pd.read_csv(inp["patients"], dtype={"patient": str}),
        scans=pd.read_csv(inp["scans"], dtype=str, keep_default_na=False),
        figure_svg=Path(inp["figure"]).read_text(),
        pictures={p: Path(f).read_bytes() for p, f in zip(patients, inp["pictures"], strict=True)},
    )
    write_atomic(out, html)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), s.output[0], s.params.patients)
