"""The planning folder becomes the images the contours were drawn on, and the tumours' polygons."""

import json
from pathlib import Path

from nanouptake.contours import label_names, read_rtstruct, usable
from nanouptake.errors import DataError
from nanouptake.images import save, write_atomic
from nanouptake.ingest import ingest, series_digests, series_table
from nanouptake.steps import run_step


def drawn_in(tumours, series):
    """Return the roles of the images whose frame of reference the contours have."""
    frames = {t.frame_of_reference_uid for t in tumours}
    drawn_on = [
        s.role
        for s in series
        if s.role in ("T1w", "CT") and {str(h.get("FrameOfReferenceUID", "")) for h in s.headers} & frames
    ]
    if len(frames) != 1 or not drawn_on:
        raise DataError(
            "the contours' frame of reference is not that of the planning images",
            field="FrameOfReferenceUID",
            found=f"{len(frames)} frames in the RTSTRUCT, none or several among the images",
            wanted="the frame of the planning MR or CT",
            cure="export the image series on which the contours were drawn",
        )
    return drawn_on


def main(folder, out, override, name_pattern):
    def work():
        found = ingest(Path(folder), kind="planning", protocol=None, override=override)
        volumes, rtstruct, series, others, flags, _ = found
        if rtstruct is None:
            tumours, aside = label_names(Path(folder), name_pattern)
        else:
            tumours, aside = usable(read_rtstruct(rtstruct), name_pattern)
        if not tumours:
            raise DataError(
                "no structure is a tumour",
                field="tumors.name_pattern",
                found="; ".join(name for name, _ in aside) or "no structures",
                wanted=name_pattern,
                cure="correct the pattern in the config or the names in the planning system",
            )
        drawn_on = ["T1w"] if rtstruct is None else drawn_in(tumours, series)
        for role, path in (("T1w", out["t1w"]), ("CT", out["ct"]), ("dseg", out["labels"])):
            if role in volumes:
                save(path, volumes[role][0])
            else:
                write_atomic(path, b"")
        content = {
            "drawn_on": "T1w" if "T1w" in drawn_on else "CT",
            "tumors": [
                {"name": t.name, "contours": [c.round(4).tolist() for c in t.contours]}
                if rtstruct is not None
                else {"name": t.name, "label": t.number}
                for t in tumours
            ],
            "set_aside": [list(pair) for pair in aside],
        }
        write_atomic(out["contours"], json.dumps(content) + "\n")
        write_atomic(out["series"], series_table(series, others))
        return {"flags": flags, "series": series_digests(found)}

    outputs = [out[k] for k in ("t1w", "ct", "labels", "contours", "series")]
    run_step("ingest planning", work, status=out["status"], outputs=outputs, source=folder)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    main(s.params.folder, dict(s.output.items()), s.params.override, s.params.name_pattern)
