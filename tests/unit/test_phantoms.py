"""Vials found and measured in simulated phantoms, accuracy, relaxivity with its interval, refusals."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nanouptake import phantoms, vials
from nanouptake.errors import DataError
from nanouptake.mp2rage import Lookup, Protocol, combine, to_dn, uni_sd
from nanouptake.reference_phantoms import write_phantom
from nanouptake.t1_models import map_phantom

TABLES = Path(__file__).parents[2] / "resources/phantoms"
TRIAL = yaml.safe_load((TABLES / "reference_trial.yaml").read_text())
PROTOCOL = TRIAL["mp2rage"]["protocol"]
SPEC = yaml.safe_load((TABLES / "reference_phantoms.yaml").read_text())
SPEC["image"] |= {"spacing_mm": [1.25, 1.25, 4.0], "matrix": [152, 152, 12]}


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Both phantoms of the reference trial with coarser voxels: folder, T1 map and layout by name."""
    made = {}
    for name in ("gels", "dilution"):
        folder = tmp_path_factory.mktemp(name)
        write_phantom(SPEC, TRIAL, name, folder, tables=TABLES)
        layout = vials.read_layout(TABLES / f"reference_{name}_layout.tsv")
        made[name] = (folder, map_phantom(folder, method="mp2rage", protocol=PROTOCOL), layout)
    return made


def locate(scan, layout, **settings):
    return vials.locate(layout, scan.t1, scan.magnitude, scan.validity, **settings)


def measured(scan, layout, **settings):
    found = locate(scan, layout, **settings)
    image = vials.labels(found, layout, scan.t1.shape)
    return vials.measure(scan.t1, scan.validity, image, layout, sd_s=scan.sd_s)


@pytest.mark.parametrize("t1_s", [0.2, 0.35, 0.6, 1.0, 1.4, 1.8])
def test_gels_read_true_at_twelve_bits_and_within_the_stated_sd(t1_s):
    protocol = Protocol(**PROTOCOL)
    s1, s2 = (float(s) for s in protocol.signal(t1_s))
    exact = Lookup(protocol).estimate(to_dn([float(combine(s1, s2))])).t1_s[0]
    assert exact == pytest.approx(t1_s, rel=0.01)
    noise = s2 / 60
    rng = np.random.default_rng(7)
    noisy = [s + noise * (rng.standard_normal(20000) + 1j * rng.standard_normal(20000)) for s in (s1, s2)]
    sd = uni_sd(s1, s2, noise_sd=noise)
    read = Lookup(protocol).estimate(combine(*noisy), uni_sd=np.full(20000, sd))
    middle = float(np.nanmedian(read.t1_s))
    assert middle == pytest.approx(t1_s, abs=float(np.nanmedian(read.sd_s)))
    if t1_s > 0.3:  # below, UNI bends within the noise
        assert np.nanstd(read.t1_s) == pytest.approx(float(np.nanmedian(read.sd_s)), rel=0.1)


def test_vials_are_found_where_they_are_and_read_true(scans):
    folder, scan, layout = scans["gels"]
    found = locate(scan, layout)
    truth = pd.read_csv(folder / "truth.csv").set_index("vial")
    # The label image against the true axes, in scanner coordinates.
    image = vials.labels(found, layout, scan.t1.shape)
    entry = SPEC["phantoms"]["gels"]
    assert found.pose.angle_deg == pytest.approx(entry["turn_deg"], abs=0.7)
    for n, vial in enumerate(layout.vials):
        index = np.argwhere(image == n + 1)
        centre = (scan.t1.affine @ [*index.mean(axis=0), 1])[:3]
        # Tilt: x shifts with the height of the core's middle by tan of the tilt about y, y by that about x.
        at = truth.loc[vial, ["x_mm", "y_mm"]].to_numpy(float)
        height = centre[2] - truth.loc[vial, "z_mm"]
        slope = np.tan(np.deg2rad([entry["tilt_deg"][1], -entry["tilt_deg"][0]]))
        assert np.hypot(*(centre[:2] - at - height * slope)) < 0.7
    table = measured(scan, layout)
    read = table.set_index("vial")["t1_s"]
    error = 100 * (read / truth["t1_s"] - 1).dropna()
    print("\n" + error.round(2).to_string())
    assert len(table) == 12
    assert error.abs().max() < 1
    assert (table["t1_sd_s"] / table["model_sd_s"]).between(0.8, 1.25).all()


