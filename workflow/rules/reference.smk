rule write_reference_patient:
    """Write one patient of the built-in reference trial as DICOM, with the truth beside it."""
    input:
        specification=study.reference_specification(workflow.basedir),
    output:
        truth=REFERENCE_TRUTH,
    log:
        "logs/write_reference_patient/{patient}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 3500 * attempt,
        runtime=10,
    params:
        code=code_digest("write_reference_patient.py"),
    script:
        "../scripts/write_reference_patient.py"
