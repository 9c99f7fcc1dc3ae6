"""One session's folder becomes MP2RAGE and MPRAGE volumes with sidecars, and a list of its series."""

import json
from pathlib import Path

from nanouptake.images import save, write_atomic
from nanouptake.ingest import ingest, protocol_table, series_table
from nanouptake.mp2rage import Protocol
from nanouptake.steps import run_step


def main(folder, timepoint, out, protocol, override, check):
    roles = {
        "T1w": out["t1w"],
        "UNIT1": out["uni"],
        "inv-1_MP2RAGE": out["inv1"],
        "inv-2_MP2RAGE": out["inv2"],
        "TB1map": out["tb1"],
    }

    def work():
        found = ingest(
            Path(folder), kind="session", protocol=Protocol(**protocol), override=override, check=check
        )
        volumes, flags = found.volumes, found.flags
        for role, path in roles.items():
            if role not in volumes:
                write_atomic(path, b"")
                if role != "TB1map":
                    flags.append(f"no {role} in {timepoint}")
                continue
            save(path, volumes[role][0])
            side = Path(path.removesuffix(".nii.gz") + ".json")
            write_atomic(side, json.dumps(volumes[role][1], indent=1, sort_keys=True) + "\n")
        write_atomic(out["series"], series_table(found.series, found.others))
        details = {"protocol": protocol_table(volumes, Protocol(**protocol))}
        if found.protocol_check:
            details["protocol check"] = found.protocol_check
        return {"flags": flags, "details": details}

    outputs = [*roles.values(), out["series"]]
    run_step(f"ingest {timepoint}", work, status=out["status"], outputs=outputs, source=folder)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    p = s.params
    main(p.folder, s.wildcards.timepoint, dict(s.output.items()), p.protocol, p.override, p.check)