def test_accuracy_summary_and_flags(scans):
    _, scan, layout = scans["gels"]
    gels = layout.truth[~layout.marker]
    table = measured(scan, layout)
    truth, flags = phantoms.true_t1(gels, temperature_k=294.0, tables=[TABLES], field_t=3.0)
    assert not flags
    _, summary, flags = phantoms.accuracy(table, truth)
    numbers = summary.set_index("parameter")["value"]
    assert not flags
    assert numbers["inside_tolerance"] == 1
    assert numbers["mean_absolute_error"] < 0.01
    # No temperature: a wider band, and said so.
    wide, flags = phantoms.true_t1(gels, temperature_k=None, tables=[TABLES], field_t=3.0)
    assert "wider by 10.8 %" in flags[0]
    assert (wide["high_t1_s"] / wide["true_t1_s"]).to_numpy() == pytest.approx(1.138)
    # Another temperature than the phantom's: all vials read alike.
    hot, _ = phantoms.true_t1(gels, temperature_k=300.0, tables=[TABLES], field_t=3.0)
    _, summary, flags = phantoms.accuracy(table, hot)
    assert "check temperature_k" in flags[0]
    shift = summary.set_index("parameter")["value"]["best_fitting_temperature_shift"]
    assert shift == pytest.approx(-6, abs=0.6)


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        ({"temperature_k": 22.0}, "temperature_k", "kelvin"),
        ({"temperature_k": 310.0}, "temperature_k", "292 to 300"),
        ({"temperature_k": 296.0, "field_t": 1.5}, "field_t", "another field strength"),
    ],
)
def test_wrong_temperatures_and_fields_are_refused(settings, field, message):
    layout = vials.read_layout(TABLES / "reference_gels_layout.tsv")
    with pytest.raises(DataError, match=message) as error:
        phantoms.true_t1(layout.truth[~layout.marker], tables=[TABLES], **({"field_t": 3.0} | settings))
    assert error.value.field == field


def test_published_gel_temperatures():
    """The table's own points, and between them 2.7 %/K within a fifth."""
    gels = pd.DataFrame({"vial": ["a"], "gel": ["eurospin_to5:12"]})
    at = {
        t: phantoms.true_t1(gels, temperature_k=t, tables=[TABLES], field_t=3.0)[0]["true_t1_s"][0]
        for t in (292.0, 293.0, 296.0)
    }
    assert at[292.0] == pytest.approx(1.448)
    assert at[296.0] == pytest.approx(1.615)
    assert np.log(at[293.0] / at[292.0]) == pytest.approx(0.027, rel=0.2)


@pytest.mark.parametrize("form", ["saline_baseline", "free_intercept"])
def test_relaxivity_is_recovered_from_the_scan(scans, form):
    _, scan, layout = scans["dilution"]
    concentration = phantoms.concentrations(layout)
    table = measured(scan, layout, distinguishing="10", expected=-concentration)
    vial_table, summary, line, flags = phantoms.relaxivity(
        table, concentration, mg_per_ml_per_mm=4 / 3, form=form
    )
    print("\n" + summary.to_string())
    assert line.r1_per_mm_per_s == pytest.approx(6.7, rel=0.01)
    assert line.r_squared > 0.999
    assert (vial_table["used"] == "yes").all()
    assert not flags


