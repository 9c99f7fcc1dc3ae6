"""Write one patient of the reference trial."""

from pathlib import Path

import yaml

from nanouptake.reference import write_patient


def main(specification, patient, truth):
    write_patient(yaml.safe_load(Path(specification).read_text()), patient, Path(truth).parent)


if "snakemake" in globals():
    main(snakemake.input.specification, snakemake.wildcards.patient, snakemake.output.truth)  # noqa: F821
