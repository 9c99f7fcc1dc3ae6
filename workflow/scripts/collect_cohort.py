"""Tables of all tumours, patients and scans, and figure 5."""

from pathlib import Path

import pandas as pd

from nanouptake.columns import TABLES, write_table
from nanouptake.figures import figure5, save_figure
from nanouptake.steps import read_status
from nanouptake.tumors import patient_table


def main(inp, out, scans):
    frames = [pd.read_csv(p, dtype={"patient": str}) for p in inp["tables"] if Path(p).stat().st_size]
    tumors = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(TABLES["tumors"]))
    patients = patient_table(tumors)
    statuses = {Path(p).parent.name: read_status(p) for p in inp["statuses"]}
    ingested = {(Path(p).parts[-3], Path(p).parts[-2]): read_status(p) for p in inp["ingested"]}
    mapped = {Path(p).name.split("_space")[0]: read_status(p) for p in inp["mapped"]}
    rows = []
    for patient, timepoint in scans:
        own = ingested[f"sub-{patient}", f"ses-{timepoint}"]
        whole = statuses[f"sub-{patient}"]
        deciding = own
        if own["ok"]:
            deciding = mapped.get(f"sub-{patient}_ses-{timepoint}", own) if timepoint != "planning" else whole
        status = "failed" if not deciding["ok"] else "flagged" if deciding["flags"] else "ok"
        reason = deciding["reason"] or "; ".join(deciding["flags"])
        rows.append({"patient": patient, "timepoint": timepoint, "status": status, "reason": reason})
    write_table(out["tumors"], tumors, "tumors")
    write_table(out["patients"], patients, "patients")
    write_table(out["scans"], pd.DataFrame(rows), "scans")
    save_figure(figure5(tumors), out["figure_png"], out["figure_svg"])


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()), s.params.scans)
