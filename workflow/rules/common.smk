"""Load and validate the study; the few helpers that all rules share."""

import sys
from pathlib import Path

SCRIPTS = Path(workflow.basedir, "workflow/scripts")
sys.path.append(str(SCRIPTS))

from nanouptake.code_digest import code_digest as digest_of_script
from nanouptake.study import Study, closing_words

study = Study.load(
    config,
    sheet=Path(config.get("scans", "config/scans.tsv")),
    schemas=Path(workflow.basedir, "workflow/schemas"),
)
PATIENTS = study.patients
REFERENCE_TRUTH = f"{study.reference_folder}/{{patient}}/truth.csv"

# Patterns of the files that several rules name.
SES = "results/sub-{patient}/ses-{timepoint}"
ANAT = SES + "/anat/sub-{patient}_ses-{timepoint}"
XFM = "results/sub-{patient}/xfm/sub-{patient}"
UPTAKE = "results/sub-{patient}/uptake/sub-{patient}"


wildcard_constraints:
    patient="[A-Za-z0-9]+",
    timepoint="planning|pre|post[0-9]*",


def code_digest(script):
    """Digest of a script and of every nanouptake module that it imports."""
    return digest_of_script(SCRIPTS / script, package=SCRIPTS / "nanouptake")


def of_timepoint(pattern, timepoint):
    """The pattern with its timepoint filled in and its patient left open."""
    return pattern.replace("{timepoint}", timepoint)


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


onsuccess:
    print(closing_words(Path("results")), file=sys.stderr)


onerror:
    print(closing_words(Path("results")), file=sys.stderr)
