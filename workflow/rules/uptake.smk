rule label_tumors:
    """Physician contours as partial-volume masks on the analysis grid."""
    input:
        grid=of_timepoint(ANAT, "pre") + "_UNIT1.nii.gz",
        contours="results/sub-{patient}/ses-planning/contours.json",
        xfm=XFM + "_from-contours_to-pre_mode-image_xfm.txt",
        registered=XFM + "_from-planning_to-pre.json",
    output:
        labels=UPTAKE + "_space-pre_desc-gtv_dseg.nii.gz",
        names=UPTAKE + "_space-pre_desc-gtv_dseg.tsv",
        coverage=UPTAKE + "_space-pre_desc-gtv_probseg.nii.gz",
        status=UPTAKE + "_space-pre_desc-gtv_status.json",
    log:
        "logs/label_tumors/sub-{patient}.log",
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
        pre_t1=of_timepoint(ANAT, "pre") + "_T1map.nii.gz",
        pre_validity=of_timepoint(ANAT, "pre") + "_desc-validity_T1map.nii.gz",
        post_uni=ANAT + "_UNIT1.nii.gz",
        xfm=XFM + "_from-{timepoint}_to-pre_mode-image_xfm.txt",
        registered=XFM + "_from-{timepoint}_to-pre.json",
    output:
        concentration=UPTAKE + "_ses-{timepoint}_space-pre_conc.nii.gz",
        sidecar=UPTAKE + "_ses-{timepoint}_space-pre_conc.json",
        validity=UPTAKE + "_ses-{timepoint}_space-pre_desc-validity_conc.nii.gz",
        t1=UPTAKE + "_ses-{timepoint}_space-pre_T1map.nii.gz",
        status=UPTAKE + "_ses-{timepoint}_space-pre_status.json",
    log:
        "logs/map_uptake/sub-{patient}_ses-{timepoint}.log",
    wildcard_constraints:
        timepoint="post[0-9]*",
    resources:
        mem_mb=2500,
        runtime=10,
    params:
        protocol=config["mp2rage"],
        agent=config["agent"],
        code=code_digest("map_uptake.py"),
    script:
        "../scripts/map_uptake.py"
