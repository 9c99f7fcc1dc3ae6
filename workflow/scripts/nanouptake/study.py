"""The study as config and sheet describe it: validated at the start, asked by the rules."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import DataError


@dataclass(frozen=True)
class Study:
    """Config and scans of one study."""

    config: dict
    rows: dict[tuple[str, str], dict[str, str]]
    phantoms: dict[str, dict[str, str]]
    checkout: Path

    @classmethod
    def load(cls, config: dict, *, sheet: Path, schemas: Path) -> Study:
        """Read and validate; raise DataError that names file, field, found and wanted."""
        _validate(config, schemas / "config.schema.json", file="config/config.yaml")
        table = _read_sheet(sheet, schemas / "scans.schema.json", of="scans", key="scans")
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for number, row in enumerate(table, start=2):
            key = (row["patient"], row["timepoint"])
            if key in rows:
                raise DataError(
                    "a scan is listed twice",
                    file=f"{sheet}:{number}",
                    field="patient, timepoint",
                    found=" ".join(key),
                    cure="keep one of the rows",
                )
            rows[key] = row
        for patient in {p for p, _ in rows}:
            has = {t for p, t in rows if p == patient}
            for needed in ("planning", "pre"):
                if needed not in has:
                    raise DataError(
                        f"patient {patient} has no {needed} scan",
                        file=str(sheet),
                        field="timepoint",
                        found=", ".join(sorted(has)),
                        wanted="planning, pre and at least one post",
                        cure=f"add the row of the {needed} scan, or leave the patient out until it is there",
                    )
            if not any(t.startswith("post") for t in has):
                raise DataError(
                    f"patient {patient} has no post scan",
                    file=str(sheet),
                    field="timepoint",
                    found=", ".join(sorted(has)),
                    cure="add the row of the post scan, or leave the patient out until it is there",
                )
        folded = Counter(p.casefold() for p in {p for p, _ in rows})
        if twice := [p for p, n in folded.items() if n > 1]:
            raise DataError(
                "two patient ids differ in case only",
                file=str(sheet),
                field="patient",
                found=twice,
                cure="give each patient one spelling",
            )
        study = cls(config, rows, _phantoms(config, schemas), schemas.parents[1])
        for patient, timepoint in study.scans:
            study.relaxivity_phantom(patient, timepoint)
        return study

    @property
    def scans(self) -> list[tuple[str, str]]:
        """All (patient, timepoint), sorted."""
        return sorted(self.rows)

    @property
    def patients(self) -> list[str]:
        """All patients, sorted."""
        return sorted({patient for patient, _ in self.rows})

    def posts(self, patient: str) -> list[str]:
        """Post timepoints of a patient, sorted."""
        return sorted(t for p, t in self.rows if p == patient and t.startswith("post"))

    def folder(self, patient: str, timepoint: str) -> str:
        """Return the scan's folder as the sheet gives it."""
        return self.rows[patient, timepoint]["path"]

    def override(self, patient: str, timepoint: str) -> dict[str, str]:
        """Series descriptions chosen in the sheet, by role."""
        row = self.rows[patient, timepoint]
        return _chosen_series(row)

    def relaxivity_phantom(self, patient: str, timepoint: str) -> str | None:
        """Return the phantom of a scan's r1: of its agent batch, or of the config; None for a number."""
        batch = self.rows[patient, timepoint].get("agent_batch")
        named = self.config["agent"]["r1"]
        of_kind = [n for n, row in self.phantoms.items() if row["kind"] == "relaxivity"]
        if batch:
            found = [n for n in of_kind if self.phantoms[n].get("agent_batch") == batch]
            if len(found) != 1:
                raise DataError(
                    f"{len(found) or 'no'} relaxivity phantoms of the agent batch",
                    file=self.config["scans"],
                    field=f"agent_batch of {patient} {timepoint}",
                    found=batch,
                    wanted="one relaxivity phantom with this agent_batch in the sheet of phantoms",
                    cure="add the phantom, correct the batch, or leave the cell empty (then agent.r1 counts)",
                )
            return found[0]
        if isinstance(named, str):
            if named not in of_kind:
                raise DataError(
                    "the phantom that agent.r1 names is not a relaxivity phantom of the sheet",
                    file="config/config.yaml",
                    field="agent.r1",
                    found=named,
                    wanted=", ".join(of_kind) or "a phantom of kind relaxivity",
                    cure="correct the name, or give {per_mm_per_s: ..., sd_per_mm_per_s: ...}",
                )
            return named
        return None

    def agent(self, patient: str, timepoint: str) -> dict:
        """Return the config's agent, or nothing of it where a phantom gives the scan's relaxivity."""
        return {} if self.relaxivity_phantom(patient, timepoint) else self.config["agent"]

    def phantom_settings(self, phantom: str) -> dict:
        """Return what the rules need of a phantom's row, numbers as numbers, defaults filled in."""
        row = self.phantoms[phantom]
        general = self.config.get("phantoms", {})
        number = {
            k: float(row[k]) for k in ("temperature_k", "rotation_deg", "mg_per_ml_per_mm") if row.get(k)
        }
        return {
            "kind": row["kind"],
            "method": row.get("method") or general.get("method", "mp2rage"),
            "axis": row.get("axis") or "slice",
            "slices": [int(k) for k in row["slices"].split("-")] if row.get("slices") else None,
            "distinguishing_vial": row.get("distinguishing_vial") or None,
            "temperature_k": number.get("temperature_k"),
            "rotation_deg": number.get("rotation_deg"),
            "mg_per_ml_per_mm": number.get("mg_per_ml_per_mm", self.config["agent"]["mg_per_ml_per_mm"]),
            "form": general.get("relaxivity_form", "saline_baseline"),
        }

    def phantom_layout(self, phantom: str) -> str:
        """Return the layout's file: the study's own, or of that name among the built-in ones."""
        name = self.phantoms[phantom]["layout"]
        built_in = self.checkout / f"resources/phantoms/{name.removesuffix('.tsv')}.tsv"
        return name if Path(name).is_file() or not built_in.is_file() else str(built_in)

    def phantom_override(self, phantom: str) -> dict[str, str]:
        """Series descriptions chosen in the sheet of phantoms, by role."""
        return {
            k.removeprefix("series_"): v
            for k, v in self.phantoms[phantom].items()
            if k[:7] == "series_" and v
        }

    def phantom_listing(self, phantom: str) -> str:
        """Digest of names, sizes and times of a phantom's files."""
        return "reference" if self.is_reference_phantom(phantom) else _listing(self.phantoms[phantom]["path"])

    def is_reference_phantom(self, phantom: str) -> bool:
        """Whether a phantom's scan is written by the reference trial."""
        return self.phantoms[phantom]["path"].startswith(f"{self.reference_folder}/phantoms/{phantom}")

    @property
    def reference_folder(self) -> str:
        """Folder in which the reference trial is written."""
        return self.config.get("reference_trial", {}).get("folder", "resources/reference_trial")

    def reference_specification(self, checkout: str) -> str:
        """Return the specification of the reference trial: the study's own or the built-in one."""
        own = self.config.get("reference_trial", {}).get("specification")
        return own or os.path.join(checkout, "resources/phantoms/reference_trial.yaml")

    def is_reference(self, patient: str) -> bool:
        """Whether a patient's scans are written by the reference trial."""
        return self.folder(patient, "pre").startswith(f"{self.reference_folder}/{patient}/")

    def listing(self, patient: str, timepoint: str) -> str:
        """Digest of names, sizes and times of a scan's files; it changes when a file does."""
        if self.is_reference(patient):
            return "reference"
        return _listing(self.folder(patient, timepoint))


