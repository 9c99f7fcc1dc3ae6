"""Rigid registration of one post UNI to the pre UNI."""

from nanouptake.geometry import write_itk
from nanouptake.images import load
from nanouptake.registration import brain_mask, head_mask, register
from nanouptake.steps import run_step


def main(inp, out, timepoint, seed):
    def work():
        fixed, moving = load(inp["fixed"]), load(inp["moving"])
        found = register(
            fixed,
            moving,
            pair="uni-uni",
            fixed_mask=brain_mask(load(inp["fixed_t1"]), load(inp["fixed_inv2"])),
            moving_mask=head_mask(load(inp["moving_inv2"])),
            seed=seed,
        )
        found.raise_if_failed(f"{timepoint} to pre")
        write_itk(out["xfm"], found.matrix)
        flags = [f"registration {timepoint} to pre: {found.reason}"] if found.status == "flagged" else []
        return {"flags": flags, "details": {"uni-uni": found.quality}}

    upstream = [inp["fixed_status"], inp["moving_status"]]
    run_step(f"register {timepoint}", work, status=out["status"], outputs=[out["xfm"]], upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()), s.wildcards.timepoint, s.params.seed)
