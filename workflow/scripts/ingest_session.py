"""One session's folder becomes MP2RAGE and MPRAGE volumes with sidecars, and a list of its series."""

import json
from pathlib import Path

from nanouptake.images import save, write_atomic
from nanouptake.ingest import ingest, protocol_table, series_digests, series_table
from nanouptake.mp2rage import Protocol
from nanouptake.steps import run_step


def main(folder, timepoint, out, protocol, override, check):
    names = {
        "T1w": "t1w",
        "UNIT1": "uni",
        "inv-1_MP2RAGE": "inv1",
        "inv-2_MP2RAGE": "inv2",
        "TB1map": "tb1",
    }
    roles = {role: out[name] for role, name in names.items()}

    def work():
        found = ingest(
            Path(folder), kind="session", protocol=Protocol(**protocol), override=override, check=check
        )
        volumes, flags = found.volumes, found.flags
        for role, path in roles.items():
            side = out[f"{names[role]}_json"]
            if role not in volumes:
                write_atomic(path, b"")
                write_atomic(side, b"")
                if role != "TB1map":
                    flags.append(f"no {role} in {timepoint}")
                continue
            save(path, volumes[role][0])
            write_atomic(side, json.dumps(volumes[role][1], indent=1, sort_keys=True) + "\n")
        write_atomic(out["series"], series_table(found.series, found.others))
        details = {"protocol": protocol_table(volumes, Protocol(**protocol))}
        if found.protocol_check:
            details["protocol check"] = found.protocol_check
        return {"flags": flags, "details": details, "series": series_digests(found)}

    outputs = [v for k, v in out.items() if k != "status"]
    run_step(f"ingest {timepoint}", work, status=out["status"], outputs=outputs, source=folder)


if "snakemake" in globals():
    s = snakemake  # noqa: F821
    p = s.params
    main(p.folder, s.wildcards.timepoint, dict(s.output.items()), p.protocol, p.override, p.check)
