"""The cohort's page: one self-contained HTML file, made with jinja2."""

from __future__ import annotations

import base64

import jinja2
import pandas as pd

from . import __version__
from .columns import TABLES

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>NanoUptake report</title>
<style>
:root{color-scheme:light}
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem 1.2rem;color:#1b1b1b}
h1{margin:.2rem 0}h2{margin:2rem 0 .5rem;border-bottom:1px solid #ccc}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid #e2e2e2;text-align:left;vertical-align:top}
td.number{text-align:right}th{background:#f5f5f5}
.failed{color:#a40000;font-weight:600}.flagged{color:#8a5a00;font-weight:600}.ok{color:#1d6b2f}
img,svg{max-width:100%;height:auto}figure{margin:1rem 0}figcaption{color:#555}
@media print{body{max-width:none}figure{break-inside:avoid}}
</style></head><body>
<h1>NanoUptake</h1>
<p>{{ n_tumors }} tumours of {{ n_patients }} patients measured; {{ counts["ok"] }} scans ok,
{{ counts["flagged"] }} flagged, {{ counts["failed"] }} failed. Software version {{ version }}.</p>
<h2>Scans</h2><div class="scroll"><table><thead><tr><th>patient</th><th>timepoint</th><th>status</th>
<th>reason</th></tr></thead><tbody>
{% for row in scans %}<tr><td>{{ row.patient }}</td><td>{{ row.timepoint }}</td>
<td class="{{ row.status }}">{{ row.status }}</td><td>{{ row.reason }}</td></tr>
{% endfor %}</tbody></table></div>
<h2>Uptake by patient</h2><figure>{{ figure|safe }}<figcaption>Mean uptake of every tumour; patients by
descending mean.</figcaption></figure>
<h2>Tumours</h2><div class="scroll"><table><thead><tr>
{% for name, meaning in columns %}<th title="{{ meaning }}">{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for row in tumors %}<tr>{% for cell, number in row -%}
<td{% if number %} class="number"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>
{% endfor %}</tbody></table></div>
<h2>Patients</h2>
{% for patient, picture in pictures %}<figure>
{% if picture %}<img alt="T1 before and after and uptake of patient {{ patient }}"
src="data:image/png;base64,{{ picture }}">
{% else %}<p class="failed">No picture: see the reason in the table of scans.</p>{% endif %}
<figcaption>Patient {{ patient }}: axial section through the largest tumour, with the contours.
</figcaption>
</figure>
{% endfor %}</body></html>
"""
SHOWN = (
    "patient",
    "timepoint",
    "tumor",
    "volume_ml",
    "diameter_mm",
    "mean_mg_ml",
    "sd_mg_ml",
    "upper_quartile_mean_mg_ml",
    "entropy_bits",
    "t1_pre_s",
    "t1_post_s",
    "pattern",
    "flags",
)


def _cell(value: object) -> tuple[str, bool]:
    """Return the text of a table cell and whether it is a number."""
    if isinstance(value, float):
        return ("" if pd.isna(value) else f"{value:.4g}"), True
    return str(value), isinstance(value, int)


def report_html(
    *,
    tumors: pd.DataFrame,
    patients: pd.DataFrame,
    scans: pd.DataFrame,
    figure_svg: str,
    pictures: dict[str, bytes],
) -> str:
    """Return the page; every part is inside it and nothing is fetched."""
    environment = jinja2.Environment(autoescape=True)
    counts = {"ok": 0, "flagged": 0, "failed": 0} | scans["status"].value_counts().to_dict()
    columns = [c for c in SHOWN if c in tumors]
    described = TABLES["tumors"]
    return environment.from_string(TEMPLATE).render(
        version=__version__,
        n_tumors=int(tumors["mean_mg_ml"].notna().sum()),
        n_patients=len(patients),
        counts=counts,
        scans=scans.to_dict("records"),
        figure=figure_svg[figure_svg.index("<svg") :],
        columns=[(c, described[c].meaning) for c in columns],
        tumors=[[_cell(v) for v in row] for row in tumors[columns].itertuples(index=False)],
        pictures=[(p, base64.b64encode(raw).decode()) for p, raw in pictures.items()],
    )
