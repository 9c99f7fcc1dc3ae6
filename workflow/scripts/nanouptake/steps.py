"""What one step of the pipeline leaves behind: its files and a status, whatever happens to its data.

A data error of one patient must not stop the others, and Snakemake stops whatever depends on a failed
job. So a step that meets a DataError ends normally: its outputs are empty files and its status says
why; the steps after it pass the reason on. Any other exception is a defect and fails the job.
"""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import DataError
from .images import write_atomic
from .processes import die_with_parent
from .provenance import made_by


def read_status(path: str | Path) -> dict:
    """Return a status: ok (bool), flags (list of str), reason (str), step (str), details (dict)."""
    return json.loads(Path(path).read_text())


def run_step(
    name: str,
    work: Callable[[], dict | None],
    *,
    status: str | Path,
    outputs: Iterable[str | Path],
    upstream: Iterable[str | Path] = (),
    source: str | Path | None = None,
) -> dict:
    """Run one step; write its status; return the status.

    Parameters
    ----------
    name : str
        The step, in words that stand in reasons ("read DICOM of pre").
    work : callable
        Makes the outputs; may return {"flags": [...], "details": {...}, "series": {role: digest}}.
    status : path
        JSON file written last.
    outputs : iterable of path
        All other files the step makes; made empty when it cannot make them.
    upstream : iterable of path
        Status files of the steps this one needs.
    source : path or None
        The file or folder that a reason names where the error itself names none.
    """
    die_with_parent()
    made_files = [Path(p) for p in outputs]
    series: dict[str, str] = {}
    result: dict = {"step": name, "ok": True, "flags": [], "reason": "", "details": {}}
    for path in upstream:
        before = read_status(path)
        result["flags"] += [f for f in before["flags"] if f not in result["flags"]]
        if not before["ok"] and result["ok"]:
            result |= {"ok": False, "reason": before["reason"]}
    for target in [*made_files, Path(status)]:
        target.parent.mkdir(parents=True, exist_ok=True)
        for part in target.parent.glob(f".{glob.escape(target.name)}.*.part"):
            part.unlink(missing_ok=True)  # of a run that was killed
    if result["ok"]:
        try:
            made = work() or {}
            result["flags"] += [f for f in made.get("flags", []) if f not in result["flags"]]
            result["details"] = made.get("details", {})
            series = made.get("series", {})
        except DataError as error:
            error.file = error.file or (None if source is None else str(source))
            result |= {"ok": False, "reason": f"{name}: {error}"}
    result["made_by"] = made_by([*made_files, status])
    if result["made_by"] and series:
        result["made_by"]["series"] = series
    if not result["ok"]:
        for target in made_files:
            write_atomic(target, b"")
    write_atomic(status, json.dumps(result, indent=1, sort_keys=True) + "\n")
    return result