@pytest.mark.parametrize("form", ["saline_baseline", "free_intercept"])
@pytest.mark.parametrize("relative_sd", [0.01, 0.04])
def test_the_interval_of_r1_covers_the_truth(form, relative_sd):
    mm = np.array([0, 0.02, 0.05, 0.08, 0.11, 0.15, 0.25, 0.35, 0.5, 0.7]) * 0.75
    rate = 1 / 2.6 + 6.7 * mm
    rng = np.random.default_rng(3)
    lines = [
        phantoms.relaxivity_line(
            mm, rate * (1 + relative_sd * rng.standard_normal(mm.size)), 0.01 * rate, form=form
        )
        for _ in range(2000)
    ]
    covered = np.mean([line.low_per_mm_per_s < 6.7 < line.high_per_mm_per_s for line in lines])
    rejected = np.mean([line.intercept_p < 0.05 for line in lines])
    print(
        f"\n{form}, vials {100 * relative_sd:g} %: covered {covered:.3f}, intercept rejected {rejected:.3f}"
    )
    assert 0.93 <= covered <= 0.97
    assert 0.03 <= rejected <= 0.07


def test_vials_beyond_the_range_are_left_out_and_listed():
    mm = np.array([0, 0.1, 0.2, 0.3, 0.4, 3.0])
    rate = 0.4 + 6.7 * mm
    table = pd.DataFrame(
        {"vial": list("abcdef"), "t1_s": 1 / rate, "t1_se_s": 0.001, "known": [1, 1, 1, 1, 0.97, 0.4]}
    )
    found, _, line, flags = phantoms.relaxivity(
        table, mm * 4 / 3, mg_per_ml_per_mm=4 / 3, form="free_intercept"
    )
    assert list(found["used"]) == ["yes"] * 5 + ["no"]
    assert "f" in flags[0]
    assert line.r1_per_mm_per_s == pytest.approx(6.7)


def test_a_symmetric_layout_needs_a_hint(scans):
    _, scan, layout = scans["dilution"]
    assert layout.symmetries_deg == [180.0]
    with pytest.raises(DataError, match="symmetric") as error:
        locate(scan, layout)
    assert "rotation_deg" in error.value.cure
    by_turn = locate(scan, layout, rotation_deg=0.0).pose.angle_deg
    assert (by_turn + 180) % 360 - 180 == pytest.approx(SPEC["phantoms"]["dilution"]["turn_deg"], abs=0.7)
    expected = -phantoms.concentrations(layout)
    by_vial = locate(scan, layout, distinguishing="10", expected=expected).pose.angle_deg
    assert by_vial == pytest.approx(by_turn, abs=0.1)
    with pytest.raises(DataError, match="neither the longest nor the shortest"):
        locate(scan, layout, distinguishing="4", expected=expected)
    with pytest.raises(DataError, match="does not settle"):
        locate(scan, layout, rotation_deg=85.0)


def changed_layout(folder, name, change):
    """Write a layout with a changed table; return it as read."""
    table = pd.read_csv(TABLES / f"reference_{name}_layout.tsv", sep="\t", comment="#", dtype=str).fillna("")
    change(table).to_csv(folder / "changed.tsv", sep="\t", index=False)
    return vials.read_layout(folder / "changed.tsv")


def test_a_missing_vial_is_named_and_shown(scans, tmp_path):
    _, scan, _ = scans["gels"]

    def add(table):
        more = {"vial": "13", "x_mm": "70", "y_mm": "45", "diameter_mm": "20", "gel": "eurospin_to5:3"}
        return pd.concat([table, pd.DataFrame([more])]).fillna("")

    shown = []
    with pytest.raises(DataError, match="vials 13 of the layout were not found") as error:
        locate(scan, changed_layout(tmp_path, "gels", add), show=shown.append, picture="found.png")
    assert len(shown) == 1
    assert "see found.png" in error.value.found


def test_a_vial_too_many_is_refused(scans, tmp_path):
    _, scan, _ = scans["dilution"]
    layout = changed_layout(tmp_path, "dilution", lambda t: t[t["vial"] != "7"])
    with pytest.raises(DataError, match="more vials than the layout"):
        locate(scan, layout, rotation_deg=0.0)


