"""Words during a run: every step whose data failed, when it fails, and how many patients that makes."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path


class FailedSteps(logging.Handler):
    """Reads the status of every finished job off the engine's own events."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.statuses: dict[int, list[str]] = {}
        self.failed: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a job's status files at its start; look into them at its end."""
        event = getattr(record, "event", None)
        if event == "job_info":
            names = [n for n in record.output if n.endswith((".json", ".json (update)"))]  # type: ignore[attr-defined]
            self.statuses[record.jobid] = [n.partition(" (")[0] for n in names]  # type: ignore[attr-defined]
        elif event == "job_finished":
            for name in self.statuses.pop(record.job_id, []):  # type: ignore[attr-defined]
                self._look_at(name)

    def _look_at(self, name: str) -> None:
        try:
            status = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return
        if not isinstance(status, dict) or status.get("ok", True):
            return
        step, reason = status["step"], status["reason"]
        owner = name.removeprefix("results/").split("/")[0].removeprefix("sub-")
        if not reason.startswith(f"{step}:") or owner in self.failed:
            return  # the step passes on what an earlier one said
        self.failed[owner] = reason
        print(f"{owner}: {reason}\nFailed so far: {len(self.failed)}", file=sys.stderr, flush=True)
