"""Load and validate the study; the few helpers that all rules share."""

import hashlib
import sys
from pathlib import Path

SCRIPTS = Path(workflow.basedir, "workflow/scripts")
sys.path.insert(0, str(SCRIPTS))

from snakemake.logging import logger

from nanouptake.code_digest import code_digest as digest_of_script
from nanouptake.processes import prepare_jobs
from nanouptake.progress import FailedSteps
from nanouptake.study import EXIT_FAILED_DATA, Study, closing_words, failed_data

prepare_jobs(SCRIPTS)
# Snakemake's own variables (OMP, OPENBLAS, MKL) follow a job's threads; these two must, too.
shell.prefix(
    "export ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=$OMP_NUM_THREADS NUMBA_NUM_THREADS=$OMP_NUM_THREADS; "
)
logger.addHandler(FailedSteps(Path.cwd()))

study = Study.load(
    config,
    sheet=Path(config.get("scans", "config/scans.tsv")),
    schemas=Path(workflow.basedir, "workflow/schemas"),
)
PATIENTS = study.patients
SPACE = config.get("space", "pre")
REFERENCE_TRUTH = f"{study.reference_folder}/{{patient}}/truth.csv"
REFERENCE_PHANTOM = f"{study.reference_folder}/phantoms/{{phantom}}/truth.csv"
PHANTOMS = sorted(study.phantoms)
TABLES = Path(workflow.basedir, "resources/phantoms")


def session(name, timepoint="{timepoint}"):
    """Pattern of a file of one timepoint."""
    return f"results/sub-{{patient}}/ses-{timepoint}/{name}"


def anat(suffix, timepoint="{timepoint}"):
    """Pattern of an image of one timepoint."""
    return session(f"anat/sub-{{patient}}_ses-{timepoint}_{suffix}", timepoint)


def xfm(suffix):
    """Pattern of a transform or its status."""
    return f"results/sub-{{patient}}/xfm/sub-{{patient}}_{suffix}"


def uptake(suffix, timepoint=None):
    """Pattern of an image in the analysis space, of one timepoint or of the patient."""
    session_part = f"ses-{timepoint}_" if timepoint else ""
    return f"results/sub-{{patient}}/uptake/sub-{{patient}}_{session_part}space-{SPACE}_{suffix}"


def pre_map(suffix):
    """Pattern of a map of the pre scan in the analysis space."""
    return anat(suffix, "pre") if SPACE == "pre" else uptake(suffix, "pre")


def phantom(name):
    """Pattern of a file of one phantom."""
    return f"results/phantoms/{{phantom}}/{name}"


def phantom_made_here(wildcards):
    """The truth file of a reference phantom, so that the phantom is written first; nothing otherwise."""
    if study.is_reference_phantom(wildcards.phantom):
        return REFERENCE_PHANTOM.format(phantom=wildcards.phantom)
    return []


def planning_to_pre():
    """The transform that leads from the planning space, where the analysis takes place there."""
    return [] if SPACE == "pre" else xfm("from-planning_to-pre_mode-image_xfm.txt")


wildcard_constraints:
    patient="[A-Za-z0-9]+",
    phantom="[A-Za-z0-9]+",
    timepoint="planning|pre|post[0-9]*",


def code_digest(script):
    """Digest of a script and of every nanouptake module that it imports."""
    return digest_of_script(SCRIPTS / script, package=SCRIPTS / "nanouptake")


def scan_folder(wildcards):
    """The folder of a scan as the sheet gives it."""
    return study.folder(wildcards.patient, wildcards.timepoint)


def scan_made_here(wildcards):
    """The truth file of a reference patient, so that the patient is written first; nothing otherwise."""
    if study.is_reference(wildcards.patient):
        return REFERENCE_TRUTH.format(patient=wildcards.patient)
    return []


def scan_listing(wildcards):
    """Names, sizes and times of a scan's files in one digest; 'reference' for what a rule writes."""
    return study.listing(wildcards.patient, wildcards.timepoint)


def memory_mb(base, *, per_raw_mb):
    """Resource function: grows with the patient's or phantom's raw scans, and at every retry.

    The raw scans are there before the first job: a group of jobs can be given its memory at once.
    """

    def mem_mb(wildcards, attempt):
        if "phantom" in wildcards.keys():
            raw_mb = study.phantom_mb(wildcards.phantom)
        else:
            raw_mb = study.raw_mb(wildcards.patient)
        return int(attempt * (base + per_raw_mb * raw_mb))

    return mem_mb


def of_cohort_mb(base):
    """Resource function: grows with the number of patients, and at every retry."""
    return lambda wildcards, attempt: attempt * (base + len(PATIENTS))


def of_posts(pattern):
    """Input function: the pattern for every post timepoint of the patient."""
    return lambda wildcards: [
        pattern.format(patient=wildcards.patient, timepoint=timepoint)
        for timepoint in study.posts(wildcards.patient)
    ]


def templates_digest():
    """Digest of the pages' templates, which are no modules."""
    parts = sorted((SCRIPTS / "nanouptake/templates").glob("*.html"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in parts)).hexdigest()[:16]


def sessions_of(pattern):
    """Input function: the pattern for every timepoint of the patient."""
    return lambda wildcards: [
        pattern.format(patient=p, timepoint=t)
        for p in [wildcards.patient]
        for t in study.timepoints[p]
    ]


def of_relaxivity(name):
    """Input function: a file of the phantom that measured the scan's agent; nothing where r1 is a number."""

    def path(wildcards):
        phantom = study.relaxivity_phantom(wildcards.patient, wildcards.timepoint)
        return f"results/phantoms/{phantom}/{name}" if phantom else []

    return path


def of_first_post(pattern):
    """Input function: the pattern for the first post timepoint of the patient."""
    return lambda wildcards: pattern.format(
        patient=wildcards.patient, timepoint=study.posts(wildcards.patient)[0]
    )


def statuses_of(wildcards):
    """Status files of a patient's steps, in the order of the pipeline."""
    patient = wildcards.patient
    posts = study.posts(patient)
    return [
        *sessions_of(session("ingest.json"))(wildcards),
        f"results/sub-{patient}/ses-pre/map_t1.json",
        *[
            xfm(f"from-{t}_to-pre.json").format(patient=patient)
            for t in ["planning", *posts]
        ],
        uptake("desc-gtv_status.json").format(patient=patient),
        *[uptake("status.json", t).format(patient=patient) for t in posts],
        *[
            uptake("desc-intervals_status.json", t).format(patient=patient)
            for t in posts
        ],
        f"results/sub-{patient}/tumors_status.json",
        f"results/sub-{patient}/views_status.json",
    ]


def infusion_minutes():
    """Patient, timepoint and minutes from infusion to scan, where the sheet has them."""
    return [
        [patient, timepoint, row["infusion_to_scan_min"]]
        for (patient, timepoint), row in sorted(study.rows.items())
        if row.get("infusion_to_scan_min")
    ]


onsuccess:
    print(closing_words(Path("results")), file=sys.stderr)
    if failed_data(Path("results")):
        sys.exit(EXIT_FAILED_DATA)


onerror:
    print(closing_words(Path("results"), stopped=True), file=sys.stderr)
