"""How sure one post scan's numbers are: SD maps, corrected uptake with its interval, limits, drift."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from nanouptake.concentration import relative_b1
from nanouptake.contours import solids_of
from nanouptake.geometry import read_itk
from nanouptake.images import load, save, write_atomic
from nanouptake.limits import contralateral_drift, tumor_limits, upper_limit_mg_ml
from nanouptake.mp2rage import Lookup, Protocol
from nanouptake.steps import read_status, run_step
from nanouptake.uncertainty import (
    SETTINGS,
    Errors,
    Scan,
    concentration_sd,
    measured_noise,
    protocol_relative_error,
    registration_sd_mm,
    t1_sd,
    tumor_intervals,
    uni_sd_map,
)


def main(inp, out, timepoint, protocol, settings):
    def work():
        settings_ = SETTINGS | settings
        used = json.loads(Path(inp["sidecar"]).read_text())["Agent"]
        r1_relative_sd = used["sd_per_mm_per_s"] / used["per_mm_per_s"]
        agent = {"r1_per_mm_per_s": used["per_mm_per_s"], "mg_per_ml_per_mm": used["mg_per_ml_per_mm"]}
        lookup = Lookup(Protocol(**protocol))
        conc, pre_t1, post_t1 = (load(inp[k]) for k in ("concentration", "pre_t1", "post_t1"))
        labels, code = load(inp["labels"]).data, load(inp["validity"]).data

        to_contours, to_post = read_itk(inp["contours_to_pre"]), read_itk(inp["xfm"])
        to_pre = np.linalg.inv(read_itk(inp["planning_to_pre"])) if inp.get("planning_to_pre") else np.eye(4)
        scans, flags, sds, ratios = [], [], [], []
        for when, matrix, from_grid in (("pre", np.eye(4), to_pre), ("post", to_post, to_post @ to_pre)):
            uni, inv2 = load(inp[f"{when}_uni"]), load(inp[f"{when}_inv2"])
            b1 = relative_b1(inp[f"{when}_tb1"], shape=uni.shape, affine=uni.affine)
            found = measured_noise(uni, inv2, lookup=lookup)
            if found.in_air:
                flags.append(f"noise of {when if when == 'pre' else timepoint} measured in air")
            scans.append(Scan(uni, inv2, to_contours @ np.linalg.inv(matrix), found.sd, b1))
            sds.append(uni_sd_map(scans[-1], shape=conc.shape, affine=conc.affine, matrix=from_grid))
            ratios.append(found.sd_per_m0)
        no_map = any(scan.b1 is None for scan in scans)
        protocol_sd = protocol_relative_error(
            lookup.protocol, b1_sd=settings_["b1_sd"] if no_map else 0.0, protocol_sd=settings_["protocol_sd"]
        )
        sd_pre, sd_post = (
            t1_sd(t.data, sd, lookup=lookup) for t, sd in zip((pre_t1, post_t1), sds, strict=True)
        )
        sd = concentration_sd(
            conc.data,
            t1_pre_s=pre_t1.data,
            t1_pre_sd_s=sd_pre,
            t1_post_s=post_t1.data,
            t1_post_sd_s=sd_post,
            r1_relative_sd=r1_relative_sd,
            **agent,
        )
        for key, data in (("conc_sd", sd), ("pre_t1_sd", sd_pre), ("post_t1_sd", sd_post)):
            save(out[key], conc.like(data.astype(np.float32)))

        drift = contralateral_drift(conc, pre_t1.data, labels)
        if not np.isfinite(drift.sd_mg_ml):
            flags.append(f"{timepoint}: too little white matter to see a drift")
        elif abs(drift.median_mg_ml) > settings_["drift_limit_mg_ml"]:
            flags.append(f"{timepoint}: white matter drifted by {drift.median_mg_ml:.4f} mg/ml")
        errors = Errors(
            registration_sd_mm=registration_sd_mm(read_status(inp["registered"])),
            contours_sd_mm=registration_sd_mm(read_status(inp["contours_registered"])),
            contour_sd_mm=settings_["contour_sd_mm"],
            r1_relative_sd=r1_relative_sd,
            protocol_relative_sd=protocol_sd,
            drift_sd_mg_ml=float(np.nan_to_num(drift.sd_mg_ml)),
        )
        tumours = json.loads(Path(inp["contours"]).read_text())["tumors"]
        rows = tumor_intervals(
            *scans,
            solids_of(tumours, inp["drawn"]),
            lookup=lookup,
            errors=errors,
            draws=settings_["draws"],
            seed=settings_["seed"],
            **agent,
        )
        frame = pd.DataFrame(rows)
        frame.insert(0, "tumor", [t["name"] for t in tumours])
        limits = [
            tumor_limits(
                row,
                conc.data,
                code,
                labels == number,
                uloq_mg_ml=upper_limit_mg_ml(
                    lookup,
                    t1_pre_s=float(np.nanmedian(pre_t1.data[labels > 0])),
                    noise_ratio=max(ratios),
                    **agent,
                ),
            )
            for number, row in enumerate(rows, start=1)
        ]
        frame = pd.concat(
            [frame.drop(columns=["sd_zero_mg_ml", "width_voxels"]), pd.DataFrame(limits)], axis=1
        )
        frame["contralateral_mg_ml"] = drift.median_mg_ml
        write_atomic(out["table"], frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
        details = {
            "noise": {w: round(s.noise_sd, 4) for w, s in zip(("pre", timepoint), scans, strict=True)},
            "errors": {k: round(v, 5) for k, v in vars(errors).items()},
            "b1": {"map": not no_map, "expected_relative_error": round(protocol_sd, 5)},
        }
        return {"flags": flags, "details": details}

    outputs = [out[k] for k in ("table", "conc_sd", "pre_t1_sd", "post_t1_sd")]
    upstream = [inp["mapped"], inp["labelled"]]
    run_step(f"intervals of {timepoint}", work, status=out["status"], outputs=outputs, upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(
        dict(s.input.items()),
        dict(s.output.items()),
        s.wildcards.timepoint,
        s.params.protocol,
        s.params.uncertainty,
    )
