rule collect_cohort:
    """The cohort's tables and figure 5: every tumour, every patient, every scan with its status."""
    input:
        tables=collect(
            "results/sub-{patient}/sub-{patient}_tumors.csv", patient=PATIENTS
        ),
        statuses=collect("results/sub-{patient}/tumors_status.json", patient=PATIENTS),
        ingested=[
            SES.format(patient=p, timepoint=t) + "/ingest.json" for p, t in study.scans
        ],
        mapped=[
            UPTAKE.format(patient=p) + f"_ses-{t}_space-pre_status.json"
            for p in PATIENTS
            for t in study.posts(p)
        ],
    output:
        tumors="results/cohort/tumors.csv",
        patients="results/cohort/patients.csv",
        scans="results/cohort/scans.csv",
        figure_png="results/cohort/figures/figure5_uptake_by_patient.png",
        figure_svg="results/cohort/figures/figure5_uptake_by_patient.svg",
    log:
        "logs/collect_cohort.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        patients=PATIENTS,
        scans=[list(pair) for pair in study.scans],
        code=code_digest("collect_cohort.py"),
    script:
        "../scripts/collect_cohort.py"


rule write_report:
    """The page a person opens first."""
    input:
        tumors="results/cohort/tumors.csv",
        patients="results/cohort/patients.csv",
        scans="results/cohort/scans.csv",
        figure="results/cohort/figures/figure5_uptake_by_patient.svg",
        pictures=collect(
            "results/sub-{patient}/sub-{patient}_uptake.png", patient=PATIENTS
        ),
    output:
        "results/report.html",
    log:
        "logs/write_report.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        patients=PATIENTS,
        code=code_digest("write_report.py"),
    script:
        "../scripts/write_report.py"
