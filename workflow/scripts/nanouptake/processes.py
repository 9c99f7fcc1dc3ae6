"""What the engine's process and its jobs' processes agree on through the environment."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

ENGINE = "NANOUPTAKE_ENGINE_PID"


def prepare_jobs(scripts: Path) -> None:
    """Set what every job inherits: where nanouptake is, and which process started it.

    Of several nanouptakes on a machine a job runs the one whose digest its rule has.
    """
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(scripts), *([before] if before else [])])
    os.environ[ENGINE] = str(os.getpid())


def die_with_parent() -> None:
    """Have the system end this process when the one that started it is killed (on Linux).

    A step that outlived its run could overwrite what the next run has made of newer data.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        engine = os.environ.get(ENGINE)
        if engine and not Path("/proc", engine).exists():
            sys.exit("the run that started this job was killed")
