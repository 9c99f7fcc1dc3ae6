rule estimate_intervals:
    """SD maps of one post scan, corrected uptake of every tumour with its interval, limits, drift."""
    input:
        pre_uni=anat("UNIT1.nii.gz", "pre"),
        pre_inv2=anat("inv-2_MP2RAGE.nii.gz", "pre"),
        pre_tb1=anat("TB1map.nii.gz", "pre"),
        post_uni=anat("UNIT1.nii.gz"),
        post_inv2=anat("inv-2_MP2RAGE.nii.gz"),
        post_tb1=anat("TB1map.nii.gz"),
        pre_t1=pre_map("T1map.nii.gz"),
        post_t1=uptake("T1map.nii.gz", "{timepoint}"),
        concentration=uptake("conc.nii.gz", "{timepoint}"),
        sidecar=uptake("conc.json", "{timepoint}"),
        validity=uptake("desc-validity_conc.nii.gz", "{timepoint}"),
        mapped=uptake("status.json", "{timepoint}"),
        labels=uptake("desc-gtv_dseg.nii.gz"),
        labelled=uptake("desc-gtv_status.json"),
        contours="results/sub-{patient}/ses-planning/contours.json",
        drawn=anat("dseg.nii.gz", "planning"),
        contours_to_pre=xfm("from-contours_to-pre_mode-image_xfm.txt"),
        contours_registered=xfm("from-planning_to-pre.json"),
        planning_to_pre=planning_to_pre(),
        xfm=xfm("from-{timepoint}_to-pre_mode-image_xfm.txt"),
        registered=xfm("from-{timepoint}_to-pre.json"),
    output:
        table=uptake("intervals.csv", "{timepoint}"),
        conc_sd=uptake("desc-sd_conc.nii.gz", "{timepoint}"),
        pre_t1_sd=uptake("desc-sdpre_T1map.nii.gz", "{timepoint}"),
        post_t1_sd=uptake("desc-sdpost_T1map.nii.gz", "{timepoint}"),
        status=uptake("desc-intervals_status.json", "{timepoint}"),
    log:
        "logs/estimate_intervals/sub-{patient}_ses-{timepoint}.log",
    wildcard_constraints:
        timepoint="post[0-9]*",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(600, per_raw_mb=14),
        runtime=15,
    params:
        protocol=study.section("mp2rage"),
        uncertainty=study.section("uncertainty"),
        code=code_digest("estimate_intervals.py"),
    script:
        "../scripts/estimate_intervals.py"
