"""The MP2RAGE protocol read back from a scanner's own T1 map and UNI of the same scan.

A scanner's T1 map is a function of UNI through the protocol it was made with. Pairs of the two identify
echo spacing, excitations and inversion efficiency, which headers do not hold.

    python -m nanouptake.protocol_check FOLDER

prints the protocol of a folder of DICOM with UNI and T1 images, for the config; what headers hold is taken
from them.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .mp2rage import Lookup, Protocol, from_dn

T1_RANGE_S = (0.3, 3.0)
FEWEST = 200  # different numbers of UNI
SPREAD_S = 0.02  # of T1 at one number of UNI, at most: otherwise more than UNI went into the map
NEEDED = (
    "tr_s, ti1_s, ti2_s, flip1_deg, flip2_deg: headers of INV1 and INV2; echo_spacing_s: 'echo spacing' of "
    "the protocol printout (Siemens: Sequence tab, Part 1); shots_before, shots_after: slices per slab x "
    "(slice partial Fourier - 0.5) and slices per slab / 2 (Resolution tab); inversion_efficiency: 0.96 for "
    "Siemens"
)


class Check(NamedTuple):
    """What the pairs say: misfit of the configured protocol, the best one and its misfit, number of pairs."""

    rms_ms: float
    best: Protocol
    best_rms_ms: float
    n: int


def pairs(uni: np.ndarray, t1_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return UNI's numbers and the median T1 in seconds at each.

    Parameters
    ----------
    uni : ndarray of int
        0..4095.
    t1_s : ndarray
        The scanner's T1 in seconds on the same grid; 0 or NaN where it has none.

    Raises DataError where T1 is no function of UNI, or where too few numbers occur.
    """
    known = np.isfinite(t1_s) & (t1_s >= T1_RANGE_S[0]) & (t1_s <= T1_RANGE_S[1]) & (uni > 0) & (uni < 4095)
    step = max(1, int(known.sum()) // 2_000_000)
    numbers, seconds = uni[known][::step].astype(np.int64), t1_s[known][::step]
    order = np.lexsort((seconds, numbers))
    numbers, seconds = numbers[order], seconds[order]
    values, first, count = np.unique(numbers, return_index=True, return_counts=True)
    middle = seconds[first + count // 2]
    low, high = seconds[first + count // 4], seconds[first + (3 * count) // 4]
    if values.size < FEWEST:
        raise DataError(
            "the scanner's T1 map cannot check the protocol",
            field="T1_Images",
            found=f"{values.size} different numbers of UNI with T1 of {T1_RANGE_S[0]} to {T1_RANGE_S[1]} s",
            wanted=f"at least {FEWEST}",
            cure="check that the T1 map is of this scan, in ms",
        )
    if np.median(high - low) > SPREAD_S:
        raise DataError(
            "the scanner's T1 map is no function of UNI",
            field="T1_Images",
            found=f"a spread of {1000 * np.median(high - low):.0f} ms at one number of UNI",
            wanted=f"at most {1000 * SPREAD_S:.0f} ms",
            cure="export the T1 map without B1 correction and filters, of the same scan as UNI",
        )
    return values, middle


def check(uni: np.ndarray, t1_s: np.ndarray, protocol: Protocol) -> Check:
    """Compare the configured protocol with the pairs and find the protocol that fits best.

    TR, TI and flip angles are taken as configured: headers have them. Echo spacing, efficiency and the
    excitations before and after the centre are fitted; excitations are whole numbers.
    """
    from scipy.optimize import least_squares

    numbers, seconds = pairs(uni, t1_s)
    target = from_dn(numbers)
    # T1 per UNI of the configured protocol turns misfits of UNI into misfits of T1.
    slope = np.abs(Lookup(protocol).slope(seconds))

    def model(p: np.ndarray, shots: tuple[float, float]) -> np.ndarray:
        try:
            tried = replace(
                protocol,
                echo_spacing_s=float(p[0]),
                inversion_efficiency=float(p[1]),
                shots_before=shots[0],  # type: ignore[arg-type]
                shots_after=shots[1],  # type: ignore[arg-type]
            )
        except DataError:
            return np.full(seconds.size, 1e3)
        return np.asarray((tried.uni(seconds) - target) / slope)

    def refine(shots: tuple[int, int], start: np.ndarray) -> tuple[float, np.ndarray]:
        fit = least_squares(
            lambda p: model(p, shots), start, x_scale=[1e-4, 1e-2], bounds=([0.002, 0.5], [0.05, 1.0])
        )
        return float(np.sqrt((fit.fun**2).mean())), fit.x

    start = np.array([protocol.echo_spacing_s, min(protocol.inversion_efficiency, 0.999)])
    best_all: tuple[float, np.ndarray] = (np.inf, np.array([]))
    for factor in (1.0, 0.7, 1.4):
        shots = np.array([protocol.shots_before, protocol.shots_after]) * factor
        first = np.array([start[0] / factor, start[1], *np.maximum(shots, 1)])
        if not np.isfinite(model(first[:2], (first[2], first[3]))).all():
            continue
        fit = least_squares(
            lambda p: model(p[:2], (p[2], p[3])),
            first,
            x_scale=[1e-4, 1e-2, 1.0, 1.0],
            bounds=([0.002, 0.5, 0.0, 1.0], [0.05, 1.0, 400.0, 400.0]),
        )
        if fit.cost < best_all[0]:
            best_all = (float(fit.cost), fit.x)
    centre = best_all[1]
    found: dict[tuple[int, int], tuple[float, np.ndarray]] = {}

    def at(shots: tuple[int, int]) -> float:
        if shots not in found:
            found[shots] = refine(shots, centre[:2])
        return found[shots][0]

    place = (max(0, round(centre[2])), max(1, round(centre[3])))
    while True:
        around = [
            (max(0, place[0] + a), max(1, place[1] + b)) for a, b in itertools.product(range(-2, 3), repeat=2)
        ]
        lowest = min(around, key=at)
        if lowest == place:
            break
        place = lowest
    rms, (spacing, efficiency) = found[place]
    best = replace(
        protocol,
        echo_spacing_s=round(float(spacing), 7),
        inversion_efficiency=round(float(efficiency), 5),
        shots_before=place[0],
        shots_after=place[1],
    )
    configured = Lookup(protocol).estimate(numbers.astype(np.uint16)).t1_s
    known = np.isfinite(configured)
    own = float(np.sqrt(np.mean((configured[known] - seconds[known]) ** 2))) if known.any() else np.inf
    return Check(1000 * own, best, 1000 * rms, int(numbers.size))


def details(result: Check) -> dict[str, float]:
    """Return the figures of a check for a status file."""
    return {
        "rms_ms": round(result.rms_ms, 3),
        "best_rms_ms": round(result.best_rms_ms, 3),
        "best_echo_spacing_s": result.best.echo_spacing_s,
        "best_shots_before": result.best.shots_before,
        "best_shots_after": result.best.shots_after,
        "best_inversion_efficiency": result.best.inversion_efficiency,
        "n_numbers": result.n,
    }


def judge(result: Check, *, limit_ms: float, refuse: bool) -> list[str]:
    """Return flags; DataError where the misfit is beyond the limit and ``refuse`` is true."""
    if result.rms_ms <= limit_ms:
        return []
    best = ", ".join(f"{k}: {v}" for k, v in asdict(result.best).items() if k[:4] in ("echo", "shot", "inve"))
    if refuse:
        raise DataError(
            "the configured MP2RAGE protocol is not the one this scan was made with",
            field="mp2rage",
            found=f"{result.rms_ms:.1f} ms RMS between the scanner's T1 map and the configured lookup",
            wanted=f"at most {limit_ms:g} ms; best fit ({result.best_rms_ms:.1f} ms): {best}",
            cure="correct mp2rage in the config, or set mp2rage_check.refuse: false (recorded in the flags)",
        )
    return [f"protocol check overridden: {result.rms_ms:.1f} ms RMS misfit; best fit {best}"]


def main(folder: str) -> str:
    """Return the protocol of a folder with INV1, INV2, UNI and the scanner's T1 map, as YAML."""
    from pathlib import Path

    from . import ingest

    series = ingest.scan_folder(Path(folder))[0]
    ingest.assign_roles(series, kind="session")
    first, second = (
        ingest.choose(series, f"inv-{n}_MP2RAGE", folder=Path(folder), required=True) for n in (1, 2)
    )
    uni = ingest.choose(series, "UNIT1", folder=Path(folder), required=True)
    maps = [s for s in series if s.reason == ingest.SCANNER_T1]
    if first is None or second is None or uni is None or len(maps) != 1:
        raise DataError(
            f"{len(maps) or 'no'} T1 maps of the scanner in the folder",
            file=folder,
            wanted="one beside INV1, INV2 and UNI",
            cure="export T1_Images; without them the config needs " + NEEDED,
        )
    volume = ingest.convert(uni)
    count = max(volume.shape[0], len(uni.files))
    start = Protocol(
        tr_s=float(first.headers[0].RepetitionTime) / 1000,
        ti1_s=float(first.headers[0].InversionTime) / 1000,
        ti2_s=float(second.headers[0].InversionTime) / 1000,
        flip1_deg=float(first.headers[0].FlipAngle),
        flip2_deg=float(second.headers[0].FlipAngle),
        echo_spacing_s=0.007,
        shots_before=count // 4,
        shots_after=count // 2,
    )
    result = check(volume.data, ingest.convert(maps[0]).data / 1000, start)
    lines = [f"  {key}: {value}" for key, value in asdict(result.best).items()]
    return "\n".join(
        [f"# {result.best_rms_ms:.2f} ms RMS from {result.n} numbers of UNI", "mp2rage:", *lines]
    )


if __name__ == "__main__":
    import sys

    try:
        print(main(sys.argv[1]))
    except DataError as refusal:
        sys.exit(str(refusal))
