rule register_sessions:
    """Rigid transform from the post UNI to the pre UNI."""
    input:
        fixed=anat("UNIT1.nii.gz", "pre"),
        fixed_inv2=anat("inv-2_MP2RAGE.nii.gz", "pre"),
        fixed_t1=anat("T1map.nii.gz", "pre"),
        moving=anat("UNIT1.nii.gz"),
        moving_inv2=anat("inv-2_MP2RAGE.nii.gz"),
        fixed_status="results/sub-{patient}/ses-pre/map_t1.json",
        moving_status=session("ingest.json"),
    output:
        xfm=xfm("from-{timepoint}_to-pre_mode-image_xfm.txt"),
        status=xfm("from-{timepoint}_to-pre.json"),
    log:
        "logs/register/sub-{patient}_from-{timepoint}_to-pre.log",
    wildcard_constraints:
        timepoint="post[0-9]*",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=7),
        runtime=20,
    params:
        seed=config["registration"]["seed"],
        code=code_digest("register_sessions.py"),
    script:
        "../scripts/register_sessions.py"


rule register_planning:
    """Rigid transforms CT to planning MR (where needed), planning MR to MPRAGE, MPRAGE to pre UNI; composed."""
    input:
        uni=anat("UNIT1.nii.gz", "pre"),
        inv2=anat("inv-2_MP2RAGE.nii.gz", "pre"),
        t1=anat("T1map.nii.gz", "pre"),
        t1w=anat("T1w.nii.gz", "pre"),
        planning=anat("T1w.nii.gz", "planning"),
        ct=anat("ct.nii.gz", "planning"),
        contours="results/sub-{patient}/ses-planning/contours.json",
        pre_status="results/sub-{patient}/ses-pre/map_t1.json",
        planning_status="results/sub-{patient}/ses-planning/ingest.json",
    output:
        contours_to_pre=xfm("from-contours_to-pre_mode-image_xfm.txt"),
        planning_to_pre=xfm("from-planning_to-pre_mode-image_xfm.txt"),
        t1w_to_pre=xfm("from-T1w_to-pre_mode-image_xfm.txt"),
        status=xfm("from-planning_to-pre.json"),
    log:
        "logs/register/sub-{patient}_from-planning_to-pre.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=8),
        runtime=30,
    params:
        seed=config["registration"]["seed"],
        code=code_digest("register_planning.py"),
    script:
        "../scripts/register_planning.py"
