GRID = anat("UNIT1.nii.gz", "pre") if SPACE == "pre" else anat("T1w.nii.gz", "planning")


rule label_tumors:
    """Physician contours as partial-volume masks on the analysis grid."""
    input:
        grid=GRID,
        contours="results/sub-{patient}/ses-planning/contours.json",
        drawn=anat("dseg.nii.gz", "planning"),
        xfm=xfm("from-contours_to-pre_mode-image_xfm.txt"),
        planning_to_pre=planning_to_pre(),
        registered=xfm("from-planning_to-pre.json"),
    output:
        labels=uptake("desc-gtv_dseg.nii.gz"),
        names=uptake("desc-gtv_dseg.tsv"),
        coverage=uptake("desc-gtv_probseg.nii.gz"),
        status=uptake("desc-gtv_status.json"),
    log:
        "logs/label_tumors/sub-{patient}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=4),
        runtime=10,
    params:
        code=code_digest("label_tumors.py"),
    script:
        "../scripts/label_tumors.py"


rule map_uptake:
    """Agent concentration in mg/ml per voxel in the analysis space."""
    input:
        pre_t1=pre_map("T1map.nii.gz"),
        pre_validity=pre_map("desc-validity_T1map.nii.gz"),
        post_uni=anat("UNIT1.nii.gz"),
        post_tb1=anat("TB1map.nii.gz"),
        xfm=xfm("from-{timepoint}_to-pre_mode-image_xfm.txt"),
        planning_to_pre=planning_to_pre(),
        relaxivity=of_relaxivity("summary.csv"),
        registered=[
            xfm("from-{timepoint}_to-pre.json"),
            *([] if SPACE == "pre" else [uptake("status.json", "pre")]),
        ],
        relaxed=of_relaxivity("status.json"),
    output:
        concentration=uptake("conc.nii.gz", "{timepoint}"),
        sidecar=uptake("conc.json", "{timepoint}"),
        validity=uptake("desc-validity_conc.nii.gz", "{timepoint}"),
        t1=uptake("T1map.nii.gz", "{timepoint}"),
        status=uptake("status.json", "{timepoint}"),
    log:
        "logs/map_uptake/sub-{patient}_ses-{timepoint}.log",
    wildcard_constraints:
        timepoint="post[0-9]*",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=4),
        runtime=10,
    params:
        protocol=study.section("mp2rage"),
        agent=lambda wildcards: study.agent(wildcards.patient, wildcards.timepoint),
        code=code_digest("map_uptake.py"),
    script:
        "../scripts/map_uptake.py"


if SPACE == "planning":

    rule map_pre_t1:
        """The T1 map of the pre scan on the planning grid: its UNI is resampled once."""
        input:
            grid=GRID,
            uni=anat("UNIT1.nii.gz", "pre"),
            tb1=anat("TB1map.nii.gz", "pre"),
            validity=anat("desc-validity_T1map.nii.gz", "pre"),
            planning_to_pre=planning_to_pre(),
            registered=xfm("from-planning_to-pre.json"),
        output:
            t1=uptake("T1map.nii.gz", "pre"),
            validity=uptake("desc-validity_T1map.nii.gz", "pre"),
            status=uptake("status.json", "pre"),
        log:
            "logs/map_pre_t1/sub-{patient}.log",
        conda:
            "../../environment.yml"
        threads: 1
        resources:
            mem_mb=memory_mb(500, per_raw_mb=4),
            runtime=10,
        params:
            protocol=study.section("mp2rage"),
            code=code_digest("map_pre_t1.py"),
        script:
            "../scripts/map_pre_t1.py"
