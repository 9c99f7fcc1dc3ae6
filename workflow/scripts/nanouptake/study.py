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

    @classmethod
    def load(cls, config: dict, *, sheet: Path, schemas: Path) -> Study:
        """Read and validate; raise DataError that names file, field, found and wanted."""
        _validate(config, schemas / "config.schema.json", file="config/config.yaml")
        if not sheet.exists():
            raise DataError(
                "the sheet of scans does not exist",
                file=str(sheet),
                cure="write it, or name it in config: scans",
            )
        with sheet.open(newline="") as stream:
            table = list(csv.DictReader(stream, delimiter="\t"))
        if not table:
            raise DataError(
                "the sheet of scans is empty",
                file=str(sheet),
                wanted="a header and one row per patient and timepoint",
                cure="add the scans",
            )
        rows: dict[tuple[str, str], dict[str, str]] = {}
        for number, row in enumerate(table, start=2):
            if None in row or None in row.values():
                raise DataError(
                    "a row has more or fewer cells than the header",
                    file=f"{sheet}:{number}",
                    cure="separate the cells by single tabs",
                )
            _validate(row, schemas / "scans.schema.json", file=f"{sheet}:{number}")
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
        return cls(config, rows)

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
        return {k.removeprefix("series_"): v for k, v in row.items() if k.startswith("series_") and v}

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
    return "\n".join([*lines, f"Report: {results / 'report.html'}"])


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
    raise DataError(
        "the key is not known" if unknown else "the value is not allowed",
        file=file,
        field=".".join(filter(None, [where, *unknown])) or "(top level)",
        found=first.message,
        wanted="see config/README.md",
        cure="correct the spelling, the unit (times are seconds) or the value",
    )
