"""The paper's figures 5 to 8 from the cohort's tables and the patients' sections and profiles."""

from pathlib import Path

import pandas as pd

from nanouptake.figures import save_figure
from nanouptake.figures_cohort import figure5, figure6, figure7, figure8


def read(paths):
    found = [pd.read_csv(p, dtype={"patient": str, "tumor": str}) for p in paths if Path(p).stat().st_size]
    found = [f for f in found if len(f)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def main(inp, out):
    tables = {k: read(inp[k]) for k in ("tumors", "patients", "fits", "null_curve", "sections", "profiles")}
    tumors, patients, fits, null, sections, profiles = tables.values()
    drawn = {
        "figure5": figure5(tumors, patients),
        "figure6": figure6(tumors, patients, fits, null, sections),
        "figure7": figure7(tumors, patients, sections, profiles),
        "figure8": figure8(tumors, patients),
    }
    for name, figure in drawn.items():
        save_figure(figure, out[f"{name}_png"], out[f"{name}_svg"])


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    inp = {k: [v] if isinstance(v, str) else list(v) for k, v in s.input.items()}
    main(inp, dict(s.output.items()))
