"""The pages: self-contained HTML, one of the cohort and one per patient, made with jinja2."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import pandas as pd

from . import __version__
from .columns import TABLES, Column
from .figures import save_figure
from .figures_cohort import tumor_strip
from .uncertainty import SOURCES

TEMPLATES = Path(__file__).parent / "templates"
CAPTIONS = {
    "figure5": "Figure 5. Mean uptake of every tumour (dots), patient means (coloured stars) and mean upper "
    "quartiles (black stars); patients by descending mean, suspected arms apart.",
    "figure6": "Figure 6. Mean uptake against the diameter of the equal-volume sphere, lines of least "
    "absolute residuals, and the curve that partial volume alone would give; sections on one scale.",
    "figure7": "Figure 7. The largest tumour of each pattern: section and profiles in the patient's axes.",
    "figure8": "Figure 8. Volume of the largest tumour of each suspected-agent patient by concentration.",
}

PHANTOM_CAPTIONS = {
    "accuracy": {
        "map": "T1 map, the cores of the vials outlined (the paper's figure 1 B).",
        "fit": "Measured against true T1 with the tolerance, and the differences (figure 1 C).",
    },
    "relaxivity": {
        "map": "T1 map, the cores of the vials outlined (the paper's figure 2 A).",
        "fit": "T1 and R1 against concentration, the line with its 95 % band (figure 2 C and D).",
    },
}
PROTOCOL_COLUMNS = ["scan", "image", "field", "header", "config", "unit"]


def _cell(value: object, name: str) -> dict:
    """Return text, sorting key, class and link of a table cell."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return {"text": "", "value": "", "kind": "", "link": ""}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return {"text": text, "value": f"{value:.9g}", "kind": "number", "link": ""}
    text = str(value)
    kind = text if name == "status" else "long" if len(text) > 40 else ""
    return {"text": text, "value": text, "kind": kind, "link": ""}


def table_of(frame: pd.DataFrame, table: str, *, link: str = "") -> dict:
    """Return what the template needs of a table; link is a pattern with {patient} for that column."""
    known = TABLES.get(table, {})
    fraction = Column("1", "fraction of the voxels in this range of mg/ml")
    words = [known.get(c, fraction if c.startswith("fraction_") else Column("", "")) for c in frame.columns]
    columns = [
        {"name": c, "unit": w.unit, "meaning": w.meaning} for c, w in zip(frame.columns, words, strict=True)
    ]
    rows = []
    for record in frame.to_dict("records"):
        cells = [_cell(v, str(c)) for c, v in record.items()]
        if link and "patient" in record:
            cells[list(record).index("patient")]["link"] = link.format(patient=record["patient"])
        rows.append(cells)
    return {"id": table, "columns": columns, "rows": rows}


def _render(template: str, **values: object) -> str:
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(template).render(version=__version__, **values)


def _inline(svg: str, name: str) -> str:
    """Return an SVG for use inside HTML, its ids made unique to the figure."""
    svg = svg[svg.index("<svg") :]
    return (
        svg.replace('id="', f'id="{name}-')
        .replace("url(#", f"url(#{name}-")
        .replace('href="#', f'href="#{name}-')
    )


def cohort_html(
    *,
    tumors: pd.DataFrame,
    patients: pd.DataFrame,
    scans: pd.DataFrame,
    fits: pd.DataFrame,
    figures: dict[str, str],
    phantoms: list[dict],
) -> str:
    """Return the cohort's page. Nothing in it is fetched.

    figures are the SVG texts by name; phantoms are dicts of phantom_section.
    """
    link = "sub-{patient}/sub-{patient}_report.html"
    worst_first = scans.sort_values(
        "status", key=lambda s: s.map({"failed": 0, "flagged": 1, "ok": 2}), kind="stable"
    )
    tables = {
        "scans": table_of(worst_first, "scans", link=link),
        "fits": table_of(fits, "fits"),
        "patients": table_of(patients, "patients", link=link),
        "tumors": table_of(tumors, "tumors", link=link),
    }
    arms = fits.loc[fits["fit"] == "arms", "meaning"]
    return _render(
        "cohort.html",
        title="NanoUptake: the cohort",
        n_tumors=int(tumors["mean_mg_ml"].notna().sum()),
        n_patients=int(tumors.loc[tumors["mean_mg_ml"].notna(), "patient"].nunique()),
        counts={"ok": 0, "flagged": 0, "failed": 0} | scans["status"].value_counts().to_dict(),
        arms=arms.iloc[0].partition(": ")[2] if len(arms) else "not computed",
        tables=tables,
        phantoms=phantoms,
        figures=[{"svg": _inline(svg, k), "caption": CAPTIONS[k]} for k, svg in figures.items()],
    )


