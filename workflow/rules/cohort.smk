COHORT_TABLES = ["tumors", "patients", "scans", "fits", "null_curve"]
FIGURES = {
    "figure5": "figure5_uptake_by_patient",
    "figure6": "figure6_uptake_by_diameter",
    "figure7": "figure7_patterns",
    "figure8": "figure8_distribution",
}


rule collect_cohort:
    """The cohort's tables: every tumour, patient, scan with its status, and statistic."""
    input:
        tables=collect(
            "results/sub-{patient}/sub-{patient}_tumors.csv", patient=PATIENTS
        ),
        statuses=collect("results/sub-{patient}/tumors_status.json", patient=PATIENTS),
        ingested=[session("ingest.json", t).format(patient=p) for p, t in study.scans],
        registered=[
            xfm(f"from-{t}_to-pre.json").format(patient=p)
            for p in PATIENTS
            for t in study.posts(p)
        ],
        mapped=[
            uptake("status.json", t).format(patient=p)
            for p in PATIENTS
            for t in study.posts(p)
        ],
    output:
        tumors="results/cohort/tumors.csv",
        patients="results/cohort/patients.csv",
        scans="results/cohort/scans.csv",
        fits="results/cohort/fits.csv",
        null_curve="results/cohort/null_curve.csv",
        dictionaries=expand("results/cohort/{table}.json", table=COHORT_TABLES),
        provenance="results/cohort/provenance.json",
    log:
        "logs/collect_cohort.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=of_cohort_mb(500),
        runtime=10,
    params:
        patients=PATIENTS,
        scans=[list(pair) for pair in study.scans],
        infusion_to_scan_min=infusion_minutes(),
        blur_sd_mm=config.get("cohort", {}).get("blur_sd_mm", 0.8),
        code=code_digest("collect_cohort.py"),
    script:
        "../scripts/collect_cohort.py"


rule draw_figures:
    """The paper's figures 5 to 8, from the tables alone."""
    input:
        tumors="results/cohort/tumors.csv",
        patients="results/cohort/patients.csv",
        fits="results/cohort/fits.csv",
        null_curve="results/cohort/null_curve.csv",
        sections=collect(
            "results/sub-{patient}/sub-{patient}_sections.csv", patient=PATIENTS
        ),
        profiles=collect(
            "results/sub-{patient}/sub-{patient}_profiles.csv", patient=PATIENTS
        ),
    output:
        figure5_png=report(
            "results/cohort/figures/figure5_uptake_by_patient.png",
            caption="../report/figure5.rst",
            category="Cohort",
        ),
        figure5_svg="results/cohort/figures/figure5_uptake_by_patient.svg",
        figure6_png=report(
            "results/cohort/figures/figure6_uptake_by_diameter.png",
            caption="../report/figure6.rst",
            category="Cohort",
        ),
        figure6_svg="results/cohort/figures/figure6_uptake_by_diameter.svg",
        figure7_png=report(
            "results/cohort/figures/figure7_patterns.png",
            caption="../report/figure7.rst",
            category="Cohort",
        ),
        figure7_svg="results/cohort/figures/figure7_patterns.svg",
        figure8_png=report(
            "results/cohort/figures/figure8_distribution.png",
            caption="../report/figure8.rst",
            category="Cohort",
        ),
        figure8_svg="results/cohort/figures/figure8_distribution.svg",
    log:
        "logs/draw_figures.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=of_cohort_mb(500),
        runtime=10,
    params:
        code=code_digest("draw_figures.py"),
    script:
        "../scripts/draw_figures.py"