def closing_words(results: Path) -> str:
    """Return the summary of a run: scans ok, flagged and failed, the reasons, and where the report is."""
    table = results / "cohort/scans.csv"
    if not table.exists():
        return "No table of scans was made; see the log above for the first job that failed."
    with table.open(newline="") as stream:
        scans = list(csv.DictReader(stream))
    count = Counter(row["status"] for row in scans)
    lines = [f"Scans: {count['ok']} ok, {count['flagged']} flagged, {count['failed']} failed."]
    for row in scans:
        if row["status"] != "ok":
            lines.append(f"  {row['status']}: patient {row['patient']} {row['timepoint']}: {row['reason']}")
    for path in sorted((results / "phantoms").glob("*/status.json")):
        status = json.loads(path.read_text())
        state = "failed" if not status["ok"] else "flagged" if status["flags"] else "ok"
        words = status["reason"] or "; ".join(status["flags"])
        lines.append(f"Phantom {path.parent.name}: {state}" + (f": {words}" if words else ""))
    return "\n".join([*lines, f"Report: {results / 'report.html'}"])


def _chosen_series(row: dict[str, str]) -> dict[str, str]:
    return {k.removeprefix("series_"): v for k, v in row.items() if k.startswith("series_") and v}


def _read_sheet(sheet: Path, schema: Path, *, of: str, key: str) -> list[dict[str, str]]:
    """Read a table of tab-separated cells and validate every row; DataError names file, row and field."""
    if not sheet.exists():
        raise DataError(
            f"the sheet of {of} does not exist",
            file=str(sheet),
            wanted="a table of cells separated by tabs",
            cure=f"write it, or name it in config: {key}",
        )
    with sheet.open(newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    if not table:
        raise DataError(
            f"the sheet of {of} is empty",
            file=str(sheet),
            wanted="a header and at least one row",
            cure=f"add the {of}",
        )
    for number, row in enumerate(table, start=2):
        if None in row or None in row.values():
            raise DataError(
                "a row has more or fewer cells than the header",
                file=f"{sheet}:{number}",
                found=f"{sum(v is not None for k, v in row.items() if k) + len(row.get(None) or [])} cells",
                wanted=f"{sum(k is not None for k in row)}",
                cure="separate the cells by single tabs",
            )
        _validate(row, schema, file=f"{sheet}:{number}")
    return table


def _phantoms(config: dict, schemas: Path) -> dict[str, dict[str, str]]:
    """Return the rows of the sheet of phantoms by name; none where the config names no sheet."""
    if "phantoms" not in config:
        return {}
    sheet = Path(config["phantoms"]["sheet"])
    rows: dict[str, dict[str, str]] = {}
    for number, row in enumerate(
        _read_sheet(sheet, schemas / "phantoms.schema.json", of="phantoms", key="phantoms.sheet"), start=2
    ):
        if row["phantom"] in rows:
            raise DataError(
                "a phantom is listed twice",
                file=f"{sheet}:{number}",
                field="phantom",
                found=row["phantom"],
                cure="keep one of the rows",
            )
        rows[row["phantom"]] = row
    return rows


@cache
def _listing(folder: str) -> str:
    """Digest of the names, sizes and modification times below a folder."""
    lines = []
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        waiting.append(entry.path)
                    else:
                        stat = entry.stat()
                        lines.append(f"{entry.path[len(folder) :]} {stat.st_size} {stat.st_mtime_ns}")
        except OSError as error:
            lines.append(f"unreadable {error.errno}")
    return hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()[:16]


@cache
def _schema(path: Path) -> dict:
    return json.loads(path.read_text())


def _validate(instance: dict, schema: Path, *, file: str) -> None:
    """Validate against a JSON schema; the first problem becomes a DataError."""
    import jsonschema

    # Snakemake hands values of --config on as its own types; JSON has the plain ones.
    problems = sorted(
        jsonschema.Draft202012Validator(_schema(schema)).iter_errors(json.loads(json.dumps(instance))),
        key=lambda e: list(map(str, e.path)),
    )
    if not problems:
        return
    first = problems[0]
    where = ".".join(str(p) for p in first.absolute_path)
    unknown = re.findall(r"'([^']+)' (?:was|were) unexpected", first.message)
    lacking = re.findall(r"'([^']+)' is a required property", first.message)
    if where == "mp2rage" and lacking:
        from .protocol_check import NEEDED

        raise DataError(
            "the MP2RAGE protocol lacks a timing",
            file=file,
            field=f"mp2rage.{lacking[0]}",
            found="nothing",
            wanted=NEEDED,
            cure="fill it in from the protocol printout; where the scanner exported UNI and T1 images of one "
            "scan, .venv/bin/python -m nanouptake.protocol_check FOLDER reads it back from them",
        )
    raise DataError(
        "the key is not known" if unknown else "the value is not allowed",
        file=file,
        field=".".join(filter(None, [where, *unknown])) or "(top level)",
        found=first.message,
        wanted="see config/README.md",
        cure="correct the spelling, the unit (times are seconds) or the value",
    )
