rule map_t1:
    """T1 in seconds from UNI by the MP2RAGE lookup, with a validity code per voxel."""
    input:
        uni=anat("UNIT1.nii.gz"),
        inv2=anat("inv-2_MP2RAGE.nii.gz"),
        tb1=anat("TB1map.nii.gz"),
        ingested=session("ingest.json"),
    output:
        t1=anat("T1map.nii.gz"),
        sidecar=anat("T1map.json"),
        validity=anat("desc-validity_T1map.nii.gz"),
        status=session("map_t1.json"),
    log:
        "logs/map_t1/sub-{patient}_ses-{timepoint}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=2),
        runtime=10,
    params:
        protocol=study.section("mp2rage"),
        code=code_digest("map_t1.py"),
    script:
        "../scripts/map_t1.py"
