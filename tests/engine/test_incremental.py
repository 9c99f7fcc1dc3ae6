"""What runs again and what does not, by the list of jobs; and what a second study takes from a cache."""

import re
import shutil
import subprocess

import pytest
import yaml

import tiny_trial

pytestmark = pytest.mark.study
AGGREGATES = {"collect_cohort", "draw_figures", "write_report"}
OF_TUMORS = {"measure_tumors", "write_patient_report"} | AGGREGATES
OF_UPTAKE = {"map_uptake", "estimate_intervals", "render_patient"} | OF_TUMORS


def planned(study, *arguments, checkout=None):
    """Return (rule, patient) of every job of a dry run, and the rules whose own reason it is."""
    words = tiny_trial.command(study, "-n", *arguments)
    if checkout:
        words[words.index("-s") + 1] = str(checkout / "Snakefile")
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    jobs, own = set(), set()
    for rule, body in re.findall(
        r"^(?:local)?rule (\w+):\n(.*?)(?=^\S|\Z)", run.stdout + run.stderr, re.MULTILINE | re.DOTALL
    ):
        patient = re.search(r"wildcards: .*?patient=(\w+)", body)
        jobs.add((rule, patient[1] if patient else ""))
        if re.search(r"reason: (?!Input files updated by another job)\S", body):
            own.add(rule)
    return {j for j in jobs if j[0] != "all"}, own


@pytest.fixture(scope="module")
def study(tmp_path_factory, undisturbed):
    """Return a copy of the undisturbed study, times of files kept."""
    copy = tmp_path_factory.mktemp("incremental") / "study"
    shutil.copytree(undisturbed, copy, copy_function=shutil.copy2)
    return copy


@pytest.fixture
def sheet(study):
    """Return the sheet's file; it is put back afterwards."""
    path = study / "config/scans.tsv"
    before = path.read_text()
    yield path
    path.write_text(before)


@pytest.fixture
def config(study):
    """Return the config's file; it is put back afterwards."""
    path = study / "config/config.yaml"
    before = path.read_text()
    yield path
    path.write_text(before)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of what a checkout has of the workflow, every file with a new time."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("workflow", "profiles", "resources/phantoms"):
        shutil.copytree(tiny_trial.ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copyfile(tiny_trial.ROOT / name, copy / name)
    for path in copy.rglob("*"):
        path.touch()
    return copy


def test_nothing_runs_again_without_a_change(study):
    assert planned(study) == (set(), set())


def test_a_fresh_checkout_reruns_nothing(study, checkout):
    assert planned(study, checkout=checkout) == (set(), set())


def test_a_new_patient_runs_its_own_jobs_and_the_aggregates(study, sheet):
    rows = [f"N1\t{t}\tscans/T001/{t}\n" for t in ("planning", "pre", "post")]
    sheet.write_text(sheet.read_text() + "".join(rows))
    jobs, _ = planned(study)
    assert {p for _, p in jobs} == {"N1", ""}
    assert {r for r, p in jobs if not p} == AGGREGATES


@pytest.mark.parametrize(
    ("keys", "value", "own", "all_rules"),
    [
        (("tumors", "bin_edges_mg_ml"), [0.04, 0.1], {"measure_tumors"}, OF_TUMORS),
        (("agent", "r1"), {"per_mm_per_s": 6.0, "sd_per_mm_per_s": 0.1}, {"map_uptake"}, OF_UPTAKE),
        (("cohort", "blur_sd_mm"), 0.7, {"collect_cohort"}, AGGREGATES),
        (
            ("registration", "seed"),
            2,
            {"register_sessions", "register_planning"},
            {"register_sessions", "register_planning", "label_tumors"} | OF_UPTAKE,
        ),
    ],
)
def test_a_changed_value_of_the_config_reruns_what_reads_it(study, config, keys, value, own, all_rules):
    content = yaml.safe_load(config.read_text())
    content.setdefault(keys[0], {})[keys[1]] = value
    config.write_text(yaml.safe_dump(content))  # in another order, which must not count
    jobs, found = planned(study)
    assert found == own
    assert {r for r, _ in jobs} == all_rules


@pytest.mark.parametrize(
    ("module", "own"),
    [
        ("intensity.py", {"measure_tumors", "render_patient"}),
        ("cohort.py", {"collect_cohort", "write_patient_report"}),
        ("views.py", {"render_patient"}),
        ("phantoms.py", {"map_uptake"}),
        ("protocol_check.py", {"ingest_session", "ingest_planning"}),
    ],
)
def test_an_edit_in_a_module_reruns_the_rules_that_import_it(study, checkout, module, own):
    path = checkout / "workflow/scripts/nanouptake" / module
    before = path.read_text()
    try:
        path.write_text(before + "\n# a comment counts for nothing\n")
        assert planned(study, checkout=checkout) == (set(), set())
        path.write_text(before + "\nEDITED = True\n")
        assert planned(study, checkout=checkout)[1] == own
    finally:
        path.write_text(before)


def test_a_replaced_file_of_the_same_size_is_noticed(study):
    path = next((study / "scans/T002/post").glob("*inv-1_MP2RAGE.nii.gz"))
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        jobs, own = planned(study)
    finally:
        path.write_bytes(content)
    assert ("ingest_session", "T002") in jobs
    assert own == {"ingest_session"}
    assert "T001" not in {p for _, p in jobs}


def test_a_removed_patient_disappears_from_the_aggregates(tmp_path, undisturbed):
    study = tmp_path / "study"
    shutil.copytree(undisturbed, study, copy_function=shutil.copy2)
    sheet = study / "config/scans.tsv"
    sheet.write_text(
        "".join(line for line in sheet.read_text().splitlines(keepends=True) if "T002" not in line)
    )
    assert {r for r, _ in planned(study)[0]} == AGGREGATES
    tiny_trial.run(study)
    for name in ("tumors", "patients", "scans"):
        text = (study / f"results/cohort/{name}.csv").read_text()
        assert "T001" in text
        assert "T002" not in text
    assert "T002" not in (study / "results/report.html").read_text()


def test_conversion_and_registration_come_from_the_cache(tmp_path, undisturbed):
    """A second study with the same scans takes them; its results have the bytes of the first."""
    rules = ["ingest_session", "ingest_planning", "register_sessions", "register_planning"]
    (tmp_path / "cache").mkdir()
    scans = [(p, t, str(undisturbed / path)) for p, t, path in tiny_trial.rows(1)]
    said = {}
    for name in ("first", "second"):
        study = tmp_path / name
        tiny_trial.write_config(study)
        tiny_trial.write_sheet(study, scans)
        env = {"SNAKEMAKE_OUTPUT_CACHE": str(tmp_path / "cache")}
        said[name] = tiny_trial.run(study, "--cache", *rules, env=env)
    for rule in rules:
        assert re.search(rf"rule {rule}:", said["first"])
    assert said["first"].count(" to cache.") == said["second"].count(" from cache.") >= 20
    assert " to cache." not in said["second"]
    first, second = (tiny_trial.results(tmp_path / n) for n in ("first", "second"))
    assert tiny_trial.differences(first, second) == []
