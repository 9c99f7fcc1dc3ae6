rule render_patient:
    """Planning, MPRAGE and post over pre, through the largest tumour, with its contour."""
    input:
        pre_t1=pre_map("T1map.nii.gz"),
        post_t1=of_first_post(uptake("T1map.nii.gz", "{timepoint}")),
        planning=anat("T1w.nii.gz", "planning"),
        planning_xfm=xfm("from-planning_to-pre_mode-image_xfm.txt"),
        t1w=anat("T1w.nii.gz", "pre"),
        t1w_xfm=xfm("from-T1w_to-pre_mode-image_xfm.txt"),
        labels=uptake("desc-gtv_dseg.nii.gz"),
        coverage=uptake("desc-gtv_probseg.nii.gz"),
        labelled=uptake("desc-gtv_status.json"),
        mapped=of_first_post(uptake("status.json", "{timepoint}")),
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
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=3),
        runtime=10,
    params:
        space=SPACE,
        code=code_digest("render_patient.py"),
    script:
        "../scripts/render_patient.py"


rule write_patient_report:
    """One patient's page."""
    input:
        series=sessions_of(session("series.tsv")),
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
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=0.5),
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
        phantoms=[
            phantom(name).format(phantom=p)
            for p in PHANTOMS
            for name in [
                "status.json",
                "vials.csv",
                "summary.csv",
                "figures/map.svg",
                "figures/fit.svg",
                "figures/found.png",
            ]
        ],
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
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=of_cohort_mb(500),
        runtime=10,
    params:
        phantoms={p: study.phantoms[p]["kind"] for p in PHANTOMS},
        templates=templates_digest(),
        code=code_digest("write_report.py"),
    script:
        "../scripts/write_report.py"
