"""One patient's table of tumours and picture."""

import pandas as pd

from nanouptake.columns import write_table
from nanouptake.figures import patient_picture, save_figure
from nanouptake.images import load
from nanouptake.limits import with_intervals
from nanouptake.profiles import distribution, white_matter_drift
from nanouptake.steps import run_step
from nanouptake.tumors import tumor_rows


def main(inp, out, patient, timepoints, settings):
    def work():
        pre = load(inp["pre_t1"])
        labels, coverage = load(inp["labels"]).data, load(inp["coverage"]).data
        names = pd.read_csv(inp["names"], sep="\t")
        frames = []
        long: dict[str, list] = {"profiles": [], "sections": [], "histograms": []}
        for place, timepoint in enumerate(timepoints):
            conc, post = load(inp["concentration"][place]).data, load(inp["post_t1"][place]).data
            frame = tumor_rows(
                concentration=conc,
                t1_pre_s=pre.data,
                t1_post_s=post,
                labels=labels,
                coverage=coverage,
                names=names,
                spacing_mm=pre.spacing_mm,
                bin_edges_mg_ml=settings["bin_edges_mg_ml"],
                entropy_bin_width_mg_ml=settings["entropy_bin_width_mg_ml"],
                entropy_range_mg_ml=tuple(settings["entropy_range_mg_ml"]),
            )
            spread = distribution(
                pre.like(conc),
                labels,
                names,
                entropy_bin_width_mg_ml=settings["entropy_bin_width_mg_ml"],
                entropy_range_mg_ml=tuple(settings["entropy_range_mg_ml"]),
            )
            place_of_t1 = frame.columns.get_loc("t1_pre_s")
            for step, column in enumerate(spread.columns.columns.drop("tumor")):
                frame.insert(place_of_t1 + step, column, spread.columns[column])
            place_of_pattern = frame.columns.get_loc("pattern")
            drift = white_matter_drift(pre.like(conc), pre.data, labels)
            frame.insert(place_of_pattern, "white_matter_mg_ml", drift)
            frame = with_intervals(frame, pd.read_csv(inp["intervals"][place], dtype={"tumor": str}))
            for table, parts in long.items():
                part = getattr(spread, table)
                part.insert(0, "timepoint", timepoint)
                part.insert(0, "patient", patient)
                parts.append(part)
            frame.insert(0, "timepoint", timepoint)
            frame.insert(0, "patient", patient)
            frames.append(frame)
            if place == 0:
                save_figure(patient_picture(pre, post, conc, coverage, labels), out["picture"])
        write_table(out["table"], pd.concat(frames, ignore_index=True), "tumors")
        for table, parts in long.items():
            write_table(out[table], pd.concat(parts, ignore_index=True), table)

    outputs = [path for key, path in out.items() if key != "status"]
    upstream = [inp["labelled"], *inp["mapped"], *inp["estimated"]]
    run_step("measure tumours", work, status=out["status"], outputs=outputs, upstream=upstream)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    inp = dict(s.input.items())
    for key in ("concentration", "validity", "post_t1", "mapped", "intervals", "estimated"):
        inp[key] = [inp[key]] if isinstance(inp[key], str) else list(inp[key])
    main(inp, dict(s.output.items()), s.wildcards.patient, s.params.timepoints, s.params.tumors)
