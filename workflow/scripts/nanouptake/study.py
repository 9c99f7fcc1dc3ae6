"""The study as config and sheet describe it: validated at the start, asked by the rules."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from .errors import DataError

REFERENCE_MB = 220.0  # what the reference trial writes for a patient
GZIP_RATIO = 3  # of MR images of 12 bits
EXIT_FAILED_DATA = 3  # the run is whole, and the data of some patients or phantoms could not be used
SEVERITY = ("", "ok", "flagged", "failed")
STOPPED = "Jobs failed (see above): tables and report are those of the last whole run. What it ended with:"


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
        _check_protocol(config["mp2rage"])
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
        for patient, has in _timepoints(rows).items():
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
        folded = Counter(p.casefold() for p in _timepoints(rows))
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

    def section(self, name: str) -> dict:
        """Return a section of the config, its keys in order: moving lines in the file reruns nothing."""
        return _in_order(self.config.get(name, {}))

    @property
    def scans(self) -> list[tuple[str, str]]:
        """All (patient, timepoint), sorted."""
        return [(patient, timepoint) for patient in self.patients for timepoint in self.timepoints[patient]]

    @cached_property
    def timepoints(self) -> dict[str, list[str]]:
        """Sorted timepoints of every patient; made once, for the rules ask for them at every job."""
        return {patient: sorted(has) for patient, has in sorted(_timepoints(self.rows).items())}

    @property
    def patients(self) -> list[str]:
        """All patients, sorted."""
        return list(self.timepoints)

    def posts(self, patient: str) -> list[str]:
        """Post timepoints of a patient, sorted."""
        return [t for t in self.timepoints[patient] if t.startswith("post")]

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
        return {} if self.relaxivity_phantom(patient, timepoint) else self.section("agent")

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
        return (
            "reference" if self.is_reference_phantom(phantom) else _listing(self.phantoms[phantom]["path"])[0]
        )

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
        return _listing(self.folder(patient, timepoint))[0]

    def raw_mb(self, patient: str) -> float:
        """Size of a patient's scans without compression, about; of a reference patient what is written."""
        if self.is_reference(patient):
            return REFERENCE_MB
        return sum(_listing(self.folder(patient, t))[1] for t in self.timepoints[patient]) / 2**20

    def phantom_mb(self, phantom: str) -> float:
        """Size of a phantom's scan without compression, about."""
        if self.is_reference_phantom(phantom):
            return REFERENCE_MB
        return _listing(self.phantoms[phantom]["path"])[1] / 2**20


def closing_words(results: Path, *, stopped: bool = False) -> str:
    """Return the summary of a run: patients and scans by status, the reasons, and where the report is."""
    table = results / "cohort/scans.csv"
    if not table.exists():
        return "No table of scans was made; see the log above for the first job that failed."
    with table.open(newline="") as stream:
        scans = list(csv.DictReader(stream))
    worst: dict[str, str] = {}
    for row in scans:
        worst[row["patient"]] = max(worst.get(row["patient"], ""), row["status"], key=SEVERITY.index)
    lines = [STOPPED] if stopped else []
    for what, states in (("Patients", worst.values()), ("Scans", [row["status"] for row in scans])):
        count = Counter(states)
        lines.append(f"{what}: {count['ok']} ok, {count['flagged']} flagged, {count['failed']} failed.")
    for row in scans:
        if row["status"] != "ok":
            lines.append(f"  {row['status']}: patient {row['patient']} {row['timepoint']}: {row['reason']}")
    for path in sorted((results / "phantoms").glob("*/status.json")):
        status = json.loads(path.read_text())
        state = "failed" if not status["ok"] else "flagged" if status["flags"] else "ok"
        words = status["reason"] or "; ".join(status["flags"])
        lines.append(f"Phantom {path.parent.name}: {state}" + (f": {words}" if words else ""))
    return "\n".join([*lines, f"Report: {results / 'report.html'}"])


def _in_order(value):  # type: ignore[no-untyped-def]
    return {k: _in_order(value[k]) for k in sorted(value)} if isinstance(value, dict) else value


def _check_protocol(settings: dict) -> None:
    """Raise DataError for delays that are impossible, before the first job."""
    from .mp2rage import Protocol

    try:
        Protocol(**settings)
    except DataError as error:
        error.file = "config/config.yaml"
        raise


def failed_data(results: Path) -> list[str]:
    """Return the patients and phantoms whose data failed in the last run."""
    table = results / "cohort/scans.csv"
    if not table.exists():
        return []
    with table.open(newline="") as stream:
        patients = {row["patient"] for row in csv.DictReader(stream) if row["status"] == "failed"}
    statuses = (results / "phantoms").glob("*/status.json")
    phantoms = {p.parent.name for p in statuses if not json.loads(p.read_text())["ok"]}
    return sorted(patients) + sorted(phantoms)


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
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as stream:
            table = list(csv.DictReader(stream, delimiter="\t"))
    except (csv.Error, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the sheet of {of} cannot be read",
            file=str(sheet),
            found=f"{type(error).__name__}: {error}",
            wanted="text in UTF-8, cells separated by tabs",
            cure="save it as tab-separated text in UTF-8",
        ) from error
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
def _listing(folder: str) -> tuple[str, int]:
    """Digest of the names, sizes and modification times below a folder, and its bytes, gzip undone."""
    lines, total = [], 0
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        stat = entry.stat(follow_symlinks=os.path.exists(entry.path))
                        lines.append(f"{entry.path[len(folder) :]} {stat.st_size} {stat.st_mtime_ns}")
                        total += stat.st_size * (GZIP_RATIO if entry.name.endswith(".gz") else 1)
        except OSError as error:
            lines.append(f"unreadable {error.errno}")
    text = "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:16], total


def _timepoints(rows: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Return the timepoints of every patient."""
    found: dict[str, set[str]] = defaultdict(set)
    for patient, timepoint in rows:
        found[patient].add(timepoint)
    return found


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
