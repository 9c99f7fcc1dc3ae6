rule write_reference_phantom:
    """Write one phantom of the built-in reference trial as DICOM, with the truth beside it."""
    input:
        specification=TABLES / "reference_phantoms.yaml",
        trial=TABLES / "reference_trial.yaml",
        tables=sorted(TABLES.glob("*.tsv")),
    output:
        truth=REFERENCE_PHANTOM,
    log:
        "logs/write_reference_phantom/{phantom}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 1500 * attempt,
        runtime=10,
    params:
        code=code_digest("write_reference_phantom.py"),
    script:
        "../scripts/write_reference_phantom.py"


rule map_phantom:
    """T1 of a phantom by the method that its row names."""
    input:
        made_here=phantom_made_here,
    output:
        t1=phantom("T1map.nii.gz"),
        sd=phantom("desc-sd_T1map.nii.gz"),
        validity=phantom("desc-validity_T1map.nii.gz"),
        magnitude=phantom("magnitude.nii.gz"),
        sidecar=phantom("T1map.json"),
        status=phantom("map_status.json"),
    log:
        "logs/map_phantom/{phantom}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=3),
        runtime=10,
    params:
        folder=lambda wildcards: study.phantoms[wildcards.phantom]["path"],
        listing=lambda wildcards: study.phantom_listing(wildcards.phantom),
        override=lambda wildcards: study.phantom_override(wildcards.phantom),
        method=lambda wildcards: study.phantom_settings(wildcards.phantom)["method"],
        protocol=study.section("mp2rage"),
        check=study.section("mp2rage_check"),
        code=code_digest("map_phantom.py"),
    script:
        "../scripts/map_phantom.py"


rule measure_phantom:
    """Find a phantom's vials; accuracy of T1 in them, or the agent's relaxivity."""
    input:
        t1=phantom("T1map.nii.gz"),
        sd=phantom("desc-sd_T1map.nii.gz"),
        validity=phantom("desc-validity_T1map.nii.gz"),
        magnitude=phantom("magnitude.nii.gz"),
        sidecar=phantom("T1map.json"),
        mapped=phantom("map_status.json"),
        layout=lambda wildcards: study.phantom_layout(wildcards.phantom),
        labels=lambda wildcards: study.phantoms[wildcards.phantom].get("labels") or [],
        tables=sorted(TABLES.glob("*.tsv")),
    output:
        vials=phantom("vials.csv"),
        summary=phantom("summary.csv"),
        dictionaries=[phantom("vials.json"), phantom("summary.json")],
        labels=phantom("desc-vials_dseg.nii.gz"),
        map_png=report(
            phantom("figures/map.png"),
            caption="../report/phantom_map.rst",
            category="Phantoms",
            labels={"phantom": "{phantom}", "figure": "T1 map"},
        ),
        map_svg=phantom("figures/map.svg"),
        fit_png=report(
            phantom("figures/fit.png"),
            caption="../report/phantom_fit.rst",
            category="Phantoms",
            labels={"phantom": "{phantom}", "figure": "measured against known"},
        ),
        fit_svg=phantom("figures/fit.svg"),
        found=phantom("figures/found.png"),
        status=phantom("status.json"),
    log:
        "logs/measure_phantom/{phantom}.log",
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory_mb(500, per_raw_mb=3),
        runtime=10,
    params:
        settings=lambda wildcards: study.phantom_settings(wildcards.phantom),
        code=code_digest("measure_phantom.py"),
    script:
        "../scripts/measure_phantom.py"
