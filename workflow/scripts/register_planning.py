"""Chain CT -> planning MR -> MPRAGE -> pre UNI of rigid registrations, composed into one transform."""

import json
from pathlib import Path

from nanouptake.errors import DataError
from nanouptake.geometry import write_itk
from nanouptake.images import load, write_atomic
from nanouptake.registration import brain_mask, brain_mask_t1w, head_mask, register
from nanouptake.steps import run_step


def main(inp, out, seed):
    def work():
        flags, details = [], {}

        def fit(fixed, moving, pair, fixed_mask, moving_mask=None):
            found = register(
                fixed,
                moving,
                pair=pair,
                fixed_mask=fixed_mask,
                moving_mask=moving_mask,
                seed=seed,
            )
            found.raise_if_failed(pair)
            if found.status == "flagged":
                flags.append(f"registration {pair}: {found.reason}")
            details[pair] = found.quality
            return found.matrix

        uni = load(inp["uni"])
        brain = brain_mask(load(inp["t1"]), load(inp["inv2"]))
        planning = load(inp["planning"])
        if Path(inp["t1w"]).stat().st_size:
            t1w = load(inp["t1w"])
            to_t1w = fit(uni, t1w, "t1w-uni", brain)
            to_planning = fit(t1w, planning, "t1w-t1w", brain_mask_t1w(t1w)) @ to_t1w
            write_itk(out["t1w_to_pre"], to_t1w)
        else:
            to_planning = fit(uni, planning, "t1w-uni", brain)
            write_atomic(out["t1w_to_pre"], b"")
        to_contours = to_planning
        if json.loads(Path(inp["contours"]).read_text())["drawn_on"] == "CT":
            if not Path(inp["ct"]).stat().st_size:
                raise DataError(
                    "the contours are on a CT that is not there",
                    wanted="the CT series of the contours",
                    cure="export the CT with its RTSTRUCT",
                )
            to_contours = fit(planning, load(inp["ct"]), "ct-t1w", head_mask(planning)) @ to_planning
        write_itk(out["planning_to_pre"], to_planning)
        write_itk(out["contours_to_pre"], to_contours)
        return {"flags": flags, "details": details}

    outputs = [out[k] for k in ("planning_to_pre", "contours_to_pre", "t1w_to_pre")]
    upstream = [inp["pre_status"], inp["planning_status"]]
    run_step("register planning", work, status=out["status"], outputs=outputs, upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()), s.params.seed)