def phantom_section(name: str, *, kind: str, status: dict, folder: Path) -> dict:
    """Return what the cohort's page needs of a phantom; its files lie in ``folder``.

    A phantom that failed shows its reason and, where there is one, the picture of what was found.
    """
    figures = folder / "figures"
    svgs = [
        {"svg": _inline((figures / f"{n}.svg").read_text(), f"{name}-{n}"), "caption": words}
        for n, words in PHANTOM_CAPTIONS[kind].items()
        if status["ok"]
    ]
    found = (figures / "found.png").read_bytes() if not status["ok"] else b""
    tables = {}
    if status["ok"]:
        for table, known in (("summary", "phantom_summary"), ("vials", f"vials_{kind}")):
            tables[table] = table_of(pd.read_csv(folder / f"{table}.csv", dtype={"vial": str}), known)
            tables[table]["id"] = f"{name}-{table}"
    return {
        "name": name,
        "kind": kind,
        "state": "failed" if not status["ok"] else "flagged" if status["flags"] else "ok",
        "words": status["reason"] or "; ".join(status["flags"]),
        "figures": svgs,
        "found": base64.b64encode(found).decode(),
        "tables": tables,
    }


def _interval(row: pd.Series, name: str, unit: str) -> str:
    low, high = row[f"{name}_low_{unit}"], row[f"{name}_high_{unit}"]
    return f"{row[f'{name}_{unit}']:.3f} ({low:.3f} to {high:.3f})"


def _dominant(row: pd.Series) -> str:
    """Return the source that contributes most to the mean's interval, in words."""
    parts = {s: row[f"sd_{s}_mg_ml"] for s in SOURCES if pd.notna(row[f"sd_{s}_mg_ml"])}
    return max(parts, key=lambda s: parts[s]).replace("_", " ") if parts else "nothing known"


def patient_html(
    *,
    patient: str,
    steps: list[dict],
    series: pd.DataFrame,
    views: list[dict],
    picture: bytes,
    tumors: pd.DataFrame,
    sections: pd.DataFrame,
    profiles: pd.DataFrame,
) -> str:
    """Return a patient's page.

    Parameters
    ----------
    patient : str
        The pseudonym.
    steps : list of dict
        Statuses of the patient's steps, in order.
    series : DataFrame
        What was found in the folders, by timepoint.
    views : list of dict
        From views.registration_views.
    picture : bytes
        PNG, or empty.
    tumors, sections, profiles : DataFrame
        The patient's tables; empty where a step failed.
    """
    rows = [
        {
            "step": s["step"],
            "status": "failed" if not s["ok"] else "flagged" if s["flags"] else "ok",
            "reason": s["reason"] or "; ".join(s["flags"]),
            "quality": "; ".join(
                f"{k}: " + ", ".join(f"{a} {b}" for a, b in v.items())
                for k, v in s["details"].items()
                if isinstance(v, dict)
            ),
        }
        for s in steps
    ]
    protocol = [
        {"scan": s["step"].removeprefix("ingest "), **row}
        for s in steps
        for row in s["details"].get("protocol", [])
    ]
    strips = []
    for _, row in tumors.iterrows():
        picture_of = io.BytesIO()
        save_figure(tumor_strip(row, sections, profiles), picture_of)
        words = (
            f"{row['timepoint']}: mean {row['mean_mg_ml']:.3f}, SD {row['sd_mg_ml']:.3f}, upper quartile "
            f"{row['upper_quartile_mean_mg_ml']:.3f} mg/ml; partial volume taken out: mean "
            f"{_interval(row, 'mean_pvc', 'mg_ml')}, upper quarter "
            f"{_interval(row, 'upper_quartile_mean_pvc', 'mg_ml')} mg/ml (95 % intervals, mostly from "
            f"{_dominant(row)}); {row['volume_ml']:.3g} ml, "
            f"{row['diameter_mm']:.1f} mm; {row['pattern']}"
        )
        png = base64.b64encode(picture_of.getvalue()).decode()
        flags = row["flags"] if isinstance(row["flags"], str) else ""
        strips.append({"name": row["tumor"], "words": words, "flags": flags, "png": png})
    expected = [
        f"{s['step']}: {'with' if s['details']['b1']['map'] else 'without'} a B1+ map; timings and transmit "
        f"field cost {100 * s['details']['b1']['expected_relative_error']:.1f} % (SD) of the uptake."
        for s in steps
        if "b1" in s["details"]
    ]
    columns = ["step", "status", "reason", "quality"]
    return _render(
        "patient.html",
        title=f"NanoUptake: patient {patient}",
        patient=patient,
        tables={
            "steps": table_of(pd.DataFrame(rows, columns=columns), "steps"),
            "series": table_of(series, "series"),
            "protocol": table_of(pd.DataFrame(protocol, columns=PROTOCOL_COLUMNS), "protocol"),
            "tumors": table_of(tumors.drop(columns=["patient"], errors="ignore"), "tumors"),
        },
        protocol_rows=len(protocol),
        expected=expected,
        views=views,
        picture=base64.b64encode(picture).decode(),
        strips=strips,
    )
