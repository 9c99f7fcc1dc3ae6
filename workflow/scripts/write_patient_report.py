"""One patient's page."""

import json
from pathlib import Path

import pandas as pd

from nanouptake.images import write_atomic
from nanouptake.report import patient_html
from nanouptake.steps import read_status


def table(path, **options):
    if not Path(path).stat().st_size:
        return pd.DataFrame()
    return pd.read_csv(path, dtype={"patient": str, "tumor": str, "flags": str}, **options)


def main(inp, out, patient):
    parts = [
        table(p, sep="\t", keep_default_na=False).assign(timepoint=Path(p).parent.name.removeprefix("ses-"))
        for p in inp["series"]
        if Path(p).stat().st_size
    ]
    series = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if len(series):
        series.insert(0, "timepoint", series.pop("timepoint"))
    html = patient_html(
        patient=patient,
        steps=[read_status(p) for p in inp["statuses"]],
        series=series,
        views=json.loads(Path(inp["views"][0]).read_text() or "[]"),
        picture=Path(inp["picture"][0]).read_bytes(),
        tumors=table(inp["tumors"][0]),
        sections=table(inp["sections"][0]),
        profiles=table(inp["profiles"][0]),
    )
    write_atomic(out, html)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    inp = {k: [v] if isinstance(v, str) else list(v) for k, v in s.input.items()}
    main(inp, s.output[0], s.wildcards.patient)
