"""Write one phantom of the reference trial."""

from pathlib import Path

import yaml

from nanouptake.reference_phantoms import write_phantom


def main(specification, trial, phantom, truth):
    spec, of_trial = (yaml.safe_load(Path(p).read_text()) for p in (specification, trial))
    write_phantom(spec, of_trial, phantom, Path(truth).parent, tables=Path(specification).parent)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(s.input.specification, s.input.trial, s.wildcards.phantom, s.output.truth)
