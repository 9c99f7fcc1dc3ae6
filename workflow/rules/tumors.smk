rule measure_tumors:
    """One row per tumour and post timepoint, and the patient's picture."""
    input:
        pre_t1=pre_map("T1map.nii.gz"),
        labels=uptake("desc-gtv_dseg.nii.gz"),
        names=uptake("desc-gtv_dseg.tsv"),
        coverage=uptake("desc-gtv_probseg.nii.gz"),
        labelled=uptake("desc-gtv_status.json"),
        concentration=of_posts(uptake("conc.nii.gz", "{timepoint}")),
        validity=of_posts(uptake("desc-validity_conc.nii.gz", "{timepoint}")),
        post_t1=of_posts(uptake("T1map.nii.gz", "{timepoint}")),
        mapped=of_posts(uptake("status.json", "{timepoint}")),
        intervals=of_posts(uptake("intervals.csv", "{timepoint}")),
        estimated=of_posts(uptake("desc-intervals_status.json", "{timepoint}")),
    output:
        table="results/sub-{patient}/sub-{patient}_tumors.csv",
        dictionary="results/sub-{patient}/sub-{patient}_tumors.json",
        profiles="results/sub-{patient}/sub-{patient}_profiles.csv",
        profiles_dictionary="results/sub-{patient}/sub-{patient}_profiles.json",
        sections="results/sub-{patient}/sub-{patient}_sections.csv",
        sections_dictionary="results/sub-{patient}/sub-{patient}_sections.json",
        histograms="results/sub-{patient}/sub-{patient}_histograms.csv",
        histograms_dictionary="results/sub-{patient}/sub-{patient}_histograms.json",
        picture="results/sub-{patient}/sub-{patient}_uptake.png",
        status="results/sub-{patient}/tumors_status.json",
    log:
        "logs/measure_tumors/sub-{patient}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=6),
        runtime=10,
    params:
        timepoints=lambda wildcards: study.posts(wildcards.patient),
        tumors=study.section("tumors"),
        code=code_digest("measure_tumors.py"),
    script:
        "../scripts/measure_tumors.py"
