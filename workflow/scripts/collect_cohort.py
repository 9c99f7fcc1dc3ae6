"""Tables of all tumours, patients, scans and statistics; a patient whose table is bad fails alone."""

import json
from pathlib import Path

import pandas as pd

from nanouptake.cohort import AGENT, check_tumors, first_post, fits, null_curve, patient_groups
from nanouptake.columns import TABLES, write_table
from nanouptake.errors import DataError
from nanouptake.images import write_atomic
from nanouptake.provenance import made_by
from nanouptake.steps import read_status
from nanouptake.tumors import patient_table


def read_tumors(paths, patients):
    """Return the joined table, and the reason by patient whose table cannot be used."""
    frames, bad = [], {}
    for patient, path in zip(patients, paths, strict=True):
        if not Path(path).stat().st_size:
            continue
        try:
            frame = pd.read_csv(path, dtype={"patient": str, "tumor": str, "flags": str})
            check_tumors(frame, file=path)
            frames.append(frame)
        except (DataError, pd.errors.ParserError) as error:
            bad[patient] = f"collect cohort: {error}"
    frames = [f for f in frames if len(f)]
    empty = pd.DataFrame(columns=list(TABLES["tumors"]))
    return (pd.concat(frames, ignore_index=True) if frames else empty), bad


def main(inp, out, patients, scans, infusion_to_scan_min, blur_sd_mm):
    tumors, bad = read_tumors(inp["tables"], patients)
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
        if patient in bad and timepoint.startswith("post"):
            status, reason = "failed", bad[patient]
        rows.append({"patient": patient, "timepoint": timepoint, "status": status, "reason": reason})
    minutes = {(p, t): float(m) for p, t, m in infusion_to_scan_min}
    quality = {}
    for path in map(Path, inp["registered"]):
        patient, _, timepoint = path.name.removeprefix("sub-").partition("_from-")
        found = read_status(path)["details"].get("uni-uni", {}).get("gradient_correlation")
        if found is not None:
            quality[patient, timepoint.partition("_")[0]] = float(found)
    joined = patient_table(tumors, infusion_to_scan_min=minutes, registration_quality=quality)
    table, arms = patient_groups(joined)
    first = first_post(tumors)
    agent = first[first["patient"].isin(table.loc[table["group"] == AGENT, "patient"])]
    write_table(out["tumors"], tumors, "tumors")
    write_table(out["patients"], table, "patients")
    tables = [path for path in out.values() if isinstance(path, str)]
    record = {"step": "collect cohort", "ok": True, "reason": "", "made_by": made_by(tables)}
    write_atomic(out["provenance"], json.dumps(record, indent=1, sort_keys=True) + "\n")
    write_table(out["scans"], pd.DataFrame(rows, columns=list(TABLES["scans"])), "scans")
    write_table(out["fits"], fits(first, table, arms, blur_sd_mm=blur_sd_mm), "fits")
    write_table(
        out["null_curve"], null_curve(agent if len(agent) else first, blur_sd_mm=blur_sd_mm), "null_curve"
    )


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    inp = {k: [v] if isinstance(v, str) else list(v) for k, v in s.input.items()}
    p = s.params
    main(inp, dict(s.output.items()), p.patients, p.scans, p.infusion_to_scan_min, p.blur_sd_mm)
