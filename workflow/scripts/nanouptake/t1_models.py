"""The T1 models by name, and what each of them makes of a phantom's folder.

Every model is one module with a ``Protocol`` (units in the names, refuses itself where impossible), its
``signal`` (T1 to images) and its ``estimate`` (images to T1 with SD and a validity code).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom

from . import ingest
from .concentration import foreground, noise_sd, relative_b1_of
from .errors import DataError
from .images import Volume, load
from .mp2rage import Lookup, uni_sd
from .mp2rage import Protocol as Mp2rageProtocol
from .provenance import digest
from .validity import T1Estimate, Validity


class T1Map(NamedTuple):
    """T1 of a scan in seconds, with the magnitude in which structures are looked for."""

    t1: Volume
    sd_s: np.ndarray
    validity: np.ndarray
    magnitude: np.ndarray
    field_t: float | None
    details: dict[str, Any]
    flags: list[str]
    series: dict[str, str]  # what the images are known by, see ingest.series_digests


def of_mp2rage(folder: Path, *, protocol: dict, override: dict[str, str], check: dict | None) -> T1Map:
    """T1 by MP2RAGE: the series of a session (UNI, INV1, INV2; a B1+ map where the folder has one)."""
    found = ingest.ingest(
        folder, kind="session", protocol=Mp2rageProtocol(**protocol), override=override, check=check
    )
    volumes = {role: volume for role, (volume, _) in found.volumes.items()}
    uni, inv1, inv2 = (volumes[r] for r in ("UNIT1", "inv-1_MP2RAGE", "inv-2_MP2RAGE"))
    b1 = (
        relative_b1_of(volumes["TB1map"], shape=uni.shape, affine=uni.affine) if "TB1map" in volumes else None
    )
    lookup = Lookup(Mp2rageProtocol(**protocol))
    spread = uni_sd(inv1.data, inv2.data, noise_sd=noise_sd(inv2.data))
    estimate = lookup.estimate(uni.data, b1=b1, uni_sd=spread)
    assert estimate.sd_s is not None
    _empty(estimate, ~foreground(inv2.data))
    # One step of the scanner's 12 bits that is much of T1 tells nothing: the flat end of the lookup.
    with np.errstate(invalid="ignore"):
        step = 1 / 4095 / np.abs(lookup.slope(estimate.t1_s, 1.0 if b1 is None else b1))
        estimate.validity[step > FLAT * estimate.t1_s] = Validity.T1_BELOW_RANGE
    unknown = estimate.validity != Validity.OK
    estimate.t1_s[unknown] = estimate.sd_s[unknown] = np.nan
    field = found.volumes["inv-2_MP2RAGE"][1].get("MagneticFieldStrength")
    details = {"method": "mp2rage", "b1": "nominal" if b1 is None else "map", "protocol": protocol}
    if found.protocol_check:
        details["protocol_check"] = found.protocol_check
    return T1Map(
        uni.like(estimate.t1_s),
        estimate.sd_s,
        estimate.validity,
        inv2.data,
        field,
        details,
        found.flags,
        ingest.series_digests(found),
    )


def of_inversion_recovery(folder: Path, *, override: dict[str, str], **_: object) -> T1Map:
    """T1 by inversion recovery: one magnitude image (or stack) for each inversion time."""
    from .inversion_recovery import Protocol

    stack = read_contrasts(folder, varied="InversionTime", least=4)
    model = Protocol(ti_s=tuple(v / 1000 for v in stack.values))
    details = {"method": "inversion_recovery", "ti_s": list(model.ti_s)}
    return _of_stack(stack, model.estimate(stack.data), details, [])


def of_variable_flip_angle(folder: Path, *, override: dict[str, str], **_: object) -> T1Map:
    """T1 by variable flip angle: a spoiled gradient-echo stack for each angle, a B1+ map if there is one."""
    from .variable_flip_angle import Protocol

    stack = read_contrasts(folder, varied="FlipAngle", least=3)
    model = Protocol(tr_s=stack.tr_s, flip_deg=tuple(stack.values))
    b1 = None
    if maps := sorted(folder.rglob("*TB1map.nii*")):
        b1 = relative_b1_of(load(maps[0]), shape=stack.data.shape[:3], affine=stack.affine)
    elif "TB1map" in override:
        series = ingest.scan_folder(folder)[0]
        ingest.assign_roles(series, kind="session", override={"TB1map": override["TB1map"]})
        chosen = ingest.choose(series, "TB1map", folder=folder, required=True)
        assert chosen is not None
        b1 = relative_b1_of(ingest.convert(chosen), shape=stack.data.shape[:3], affine=stack.affine)
    flags = [] if b1 is not None else ["no B1+ map: T1 is off by twice the relative error of the flip angle"]
    details = {
        "method": "variable_flip_angle",
        "tr_s": model.tr_s,
        "flip_deg": list(model.flip_deg),
        "b1": "nominal" if b1 is None else "map",
    }
    return _of_stack(stack, model.estimate(stack.data, b1=b1), details, flags)


def _of_stack(stack: Contrasts, estimate: T1Estimate, details: dict, flags: list[str]) -> T1Map:
    """Return the map of a stack of magnitudes, air left out."""
    magnitude = stack.data.mean(axis=-1)
    _empty(estimate, ~_bright(magnitude))
    assert estimate.sd_s is not None
    volume = Volume(estimate.t1_s, stack.affine)
    return T1Map(
        volume, estimate.sd_s, estimate.validity, magnitude, stack.field_t, details, flags, stack.series
    )


MODELS: dict[str, Callable[..., T1Map]] = {
    "mp2rage": of_mp2rage,
    "inversion_recovery": of_inversion_recovery,
    "variable_flip_angle": of_variable_flip_angle,
}
FLAT = 0.02  # of T1: a step of UNI that moves T1 by more is the flat end of the lookup


def map_phantom(
    folder: str | Path,
    *,
    method: str,
    protocol: dict,
    override: dict[str, str] | None = None,
    check: dict | None = None,
) -> T1Map:
    """Read a phantom's folder and map its T1.

    Parameters
    ----------
    folder : path
        DICOM in any nesting (NIfTI with BIDS names for MP2RAGE).
    method : str
        A key of MODELS.
    protocol : dict
        The MP2RAGE protocol of the config; the other models read theirs from the headers.
    override : dict or None
        Role to series description, where the rules find none or several.
    check : dict or None
        limit_ms and refuse of the protocol check, see ingest.ingest.

    Raises DataError where the folder lacks what the model needs, naming it.
    """
    if method not in MODELS:
        raise DataError(
            "the T1 method is not known",
            file="config/phantoms.tsv",
            field="method",
            found=method,
            wanted=", ".join(MODELS),
            cure="correct the method",
        )
    return MODELS[method](Path(folder), protocol=protocol, override=override or {}, check=check)


class Contrasts(NamedTuple):
    """Images of one place that differ in one setting, which runs along the last axis of data (i, j, k, n)."""

    data: np.ndarray
    affine: np.ndarray
    values: list[float]
    tr_s: float
    field_t: float | None
    series: dict[str, str]


def read_contrasts(folder: Path, *, varied: str, least: int) -> Contrasts:
    """Read the DICOM images of a folder that differ in one header field alone.

    Parameters
    ----------
    folder : Path
        Any nesting; series of other kinds may lie beside.
    varied : str
        InversionTime or FlipAngle.
    least : int
        Fewest values that the model can use.
    """
    series, _ = ingest.scan_folder(folder)
    groups: dict[tuple, dict[float, list[tuple[pydicom.Dataset, Path]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    fixed = ["RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "Rows", "Columns", "PixelSpacing"]
    fixed.remove(varied)
    for one in series:
        if one.modality != "MR" or one.reason:
            continue
        for header, path in zip(one.headers, one.files, strict=True):
            needed = (varied, "RepetitionTime", "ImagePositionPatient", "ImageOrientationPatient")
            if any(header.get(tag) is None for tag in needed):
                continue
            turned = np.round(np.array(header.ImageOrientationPatient, float), 3)
            key = (*(str(header.get(tag)) for tag in fixed), *turned)
            groups[key][float(header[varied].value)].append((header, path))
    # A folder may hold other sequences; a model of flip angles has no inversion.
    found = max(groups.values(), key=len, default={})
    if len(found) < least:
        listing = "; ".join(f"'{s.description}' ({len(s.files)} files)" for s in series) or "no DICOM at all"
        raise DataError(
            f"too few images that differ in {varied} alone",
            file=str(folder),
            field=varied,
            found=f"{len(found)} values; {listing}",
            wanted=f"at least {least} values at one TR, TE and place",
            cure="bring the missing series, or choose another method in phantoms.tsv",
        )
    values = sorted(found)
    first = found[values[0]]
    normal = np.cross(*np.array(first[0][0].ImageOrientationPatient, float).reshape(2, 3))
    stacks, places = [], []
    for value in values:
        ordered = sorted(
            found[value], key=lambda item: float(np.array(item[0].ImagePositionPatient) @ normal)
        )
        places.append([np.array(h.ImagePositionPatient, float) for h, _ in ordered])
        stacks.append(ordered)
    apart = [
        len(p) != len(places[0]) or np.abs(np.array(p) - np.array(places[0])).max() > 0.1 for p in places
    ]
    if any(apart):
        raise DataError(
            f"the images of different {varied} do not lie at the same places",
            file=str(folder),
            field="ImagePositionPatient",
            found=", ".join(f"{v:g}: {len(p)} slices" for v, p in zip(values, places, strict=True)),
            wanted="the same slices for every value",
            cure="leave out repeated series, export missing slices",
        )
    data = np.stack([np.stack([_pixels(p, folder) for _, p in s], axis=-1) for s in stacks], axis=-1)
    header = first[0][0]
    along, down = np.array(header.ImageOrientationPatient, float).reshape(2, 3)
    rows_mm, columns_mm = (float(v) for v in header.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = along * columns_mm, down * rows_mm
    thickness = float(header.get("SliceThickness") or 1.0)
    affine[:3, 2] = normal * thickness
    if len(places[0]) > 1:
        affine[:3, 2] = (places[0][-1] - places[0][0]) / (len(places[0]) - 1)
    affine[:3, 3] = places[0][0]
    field = header.get("MagneticFieldStrength")
    uids = {f"{varied} {v:g}": str(s[0][0].SeriesInstanceUID) for v, s in zip(values, stacks, strict=True)}
    return Contrasts(
        data,
        affine,
        values,
        float(header.RepetitionTime) / 1000,
        None if field is None else float(field),
        {name: digest(uid.encode()) for name, uid in uids.items()},
    )


def _pixels(path: Path, folder: Path) -> np.ndarray:
    """Return a slice as (column, row), rescaled as its header says."""
    try:
        image = pydicom.dcmread(path)
        pixels = image.pixel_array.T.astype(np.float32)
    except Exception as error:
        raise DataError(
            "an image cannot be read",
            file=str(folder / path.relative_to(folder)),
            found=f"{type(error).__name__}: {error}",
            wanted="a whole DICOM image",
            cure="copy or export the file again (it may be truncated)",
        ) from error
    return pixels * float(image.get("RescaleSlope", 1)) + float(image.get("RescaleIntercept", 0))


def _bright(magnitude: np.ndarray) -> np.ndarray:
    """Return True where a magnitude image stands above air: Otsu's threshold, halved."""
    from skimage.filters import threshold_otsu

    return magnitude > threshold_otsu(magnitude) / 2


def _empty(estimate: T1Estimate, empty: np.ndarray) -> None:
    assert estimate.sd_s is not None
    estimate.validity[empty] = Validity.NO_SIGNAL
    estimate.t1_s[empty] = estimate.sd_s[empty] = np.nan
