rule label_tumors:
    """Physician contours as partial-volume masks on the analysis grid."""
    input:
        grid=anat("UNIT1.nii.gz", "pre"),
        contours="results/sub-{patient}/ses-planning/contours.json",
        xfm=xfm("from-contours_to-pre_mode-image_xfm.txt"),
        registered=xfm("from-planning_to-pre.json"),
    output:
        labels=uptake("space-pre_desc-gtv_dseg.nii.gz"),
        names=uptake("space-pre_desc-gtv_dseg.tsv"),
        coverage=uptake("space-pre_desc-gtv_probseg.nii.gz"),
        status=uptake("space-pre_desc-gtv_status.json"),
    log:
        "logs/label_tumors/sub-{patient}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=1500,
        runtime=10,
    params:
        code=code_digest("label_tumors.py"),
    script:
        "../scripts/label_tumors.py"


rule map_uptake:
    """Agent concentration in mg/ml per voxel in the space of the pre scan."""
    input:
        pre_t1=anat("T1map.nii.gz", "pre"),
        pre_validity=anat("desc-validity_T1map.nii.gz", "pre"),
        post_uni=anat("UNIT1.nii.gz"),
        xfm=xfm("from-{timepoint}_to-pre_mode-image_xfm.txt"),
        registered=xfm("from-{timepoint}_to-pre.json"),
    output:
        concentration=uptake("ses-{timepoint}_space-pre_conc.nii.gz"),
        sidecar=uptake("ses-{timepoint}_space-pre_conc.json"),
        validity=uptake("ses-{timepoint}_space-pre_desc-validity_conc.nii.gz"),
        t1=uptake("ses-{timepoint}_space-pre_T1map.nii.gz"),
        status=uptake("ses-{timepoint}_space-pre_status.json"),
    log:
        "logs/map_uptake/sub-{patient}_ses-{timepoint}.log",
    wildcard_constraints:
        timepoint="post[0-9]*",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2500,
        runtime=10,
    params:
        protocol=config["mp2rage"],
        agent=config["agent"],
        code=code_digest("map_uptake.py"),
    script:
        "../scripts/map_uptake.py"
