"""environment.yml and requirements.lock name the same versions; the lock is hashed and names no index."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()


def test_conda_and_lock_agree():
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.M))
    parts = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = dict(line.split("==") for line in parts[-1]["pip"])
    wanted = re.findall(r"^([A-Za-z][\w.-]*)", (ROOT / "requirements.in").read_text(), re.M)
    assert set(pins) == {name.lower() for name in wanted}
    assert pins == {name: locked[name] for name in pins}


def test_lock_is_hashed_and_names_no_index():
    packages = re.findall(r"^[\w.-]+==", LOCK, re.M)
    assert len(re.findall(r"^[\w.-]+==[^\n]*\\\n    --hash=sha256:", LOCK, re.M)) == len(packages) > 50
    assert not re.search(r"index-url|://", LOCK)