def test_a_mirrored_layout_is_recognised(scans, tmp_path):
    """Where the layout tells left from right the message says so; elsewhere vials are swapped."""
    _, scan, layout = scans["gels"]
    mirrored = replace(layout, points_mm=layout.points_mm * [-1, 1])
    truth, _ = phantoms.true_t1(
        layout.truth[~layout.marker], temperature_k=294.0, tables=[TABLES], field_t=3.0
    )
    table = measured(scan, mirrored)
    with pytest.raises(DataError, match="swapped"):
        phantoms.accuracy(table, truth)
    for file in TABLES.glob("*.tsv"):
        shutil.copy(file, tmp_path)
    uneven = changed_layout(
        tmp_path, "gels", lambda t: t.assign(x_mm=t["x_mm"].where(t["vial"] != "M", "36"))
    )
    shutil.copy(tmp_path / "changed.tsv", tmp_path / "reference_gels_layout.tsv")
    write_phantom(SPEC, TRIAL, "gels", tmp_path / "scan", tables=tmp_path)
    again = map_phantom(tmp_path / "scan", method="mp2rage", protocol=PROTOCOL)
    assert locate(again, uneven).score.min() >= vials.PRESENT
    with pytest.raises(DataError, match="mirrored layout fits"):
        locate(again, replace(uneven, points_mm=uneven.points_mm * [-1, 1]))


@pytest.mark.parametrize(("name", "pair"), [("gels", ("1", "5")), ("dilution", ("3", "8"))])
def test_swapped_vials_are_named(scans, tmp_path, name, pair):
    _, scan, _ = scans[name]

    def swap(table):
        value = "gel" if name == "gels" else "concentration_mg_ml"
        rows = [table.index[table["vial"] == v][0] for v in pair]
        table.loc[rows, value] = table.loc[rows[::-1], value].to_numpy()
        return table

    layout = changed_layout(tmp_path, name, swap)
    table = measured(scan, layout, rotation_deg=None if name == "gels" else 0.0)
    message = f"vials {pair[0]} and {pair[1]} are swapped"
    if name == "gels":
        gels = layout.truth[~layout.marker]
        truth, _ = phantoms.true_t1(gels, temperature_k=294.0, tables=[TABLES], field_t=3.0)
        with pytest.raises(DataError, match=message) as error:
            phantoms.accuracy(table, truth)
    else:
        concentration = phantoms.concentrations(layout)
        with pytest.raises(DataError, match=message) as error:
            phantoms.relaxivity(table, concentration, mg_per_ml_per_mm=4 / 3, form="free_intercept")
    assert "exchange" in error.value.cure


def test_a_label_image_may_be_given(scans):
    _, scan, layout = scans["gels"]
    image = vials.labels(locate(scan, layout), layout, scan.t1.shape)
    given = vials.given_labels(scan.t1.like(image.astype(np.int16)), scan.t1, layout)
    assert np.array_equal(given, image)
    image[image == 4] = 0
    with pytest.raises(DataError, match="differ in their vials"):
        vials.given_labels(scan.t1.like(image), scan.t1, layout)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="x_mm"), "lacks columns"),
        (lambda t: t.assign(x_mm="wide"), "row of the layout"),
        (lambda t: t.assign(x_mm="0"), "overlap"),
        (lambda t: t.assign(vial="1"), "row of the layout"),
        (lambda t: t.assign(concentration_mg_ml="-1"), "row of the layout"),
        (lambda t: t.head(2), "too few"),
    ],
)
def test_bad_layouts_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        changed_layout(tmp_path, "dilution", change)


def test_an_empty_folder_and_a_truncated_file_are_named(scans, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    for method, wanted in (("mp2rage", "UNIT1"), ("inversion_recovery", "InversionTime")):
        with pytest.raises(DataError, match=wanted) as error:
            map_phantom(empty, method=method, protocol=PROTOCOL)
        assert error.value.cure
    with pytest.raises(DataError, match="method is not known"):
        map_phantom(empty, method="look_locker", protocol=PROTOCOL)
    broken = tmp_path / "broken"
    shutil.copytree(scans["dilution"][0], broken)
    file = sorted(p for p in broken.rglob("*") if p.is_file() and "truth" not in p.name)[5]
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(DataError, match="truncated"):
        map_phantom(broken, method="mp2rage", protocol=PROTOCOL)


def test_a_protocol_with_negative_ta_is_refused(scans):
    with pytest.raises(DataError, match="TA is negative"):
        map_phantom(scans["gels"][0], method="mp2rage", protocol=PROTOCOL | {"shots_before": 120})
