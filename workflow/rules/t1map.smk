rule map_t1:
    """T1 in seconds from UNI by the MP2RAGE lookup, with a validity code per voxel."""
    input:
        uni=ANAT + "_UNIT1.nii.gz",
        inv2=ANAT + "_inv-2_MP2RAGE.nii.gz",
        ingested=SES + "/ingest.json",
    output:
        t1=ANAT + "_T1map.nii.gz",
        sidecar=ANAT + "_T1map.json",
        validity=ANAT + "_desc-validity_T1map.nii.gz",
        status=SES + "/map_t1.json",
    log:
        "logs/map_t1/sub-{patient}_ses-{timepoint}.log",
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        protocol=config["mp2rage"],
        code=code_digest("map_t1.py"),
    script:
        "../scripts/map_t1.py"
