"""Where a number comes from: what made every file, and the way back from a cell of tumors.csv to the series.

    python -m nanouptake.provenance STUDY PATIENT TUMOR [COLUMN] [TIMEPOINT]

Every step's status says, under ``made_by``, the software's version, the digests of the code and of the
settings that the step read, the digest of every file it read, and, where the scans come in, the hashed UIDs
of the series (of NIfTI: the digest of the voxels).
"""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import __version__
from .errors import DataError

ELSEWHERE = ("code", "listing", "folder", "templates")  # of the params: said otherwise, or of this machine


def digest(content: bytes) -> str:
    """Return 16 hexadecimal digits of a content's BLAKE2b hash."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def made_by(outputs: Iterable[str | Path]) -> dict[str, Any]:
    """Return what is known of the running job; nothing outside the workflow.

    Files are named as the study sees them (below results/), others by their name alone, so that the record
    is the same on every machine.
    """
    job = getattr(sys.modules.get("__main__"), "snakemake", None)
    if not hasattr(job, "rule"):
        return {}
    assert job is not None
    params = {k: v for k, v in job.params.items() if k not in ELSEWHERE}
    settings = json.dumps(params, sort_keys=True, default=str)
    return {
        "rule": job.rule,
        "software": f"nanouptake {__version__}",
        "code": job.params.code,
        "settings": digest(settings.encode()),
        "inputs": {_name(p): digest(Path(p).read_bytes()) for p in job.input},
        "outputs": sorted(_name(p) for p in outputs),
    }


def _name(path: str | Path) -> str:
    return str(path) if str(path).startswith("results/") else Path(path).name


def records(study: Path) -> dict[str, dict]:
    """Return the record that made each file of a study's results, by the file's name."""
    found = {}
    for path in sorted((study / "results").rglob("*.json")):
        try:
            content = json.loads(path.read_text())
        except ValueError:
            continue
        if isinstance(content, dict) and content.get("made_by"):
            for name in content["made_by"]["outputs"]:
                found[name] = content | {"status_file": str(path.relative_to(study))}
    return found


def chain(study: Path, start: str) -> Iterator[tuple[int, dict]]:
    """Yield depth and record of every step behind a file, each once, the last step first."""
    known = records(study)
    seen: set[str] = set()

    def walk(name: str, depth: int) -> Iterator[tuple[int, dict]]:
        record = known.get(name)
        if record is None or record["status_file"] in seen:
            return
        seen.add(record["status_file"])
        yield depth, record
        for before in record["made_by"]["inputs"]:
            yield from walk(before, depth + 1)

    yield from walk(start, 0)


def changed(study: Path, record: dict) -> list[str]:
    """Return the inputs of a step that are no longer what it read."""
    inputs = record["made_by"]["inputs"].items()
    paths = [(study / name, was) for name, was in inputs if name.startswith("results/")]
    return [str(p.relative_to(study)) for p, was in paths if not p.exists() or digest(p.read_bytes()) != was]


def explain(study: Path, patient: str, tumor: str, column: str, timepoint: str) -> list[str]:
    """Return the lines that say where a cell of tumors.csv comes from.

    Raises DataError for a patient, tumour, timepoint or column that the table does not have.
    """
    table = f"results/sub-{patient}/sub-{patient}_tumors.csv"
    rows = []
    for name in ("results/cohort/tumors.csv", table):
        path = study / name
        text = path.read_text() if path.exists() else ""
        rows.append(
            [
                row
                for row in csv.DictReader(text.splitlines())
                if (row["patient"], row["tumor"], row["timepoint"]) == (patient, tumor, timepoint)
            ]
        )
    if not rows[1] or column not in rows[1][0]:
        raise DataError(
            "the table has no such cell",
            file=table,
            found=f"{patient} {timepoint} {tumor} {column}",
            wanted="patient, tumor, column and timepoint as in results/cohort/tumors.csv",
            cure="correct the words, or run the workflow first",
        )
    own = rows[1][0][column]
    meaning = {
        c["name"]: f"{c['meaning']} [{c['unit'] or 'no unit'}]"
        for c in json.loads((study / table).with_suffix(".json").read_text())
    }
    lines = [f"{patient} {timepoint} {tumor} {column} = {own or 'empty'}", f"  {meaning[column]}"]
    if not rows[0] or rows[0][0][column] != own:
        lines.append("  results/cohort/tumors.csv says otherwise: run the workflow again")
    for depth, record in chain(study, table):
        made = record["made_by"]
        lines.append(
            f"{'  ' * depth}{made['rule']} ({record['step']}): {made['software']}, code {made['code']}, "
            f"settings {made['settings']}"
        )
        for role, uid in sorted(made.get("series", {}).items()):
            lines.append(f"{'  ' * depth}  series {role}: {uid}")
        lines += [f"{'  ' * depth}  changed since: {name}" for name in changed(study, record)]
        if not record["ok"]:
            lines.append(f"{'  ' * depth}  failed: {record['reason']}")
    return lines


def main(words: list[str]) -> str:
    """Return the explanation that the command line asks for."""
    if not 3 <= len(words) <= 5:
        return __doc__ or ""
    study, patient, tumor, *rest = words
    column, timepoint = (rest + ["mean_mg_ml", "post"][len(rest) :])[:2]
    return "\n".join(explain(Path(study), patient, tumor, column, timepoint))


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except DataError as refusal:
        sys.exit(str(refusal))
