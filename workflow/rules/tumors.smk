rule measure_tumors:
    """One row per tumour and post timepoint, and the patient's picture."""
    input:
        pre_t1=anat("T1map.nii.gz", "pre"),
        labels=uptake("space-pre_desc-gtv_dseg.nii.gz"),
        names=uptake("space-pre_desc-gtv_dseg.tsv"),
        coverage=uptake("space-pre_desc-gtv_probseg.nii.gz"),
        labelled=uptake("space-pre_desc-gtv_status.json"),
        concentration=of_posts(uptake("ses-{timepoint}_space-pre_conc.nii.gz")),
        validity=of_posts(uptake("ses-{timepoint}_space-pre_desc-validity_conc.nii.gz")),
        post_t1=of_posts(uptake("ses-{timepoint}_space-pre_T1map.nii.gz")),
        mapped=of_posts(uptake("ses-{timepoint}_space-pre_status.json")),
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
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        timepoints=lambda wildcards: study.posts(wildcards.patient),
        tumors=config["tumors"],
        code=code_digest("measure_tumors.py"),
    script:
        "../scripts/measure_tumors.py"
