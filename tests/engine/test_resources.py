"""What jobs declare, what they are given, and that the number of cores changes no byte."""

import json
import re
import resource
import time

import pytest
import yaml

import tiny_trial

RULES = {
    match[1]: match[0]
    for path in sorted((tiny_trial.ROOT / "workflow/rules").glob("*.smk"))
    for match in re.finditer(r"^ *rule (\w+):\n(?:(?! *rule ).*\n)*", path.read_text(), re.M)
}


@pytest.mark.parametrize("name", RULES)
def test_every_rule_declares_what_it_needs(name):
    for word in ("threads: ", "mem_mb=", "runtime=", "log:", "code=code_digest"):
        assert word in RULES[name], word


def test_every_rule_is_part_of_a_submission():
    profile = yaml.safe_load((tiny_trial.ROOT / "profiles/slurm/config.yaml").read_text())
    groups = dict(entry.split("=") for entry in profile["groups"])
    assert groups.keys() == RULES.keys()
    for name, group in groups.items():
        asked = {
            w for w in ("patient", "phantom") if f"{{{w}}}" in RULES[name].split("log:")[1].split("conda:")[0]
        }
        assert (asked or {"cohort"}) == {group}


def asked_mb(study):
    """Return the memory that a plan asks for, by rule and patient."""
    plan = tiny_trial.run(study, "-n")
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", plan, re.M)
    found = [(rule, re.search(r"patient=(\w+)", b), re.search(r"mem_mb=(\d+)", b)) for rule, b in jobs]
    return {(rule, patient[1]): int(mb[1]) for rule, patient, mb in found if patient and mb}


def test_memory_follows_the_size_of_the_patients_scans(tmp_path):
    study = tiny_trial.write_study(tmp_path / "study", patients=2)
    before = asked_mb(study)
    with (study / "scans/T001/pre/more.dcm").open("wb") as stream:
        stream.truncate(100 * 2**20)
    after = asked_mb(study)
    grown = {key: after[key] - before[key] for key in before}
    assert {patient for _, patient in grown} == {"T001", "T002"}
    assert all(mb == 0 for (_, patient), mb in grown.items() if patient == "T002")
    assert all(50 <= mb <= 1500 for (_, patient), mb in grown.items() if patient == "T001")


def children_s():
    """Return the CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.study
def test_libraries_may_use_as_many_threads_as_the_rule_says(undisturbed):
    jobs = [json.loads(line) for line in (undisturbed / "jobs.jsonl").read_text().splitlines()]
    assert len(jobs) == 27
    for rule, threads, limits in jobs:
        assert limits == dict.fromkeys(limits, str(threads)), rule


@pytest.mark.study
def test_one_core_gives_the_bytes_of_two(undisturbed, tmp_path):
    study = tiny_trial.copy_inputs(undisturbed, tmp_path / "study")
    start, used = time.monotonic(), children_s()
    tiny_trial.run(study, cores=1)
    cores = (children_s() - used) / (time.monotonic() - start)
    print(f"\n--cores 1 used {cores:.2f} cores")
    assert cores < 1.25  # the engine's own process comes on top
    assert tiny_trial.differences(tiny_trial.results(undisturbed), tiny_trial.results(study)) == []


@pytest.mark.study
def test_a_failure_is_told_when_it_happens_and_at_the_end(undisturbed, tmp_path):
    study = tiny_trial.copy_inputs(undisturbed, tmp_path / "study")
    next((study / "scans/T002/pre").glob("*UNIT1.nii.gz")).write_bytes(b"")
    said = tiny_trial.run(study, cores=2, expected=3)
    middle, end = said.split("Failed so far: 1", 1)
    assert "T002: ingest pre:" in middle
    assert "steps (" in end  # the run went on
    assert "Patients: 1 ok, 0 flagged, 1 failed." in end
    assert "Report: results/report.html" in end
    first = {k: v for k, v in tiny_trial.results(undisturbed).items() if k.startswith("sub-T001")}
    second = {k: v for k, v in tiny_trial.results(study).items() if k.startswith("sub-T001")}
    assert tiny_trial.differences(first, second) == []
