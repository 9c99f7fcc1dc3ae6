from snakemake.utils import min_version

min_version("9.20")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/reference.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/t1map.smk"
include: "workflow/rules/register.smk"
include: "workflow/rules/phantoms.smk"
include: "workflow/rules/uptake.smk"
include: "workflow/rules/uncertainty.smk"
include: "workflow/rules/tumors.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        "results/report.html",


rule reference_trial:
    input:
        collect(REFERENCE_TRUTH, patient=PATIENTS),
