"""The reference trial: digital patients with known uptake, written as DICOM with their truth."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from . import geometry
from .errors import DataError
from .mp2rage import Protocol, combine, to_dn
from .reference_anatomy import (
    HEAD_CENTRE_MM,
    PATTERNS,
    TISSUES,
    Contrast,
    Head,
    Tumour,
    Warp,
    nodes,
    place_tumours,
    sample,
)
from .reference_dicom import Grid, Study, Written, ellipse_on_slice, orientation, write_rtstruct, write_series

COLUMNS = (
    "patient", "timepoint", "tumor", "pattern", "volume_ml", "diameter_mm", "mean_mg_ml", "t1_pre_s",
    "t1_post_s", "x_mm", "y_mm", "z_mm",
)  # fmt: skip
STORED_MAX = 4095
CT_OFFSET = 1024
SERIES = ("mp2rage", "t1w", "planning_mr", "planning_ct")
SCANNER = {
    "ManufacturerModelName": "MAGNETOM Vida",
    "SoftwareVersions": "syngo MR XA20",
    "MagneticFieldStrength": "3",
    "ImagingFrequency": "123.25",
    "ImagedNucleus": "1H",
    "MRAcquisitionType": "3D",
    "ScanningSequence": ["GR", "IR"],
    "SequenceVariant": ["SK", "SP", "MP"],
    "ScanOptions": "IR",
    "NumberOfAverages": "1",
    "PixelBandwidth": "240",
}


def read_spec(path: str | Path) -> dict[str, Any]:
    """Read and check the description of a reference trial."""
    spec = yaml.safe_load(Path(path).read_text())
    check_spec(spec)
    return spec


def check_spec(spec: dict[str, Any]) -> None:
    """Raise DataError where a description of a reference trial cannot be followed."""

    def refuse(field: str, found: object, wanted: str) -> None:
        raise DataError(
            "the reference trial's description cannot be used",
            field=field,
            found=found,
            wanted=wanted,
            cure="compare it with resources/phantoms/reference_trial.yaml",
        )

    needed = ("seed", "anatomy", "agent", "timepoints", "poses", "identity", "patients", *SERIES)
    for key in needed:
        if not isinstance(spec, dict) or key not in spec:
            refuse(key, "nothing", "an entry")
    for key in SERIES:
        for name, low, high in (("spacing_mm", 0.2, 20.0), ("matrix", 4, 1024)):
            values = spec[key].get(name)
            if not isinstance(values, list) or len(values) != 3 or not all(low <= v <= high for v in values):
                refuse(f"{key}.{name}", values, f"three numbers from {low} to {high}")
    names = [item["name"] for item in spec["timepoints"]]
    if len(set(names)) != len(names) or {"pre", "planning"} & set(names):
        refuse("timepoints", names, "different names other than pre and planning")
    if not 0 <= spec["mp2rage"]["b1"] <= 0.25:
        refuse("mp2rage.b1", spec["mp2rage"]["b1"], "0 to 0.25")
    for name, patient in spec["patients"].items():
        if patient["arm"] not in ("agent", "placebo"):
            refuse(f"{name}.arm", patient["arm"], "agent or placebo")
        if patient["drawn_on"] not in ("planning_mr", "planning_ct"):
            refuse(f"{name}.drawn_on", patient["drawn_on"], "planning_mr or planning_ct")
        for n, tumour in enumerate(patient["tumours"]):
            field = f"{name}.tumours[{n}]"
            if tumour["pattern"] not in PATTERNS:
                refuse(f"{field}.pattern", tumour["pattern"], ", ".join(PATTERNS))
            if not 1 <= tumour["diameter_mm"] <= 60:
                refuse(f"{field}.diameter_mm", tumour["diameter_mm"], "1 to 60")
            if not 0.2 <= tumour["t1_s"] <= 4:
                refuse(f"{field}.t1_s", tumour["t1_s"], "0.2 to 4")
            if not 0 <= tumour["mean_mg_ml"] <= 1 or (patient["arm"] == "placebo" and tumour["mean_mg_ml"]):
                refuse(f"{field}.mean_mg_ml", tumour["mean_mg_ml"], "0 to 1, and 0 in the placebo arm")
    Protocol(**spec["mp2rage"]["protocol"])


class _Patient:
    """One patient of the trial while it is written."""

    def __init__(self, spec: dict[str, Any], patient: str) -> None:
        self.spec = spec
        self.name = patient
        self.entry = spec["patients"][patient]
        self.digest = hashlib.sha256(json.dumps(spec, sort_keys=True, default=str).encode()).hexdigest()
        self.r1 = spec["agent"]["r1_per_mm_per_s"] * spec["agent"]["mm_per_mg_per_ml"]
        anatomy = spec["anatomy"]
        warp = Warp.draw(
            self.rng("warp"), warp_mm=anatomy["warp_mm"], scale_range=tuple(anatomy["scale_range"])
        )
        tumours = place_tumours(
            self.entry["tumours"],
            warp=warp,
            rng=self.rng("tumours"),
            axis_ratio=anatomy["axis_ratio"],
            gap_mm=anatomy["gap_mm"],
            edge_mm=anatomy["edge_mm"],
        )
        self.head = Head(warp=warp, tumours=tumours, t1_variation=anatomy["t1_variation"])
        self.poses: dict[str, np.ndarray] = {}

    def rng(self, *tags: str) -> np.random.Generator:
        text = "|".join([str(self.spec["seed"]), self.name, *tags])
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))

    def study(self, session: str, *, hour: int) -> Study:
        identity = self.spec["identity"]
        return Study(
            entropy=self.digest,
            patient=self.name,
            session=session,
            word=identity["word"],
            birth_date=identity["birth_date"],
            date=identity["study_date"],
            time=f"{hour:02d}1500",
        )

    def pose(self, session: str, series: str) -> np.ndarray:
        """Return head LPS to scanner LPS: the session's pose, then the series' own small motion."""
        limits = self.spec["poses"]
        centre = HEAD_CENTRE_MM
        # The planning MR and CT are two visits.
        visit = series if session == "planning" else session
        first = _rigid_within(self.rng("pose", visit), limits["session_mm"], limits["session_deg"], centre)
        own = _rigid_within(
            self.rng("pose", session, series), limits["series_mm"], limits["series_deg"], centre
        )
        key = series if session == "planning" else f"{session}_{series}"
        self.poses[key] = own @ first
        return self.poses[key]

    def grid(self, settings: dict[str, Any], pose: np.ndarray, *, plane: str) -> Grid:
        """Return a grid that the technologist centred on the head, to 1 mm."""
        tilt = geometry.rotation(x_deg=-settings.get("tilt_deg", 0.0))
        return Grid(
            shape=tuple(settings["matrix"]),
            spacing_mm=np.array(settings["spacing_mm"], float),
            axes=orientation(plane, tilt=tilt),
            centre_mm=np.round(geometry.apply(pose, HEAD_CENTRE_MM)),
        )

    def contrast(self, tables: list[np.ndarray], weight: str) -> Contrast:
        tissues = self.spec["anatomy"]["tissues"]
        tumour = self.spec["anatomy"]["tumour"]
        offset = 1000.0 if weight == "hu" else 0.0
        return Contrast(
            tables=np.stack(tables),
            tissue_t1_s=np.array([tissues[t]["t1_s"] for t in TISSUES]),
            tissue_weight=np.array([tissues[t][weight] + offset for t in TISSUES]),
            tumour_weight=tumour[weight] + offset,
        )

    def sample(self, contrast: Contrast, grid: Grid, pose: np.ndarray, **options: Any) -> np.ndarray:
        tumours = self.head.tumours
        settings: dict[str, Any] = {
            "tumour_t1_s": [t.t1_s for t in tumours],
            "tumour_mg_ml": [0.0] * len(tumours),
        }
        return sample(
            self.head,
            contrast=contrast,
            index_to_head=np.linalg.inv(pose) @ grid.affine,
            shape=grid.shape,
            r1_per_mg_ml_s=self.r1,
            **(settings | options),
        )

    def write_mp2rage(self, folder: Path, study: Study, *, uptake: float, number: int) -> None:
        settings = self.spec["mp2rage"]
        protocol = Protocol(**settings["protocol"])
        t1, b1 = nodes()
        contrast = self.contrast(list(protocol.signal(t1[:, None], b1[None, :])), "proton_density")
        pose = self.pose(study.session, "uni")
        grid = self.grid(settings, pose, plane="sagittal")
        s1, s2 = self.sample(
            contrast,
            grid,
            pose,
            tumour_mg_ml=[uptake * t.mean_mg_ml for t in self.head.tumours],
            b1=settings["b1"],
            b1_phase=float(self.rng("b1", study.session).uniform(0, 2 * np.pi)),
            receive=settings["receive"],
        )
        wm = self.spec["anatomy"]["tissues"]["wm"]
        snr = settings["snr"]
        write_mp2rage_series(
            folder,
            study=study,
            grid=grid,
            signals=(s1, s2),
            noise_sd=wm["proton_density"] * float(protocol.signal(wm["t1_s"])[1]) / snr if snr else 0.0,
            rng=self.rng("noise", study.session, "mp2rage"),
            protocol=protocol,
            te_s=settings["te_s"],
            number=number,
        )

    def write_mprage(
        self, folder: Path, study: Study, *, key: str, series: str, uptake: float, number: int
    ) -> Written:
        settings = self.spec[key]
        t1, b1 = nodes()
        table = _mprage(t1[:, None], b1[None, :], settings)
        contrast = self.contrast([table], "proton_density")
        pose = self.pose(study.session, series)
        enhanced = key == "planning_mr"
        grid = self.grid(settings, pose, plane="axial" if enhanced else "sagittal")
        tumours = self.head.tumours
        options: dict[str, Any] = {"tumour_mg_ml": [uptake * t.mean_mg_ml for t in tumours]}
        if enhanced:
            options["tumour_t1_s"] = [self.spec["anatomy"]["tumour"]["enhanced_t1_s"]] * len(tumours)
        signal = self.sample(contrast, grid, pose, receive=settings["receive"], **options)[0]
        wm = self.spec["anatomy"]["tissues"]["wm"]
        reference = wm["proton_density"] * float(_mprage(np.array(wm["t1_s"]), np.array(1.0), settings))
        rng = self.rng("noise", study.session, series)
        if settings["snr"]:
            sd = reference / settings["snr"]
            real = signal + sd * rng.standard_normal(signal.shape, np.float32)
            signal = np.hypot(real, sd * rng.standard_normal(signal.shape, np.float32))
        header = SCANNER | {
            "ProtocolName": "t1_mprage_tra_ce" if enhanced else "t1_mprage_sag",
            "SeriesDescription": "t1_mprage_tra_ce" if enhanced else "t1_mprage_sag",
            "SequenceName": "*tfl3d1_16ns",
            "RepetitionTime": _ds(1e3 * settings["tr_s"]),
            "InversionTime": _ds(1e3 * settings["ti_s"]),
            "EchoTime": _ds(1e3 * settings["te_s"]),
            "FlipAngle": _ds(settings["flip_deg"]),
            "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        }
        if enhanced:
            header["ContrastBolusAgent"] = "Gadoterate"
        scaled = np.round(np.abs(signal) * (800 / reference)).clip(0, STORED_MAX)
        return write_series(
            folder,
            study=study,
            grid=grid,
            pixels=scaled.astype(np.uint16),
            number=number,
            frame=key if enhanced else study.session,
            header=header,
        )

    def write_ct(self, folder: Path, study: Study, *, number: int) -> Written:
        settings = self.spec["planning_ct"]
        t1, b1 = nodes()
        contrast = self.contrast([np.ones((t1.size, b1.size))], "hu")
        pose = self.pose(study.session, "planning_ct")
        grid = self.grid(settings, pose, plane="axial")
        hu = self.sample(contrast, grid, pose)[0] - 1000
        hu += settings["noise_hu"] * self.rng("noise", "ct").standard_normal(hu.shape, np.float32)
        return write_series(
            folder,
            study=study,
            grid=grid,
            pixels=np.round(hu + CT_OFFSET).clip(0, STORED_MAX).astype(np.uint16),
            number=number,
            frame="planning_ct",
            modality="CT",
            header={
                "ManufacturerModelName": "SOMATOM Confidence",
                "SeriesDescription": "Head 1.25 H31s",
                "ProtocolName": "RT_Head",
                "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
                "KVP": "120",
                "ConvolutionKernel": "H31s",
                "RescaleIntercept": str(-CT_OFFSET),
                "RescaleSlope": "1",
                "RescaleType": "HU",
                "WindowCenter": "40",
                "WindowWidth": "80",
            },
        )

    def write_rois(self, folder: Path, study: Study, on: Written) -> None:
        pose = self.poses[self.entry["drawn_on"]]
        affine = on.grid.affine
        rois: dict[str, list[tuple[int, np.ndarray]]] = {}
        for tumour in self.head.tumours:
            outlines = []
            for k in range(on.grid.shape[2]):
                points = ellipse_on_slice(tumour, head_to_scanner=pose, affine=affine, index=k)
                if points is not None:
                    outlines.append((k, points))
            rois[tumour.name] = outlines
        centre = np.linalg.inv(affine) @ [*geometry.apply(pose, HEAD_CENTRE_MM), 1]
        half = 60 / on.grid.spacing_mm
        corners = centre[:2] + half[:2] * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        slices = range(
            max(0, int(np.ceil(centre[2] - half[2]))),
            min(on.grid.shape[2], int(np.floor(centre[2] + half[2])) + 1),
        )
        rois["BrainBox"] = [
            (k, geometry.apply(affine, np.column_stack([corners, np.full(4, float(k))]))) for k in slices
        ]
        types = dict.fromkeys(rois, "GTV") | {"BrainBox": "ORGAN"}
        write_rtstruct(folder, study=study, on=on, rois=rois, types=types)

    def truth(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        rows = []
        for timepoint in self.spec["timepoints"]:
            for tumour in self.head.tumours:
                mean, t1 = tumour.truth(uptake=timepoint["uptake"], r1_per_mg_ml_s=self.r1)
                centre = geometry.apply(self.poses["pre_uni"], tumour.centre_mm)
                rows.append(
                    {
                        "patient": self.name,
                        "timepoint": timepoint["name"],
                        "tumor": tumour.name,
                        "pattern": tumour.pattern,
                        "volume_ml": round(tumour.volume_ml, 6),
                        "diameter_mm": round(float(2 * np.cbrt(tumour.semi_axes_mm.prod())), 4),
                        "mean_mg_ml": round(mean, 6),
                        "t1_pre_s": tumour.t1_s,
                        "t1_post_s": round(t1, 6),
                        **{f"{a}_mm": round(float(c), 4) for a, c in zip("xyz", centre, strict=True)},
                    }
                )
        described = {
            "patient": self.name,
            "arm": self.entry["arm"],
            "drawn_on": self.entry["drawn_on"],
            "head_to_scanner_lps": {k: v.tolist() for k, v in self.poses.items()},
            "tumours": [_described(t) for t in self.head.tumours],
        }
        return rows, described


def write_mp2rage_series(
    folder: Path,
    *,
    study: Study,
    grid: Grid,
    signals: tuple[np.ndarray, np.ndarray],
    noise_sd: float,
    rng: np.random.Generator,
    protocol: Protocol,
    te_s: float,
    number: int,
) -> None:
    """Write INV1, INV2 and UNI of two noise-free signals as three series that begin with a number."""
    channels = []
    for signal in signals:
        noisy = signal.astype(np.complex64)
        if noise_sd:
            noisy.real += noise_sd * rng.standard_normal(signal.shape, np.float32)
            noisy.imag += noise_sd * rng.standard_normal(signal.shape, np.float32)
        channels.append(noisy)
    # Without noise air has no phase to compare: its UNI is 0.
    uni = to_dn(np.nan_to_num(combine(*channels)))
    magnitudes = [np.abs(c) for c in channels]
    scale = 0.9 * STORED_MAX / max(float(m.max()) for m in magnitudes)
    common = SCANNER | {
        "AcquisitionTime": f"{study.time[:2]}2100",
        "ProtocolName": "t1_mp2rage_sag_p3_iso",
        "SequenceName": "*tfl3d1_16ns",
        "RepetitionTime": _ds(1e3 * protocol.tr_s),
        "EchoTime": _ds(1e3 * te_s),
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    }
    for k, (magnitude, ti, flip) in enumerate(
        zip(
            magnitudes,
            (protocol.ti1_s, protocol.ti2_s),
            (protocol.flip1_deg, protocol.flip2_deg),
            strict=True,
        )
    ):
        write_series(
            folder,
            study=study,
            grid=grid,
            pixels=np.round(magnitude * scale).astype(np.uint16),
            number=number + k,
            frame=study.session,
            header=common
            | {
                "SeriesDescription": f"t1_mp2rage_sag_p3_iso_INV{k + 1}",
                "InversionTime": _ds(1e3 * ti),
                "FlipAngle": _ds(flip),
            },
        )
    write_series(
        folder,
        study=study,
        grid=grid,
        pixels=uni,
        number=number + 2,
        frame=study.session,
        header=common
        | {
            "SeriesDescription": "t1_mp2rage_sag_p3_iso_UNI_Images",
            "ImageType": ["DERIVED", "PRIMARY", "M", "ND", "UNI"],
        },
    )


def write_patient(spec: dict[str, Any], patient: str, out_dir: Path) -> None:
    """Write a patient's DICOM (planning, pre and every timepoint), truth.csv and truth.json.

    The same description and patient always give the same files.

    Parameters
    ----------
    spec : dict
        As in resources/phantoms/reference_trial.yaml.
    patient : str
        A key of spec["patients"].
    out_dir : Path
        Made where missing.
    """
    check_spec(spec)
    if patient not in spec["patients"]:
        raise DataError(
            "the reference trial has no such patient",
            field="patient",
            found=patient,
            wanted=", ".join(spec["patients"]),
            cure="name a patient of the description",
        )
    out_dir = Path(out_dir)
    this = _Patient(spec, patient)
    folder = out_dir / "planning"
    study = this.study("planning", hour=8)
    written = {
        "planning_mr": this.write_mprage(
            folder, study, key="planning_mr", series="planning_mr", uptake=0.0, number=3
        ),
        "planning_ct": this.write_ct(folder, study, number=2),
    }
    this.write_rois(folder, study, written[this.entry["drawn_on"]])
    sessions = [("pre", 0.0), *((t["name"], t["uptake"]) for t in spec["timepoints"])]
    for n, (session, uptake) in enumerate(sessions):
        study = this.study(session, hour=9 + 2 * n)
        this.write_mprage(out_dir / session, study, key="t1w", series="t1w", uptake=uptake, number=2)
        this.write_mp2rage(out_dir / session, study, uptake=uptake, number=3)
    rows, described = this.truth()
    with (out_dir / "truth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (out_dir / "truth.json").write_text(json.dumps(described, indent=1) + "\n")


def _rigid_within(
    rng: np.random.Generator, most_mm: float, most_deg: float, centre_mm: np.ndarray
) -> np.ndarray:
    """Draw a rigid transform whose shift at the centre and whose angle are within the limits."""
    axis, shift = rng.normal(size=(2, 3))
    axis /= np.linalg.norm(axis)
    shift *= rng.uniform(0.3, 1.0) * most_mm / np.linalg.norm(shift)
    angle = np.deg2rad(rng.uniform(0.3, 1.0) * most_deg)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return geometry.rigid(turn, shift, centre_mm=centre_mm)


def _mprage(t1_s: np.ndarray, b1: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Return the inversion recovery signal of a magnetisation-prepared readout with a small flip angle."""
    efficiency = 0.96
    recovered = 1 + efficiency * np.exp(-settings["tr_s"] / t1_s)
    mz = 1 - (1 + efficiency) * np.exp(-settings["ti_s"] / t1_s) / recovered
    return np.sin(np.deg2rad(settings["flip_deg"]) * b1) * mz


def _ds(value: float) -> str:
    """Return a number as a DICOM decimal string."""
    return f"{value:.6g}"


def _described(tumour: Tumour) -> dict[str, Any]:
    return {
        "name": tumour.name,
        "centre_head_mm": tumour.centre_mm.tolist(),
        "semi_axes_mm": tumour.semi_axes_mm.tolist(),
        "rotation": tumour.axes.tolist(),
        "pattern": tumour.pattern,
        "mean_mg_ml": tumour.mean_mg_ml,
        "t1_pre_s": tumour.t1_s,
    }
