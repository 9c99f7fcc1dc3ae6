rule ingest_session:
    """Find, convert and check the MP2RAGE (and MPRAGE) of one session."""
    input:
        made_here=scan_made_here,
    output:
        t1w=anat("T1w.nii.gz"),
        uni=anat("UNIT1.nii.gz"),
        inv1=anat("inv-1_MP2RAGE.nii.gz"),
        inv2=anat("inv-2_MP2RAGE.nii.gz"),
        tb1=anat("TB1map.nii.gz"),
        t1w_json=anat("T1w.json"),
        uni_json=anat("UNIT1.json"),
        inv1_json=anat("inv-1_MP2RAGE.json"),
        inv2_json=anat("inv-2_MP2RAGE.json"),
        tb1_json=anat("TB1map.json"),
        series=session("series.tsv"),
        status=session("ingest.json"),
    log:
        "logs/ingest/sub-{patient}_ses-{timepoint}.log",
    wildcard_constraints:
        timepoint="pre|post[0-9]*",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=3),
        runtime=10,
    params:
        folder=scan_folder,
        listing=scan_listing,
        override=lambda wildcards: study.override(
            wildcards.patient, wildcards.timepoint
        ),
        protocol=study.section("mp2rage"),
        check=study.section("mp2rage_check"),
        code=code_digest("ingest_session.py"),
    script:
        "../scripts/ingest_session.py"


rule ingest_planning:
    """Find, convert and check the planning images; read the contours."""
    input:
        made_here=scan_made_here,
    output:
        t1w=anat("T1w.nii.gz", "planning"),
        ct=anat("ct.nii.gz", "planning"),
        labels=anat("dseg.nii.gz", "planning"),
        contours="results/sub-{patient}/ses-planning/contours.json",
        series="results/sub-{patient}/ses-planning/series.tsv",
        status="results/sub-{patient}/ses-planning/ingest.json",
    log:
        "logs/ingest/sub-{patient}_ses-planning.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=3),
        runtime=10,
    params:
        folder=lambda wildcards: study.folder(wildcards.patient, "planning"),
        listing=lambda wildcards: study.listing(wildcards.patient, "planning"),
        override=lambda wildcards: study.override(wildcards.patient, "planning"),
        name_pattern=config["tumors"]["name_pattern"],
        code=code_digest("ingest_planning.py"),
    script:
        "../scripts/ingest_planning.py"
