"""Vials of one phantom: where they are, their T1, and what that says of accuracy or relaxivity."""

import json
from pathlib import Path

from nanouptake import phantoms, vials
from nanouptake.columns import write_table
from nanouptake.figures import save_figure
from nanouptake.figures_phantom import accuracy_figure, found_figure, map_figure, relaxivity_figure
from nanouptake.images import load, save, write_atomic
from nanouptake.steps import run_step


def main(inp, out, settings):
    write_atomic(out["found"], b"")

    def work():
        layout = vials.read_layout(inp["layout"])
        t1, magnitude = load(inp["t1"]), load(inp["magnitude"]).data
        validity, sd_s = load(inp["validity"]).data, load(inp["sd"]).data
        field_t = json.loads(Path(inp["sidecar"]).read_text())["MagneticFieldStrength"]
        tables = [Path(inp["layout"]).parent, Path(inp["tables"][0]).parent]
        flags = []
        if settings["kind"] == "accuracy":
            truth, flags = phantoms.true_t1(
                layout.truth[~layout.marker],
                temperature_k=settings["temperature_k"],
                tables=tables,
                field_t=field_t,
            )
        else:
            concentration = phantoms.concentrations(layout)
        if inp["labels"]:
            labels = vials.given_labels(load(inp["labels"]), t1, layout)
        else:
            expected = truth["true_t1_s"].to_numpy() if settings["kind"] == "accuracy" else -concentration
            found = vials.locate(
                layout,
                t1,
                magnitude,
                validity,
                axis=settings["axis"],
                slices=settings["slices"],
                rotation_deg=settings["rotation_deg"],
                distinguishing=settings["distinguishing_vial"],
                expected=vials.with_markers(expected, layout),
                show=lambda found: save_figure(found_figure(found, layout, magnitude), out["found"]),
                picture=out["found"],
            )
            labels = vials.labels(found, layout, t1.shape)
        measured = vials.measure(t1, validity, labels, layout, axis=settings["axis"], sd_s=sd_s)
        if settings["kind"] == "accuracy":
            table, summary, found_flags = phantoms.accuracy(measured, truth)
            figure = accuracy_figure(table, summary)
        else:
            table, summary, line, found_flags = phantoms.relaxivity(
                measured,
                concentration,
                mg_per_ml_per_mm=settings["mg_per_ml_per_mm"],
                form=settings["form"],
            )
            figure = relaxivity_figure(table, line)
        save(out["labels"], t1.like(labels))
        write_table(out["vials"], table, f"vials_{settings['kind']}")
        write_table(out["summary"], summary, "phantom_summary")
        picture = map_figure(t1, labels, layout, axis=settings["axis"])
        save_figure(picture, out["map_png"], out["map_svg"])
        save_figure(figure, out["fit_png"], out["fit_svg"])
        return {"flags": [*flags, *found_flags]}

    names = ("vials", "summary", "labels", "map_png", "map_svg", "fit_png", "fit_svg")
    outputs = [*(out[k] for k in names), *out["dictionaries"]]
    run_step("measure phantom", work, status=out["status"], outputs=outputs, upstream=[inp["mapped"]])


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(dict(s.input.items()), dict(s.output.items()), s.params.settings)
