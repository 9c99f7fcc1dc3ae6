rule register_sessions:
    """Rigid transform from the post UNI to the pre UNI."""
    input:
        fixed=of_timepoint(ANAT, "pre") + "_UNIT1.nii.gz",
        fixed_inv2=of_timepoint(ANAT, "pre") + "_inv-2_MP2RAGE.nii.gz",
        fixed_t1=of_timepoint(ANAT, "pre") + "_T1map.nii.gz",
        moving=ANAT + "_UNIT1.nii.gz",
        moving_inv2=ANAT + "_inv-2_MP2RAGE.nii.gz",
        fixed_status="results/sub-{patient}/ses-pre/map_t1.json",
        moving_status=SES + "/ingest.json",
    output:
        xfm=XFM + "_from-{timepoint}_to-pre_mode-image_xfm.txt",
        status=XFM + "_from-{timepoint}_to-pre.json",
    log:
        "logs/register/sub-{patient}_from-{timepoint}_to-pre.log",
    wildcard_constraints:
        timepoint="post[0-9]*",
    threads: 1
    resources:
        mem_mb=2500,
        runtime=20,
    params:
        seed=config["registration"]["seed"],
        code=code_digest("register_sessions.py"),
    script:
        "../scripts/register_sessions.py"


rule register_planning:
    """Rigid transforms CT to planning MR (where needed), planning MR to MPRAGE, MPRAGE to pre UNI; composed."""
    input:
        uni=of_timepoint(ANAT, "pre") + "_UNIT1.nii.gz",
        inv2=of_timepoint(ANAT, "pre") + "_inv-2_MP2RAGE.nii.gz",
        t1=of_timepoint(ANAT, "pre") + "_T1map.nii.gz",
        t1w=of_timepoint(ANAT, "pre") + "_T1w.nii.gz",
        planning=of_timepoint(ANAT, "planning") + "_T1w.nii.gz",
        ct=of_timepoint(ANAT, "planning") + "_ct.nii.gz",
        contours="results/sub-{patient}/ses-planning/contours.json",
        pre_status="results/sub-{patient}/ses-pre/map_t1.json",
        planning_status="results/sub-{patient}/ses-planning/ingest.json",
    output:
        contours_to_pre=XFM + "_from-contours_to-pre_mode-image_xfm.txt",
        planning_to_pre=XFM + "_from-planning_to-pre_mode-image_xfm.txt",
        status=XFM + "_from-planning_to-pre.json",
    log:
        "logs/register/sub-{patient}_from-planning_to-pre.log",
    threads: 1
    resources:
        mem_mb=3500,
        runtime=30,
    params:
        seed=config["registration"]["seed"],
        code=code_digest("register_planning.py"),
    script:
        "../scripts/register_planning.py"
