import hashlib


def templates_digest():
    """Digest of the pages' templates, which are no modules."""
    parts = sorted((SCRIPTS / "nanouptake/templates").glob("*.html"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in parts)).hexdigest()[:16]


def sessions_of(pattern):
    """Input function: the pattern for every timepoint of the patient."""
    return lambda wildcards: [
        pattern.format(patient=p, timepoint=t)
        for p, t in study.scans
        if p == wildcards.patient
    ]


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
        *sessions_of(SES + "/ingest.json")(wildcards),
        f"results/sub-{patient}/ses-pre/map_t1.json",
        *[
            (XFM + f"_from-{t}_to-pre.json").format(patient=patient)
            for t in ["planning", *posts]
        ],
        (UPTAKE + "_space-pre_desc-gtv_status.json").format(patient=patient),
        *[
            (UPTAKE + f"_ses-{t}_space-pre_status.json").format(patient=patient)
            for t in posts
        ],
        f"results/sub-{patient}/tumors_status.json",
        f"results/sub-{patient}/views_status.json",
    ]


rule render_patient:
    """Planning and post over pre, through the largest tumour, with its contour."""
    input:
        pre_t1=of_timepoint(ANAT, "pre") + "_T1map.nii.gz",
        post_t1=of_first_post(UPTAKE + "_ses-{timepoint}_space-pre_T1map.nii.gz"),
        planning=of_timepoint(ANAT, "planning") + "_T1w.nii.gz",
        xfm=XFM + "_from-planning_to-pre_mode-image_xfm.txt",
        labels=UPTAKE + "_space-pre_desc-gtv_dseg.nii.gz",
        coverage=UPTAKE + "_space-pre_desc-gtv_probseg.nii.gz",
        labelled=UPTAKE + "_space-pre_desc-gtv_status.json",
        mapped=of_first_post(UPTAKE + "_ses-{timepoint}_space-pre_status.json"),
    output:
        views="results/sub-{patient}/sub-{patient}_views.json",
        figure_png=report(
            "results/sub-{patient}/sub-{patient}_contours.png",
            caption="../report/contours.rst",
            category="Patients",
            labels={"patient": "{patient}"},
        ),
        figure_svg="results/sub-{patient}/sub-{patient}_contours.svg",
        status="results/sub-{patient}/views_status.json",
    log:
        "logs/render_patient/sub-{patient}.log",
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        code=code_digest("render_patient.py"),
    script:
        "../scripts/render_patient.py"


rule write_patient_report:
    """One patient's page."""
    input:
        series=sessions_of(SES + "/series.tsv"),
        statuses=statuses_of,
        views="results/sub-{patient}/sub-{patient}_views.json",
        picture="results/sub-{patient}/sub-{patient}_uptake.png",
        tumors="results/sub-{patient}/sub-{patient}_tumors.csv",
        sections="results/sub-{patient}/sub-{patient}_sections.csv",
        profiles="results/sub-{patient}/sub-{patient}_profiles.csv",
    output:
        report(
            "results/sub-{patient}/sub-{patient}_report.html",
            caption="../report/patient.rst",
            category="Patients",
            labels={"patient": "{patient}"},
        ),
    log:
        "logs/write_patient_report/sub-{patient}.log",
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        templates=templates_digest(),
        code=code_digest("write_patient_report.py"),
    script:
        "../scripts/write_patient_report.py"


rule write_report:
    """The page a person opens first."""
    input:
        **{k: f"results/cohort/figures/{name}.svg" for k, name in FIGURES.items()},
        tumors="results/cohort/tumors.csv",
        patients="results/cohort/patients.csv",
        scans="results/cohort/scans.csv",
        fits="results/cohort/fits.csv",
        pages=collect(
            "results/sub-{patient}/sub-{patient}_report.html", patient=PATIENTS
        ),
    output:
        report(
            "results/report.html",
            caption="../report/cohort.rst",
            category="Cohort",
        ),
    log:
        "logs/write_report.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        templates=templates_digest(),
        code=code_digest("write_report.py"),
    script:
        "../scripts/write_report.py"
