"""A simulated cohort with the paper's composition through the cohort's rules, and its page in a browser."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from nanouptake.cohort import AGENT, PLACEBO
from nanouptake.report import patient_html
from unit.cohorts import paper_cohort

ROOT = Path(__file__).parents[2]
OK = json.dumps({"step": "simulated", "ok": True, "flags": [], "reason": "", "details": {}})
RULES = ("collect_cohort", "draw_figures", "write_report")
DUPLICATE, COLUMN_LESS, FAILED = "X1", "X2", "X3"


def section(patient, tumor, mean):
    axis = np.arange(-20.0, 21, 2)
    x, y = (a.ravel() for a in np.meshgrid(axis, axis))
    inside = (np.hypot(x, y) < 8).astype(float)
    keys = {"patient": patient, "timepoint": "post", "tumor": tumor}
    cut = pd.DataFrame(keys | {"x_mm": x, "y_mm": y, "mg_ml": mean * inside, "inside": inside})
    lines = [
        pd.DataFrame(
            keys
            | {
                "line": line,
                "position_mm": axis,
                "mg_ml": mean * (np.abs(axis) < 8),
                "inside": np.abs(axis) < 8,
            }
        )
        for line in ("horizontal", "vertical")
    ]
    return cut, pd.concat(lines)


def write_study(folder, tumors, tables):
    """Write what the earlier rules would have made; tables holds the text of a patient's table."""
    patients = sorted({*tumors["patient"], *tables})
    (folder / "config").mkdir()
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    del config["phantoms"]  # a study without phantoms: r1 is a number
    config["agent"]["r1"] = {"per_mm_per_s": 6.7, "sd_per_mm_per_s": 0.1}
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    rows = ["patient\ttimepoint\tpath\tinfusion_to_scan_min"]
    rows += [
        f"{p}\t{t}\tdata/{p}/{t}\t{'92' if t == 'post' else ''}"
        for p in patients
        for t in ("planning", "pre", "post")
    ]
    (folder / "config/scans.tsv").write_text("\n".join(rows) + "\n")
    for patient in patients:
        own = tumors[tumors["patient"] == patient]
        base = folder / f"results/sub-{patient}"
        for timepoint in ("planning", "pre", "post"):
            (base / f"ses-{timepoint}").mkdir(parents=True)
            (base / f"ses-{timepoint}/ingest.json").write_text(OK)
        (base / "uptake").mkdir()
        (base / f"uptake/sub-{patient}_ses-post_space-pre_status.json").write_text(
            OK if patient != FAILED else OK.replace("true", "false").replace('"reason": ""', '"reason": "no"')
        )
        (base / "xfm").mkdir()
        details = {"uni-uni": {"gradient_correlation": 0.8}}
        (base / f"xfm/sub-{patient}_from-post_to-pre.json").write_text(
            json.dumps(json.loads(OK) | {"details": details})
        )
        (base / "tumors_status.json").write_text(OK)
        (base / f"sub-{patient}_report.html").write_text("simulated\n")
        text = tables.get(patient, own.to_csv(index=False))
        (base / f"sub-{patient}_tumors.csv").write_text(text)
        cuts = [section(patient, t, m) for t, m in zip(own["tumor"], own["mean_mg_ml"], strict=True)]
        for place, name in enumerate(("sections", "profiles")):
            text = pd.concat([c[place] for c in cuts]).to_csv(index=False) if cuts else ""
            (base / f"sub-{patient}_{name}.csv").write_text(text)


def run(folder, *, expected=0):
    command = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", "1", "--allowed-rules", *RULES, "--", "results/report.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stderr[-4000:]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    tumors = paper_cohort()
    twice = tumors[tumors["patient"] == "A01"].iloc[[0, 0]].assign(patient=DUPLICATE)
    less = tumors[tumors["patient"] == "A01"].drop(columns="entropy_bits").assign(patient=COLUMN_LESS)
    bad = {DUPLICATE: twice.to_csv(index=False), COLUMN_LESS: less.to_csv(index=False), FAILED: ""}
    write_study(folder, tumors, bad)
    run(folder, expected=3)
    return folder


def table(study, name):
    return pd.read_csv(study / f"results/cohort/{name}.csv")


def test_the_arms_come_apart_and_every_table_is_described(study):
    patients = table(study, "patients")
    assert len(patients) == 23
    arm = patients["patient"].str[0].map({"A": AGENT, "P": PLACEBO})
    assert (patients["kmeans_group"] == arm).all()
    assert (patients["group"] == arm).mean() > 0.9
    assert (patients["infusion_to_scan_min"] == 92).all()
    assert (patients["registration_gradient_correlation"] == 0.8).all()
    assert len(table(study, "tumors")) == 129
    for name in ("tumors", "patients", "scans", "fits", "null_curve"):
        words = json.loads((study / f"results/cohort/{name}.json").read_text())
        assert [w["name"] for w in words] == list(table(study, name).columns)


def test_bad_tables_fail_alone_with_a_reason(study):
    scans = table(study, "scans").set_index(["patient", "timepoint"])
    assert "listed twice" in scans.loc[(DUPLICATE, "post"), "reason"]
    assert "entropy_bits" in scans.loc[(COLUMN_LESS, "post"), "reason"]
    assert scans.loc[(FAILED, "post"), "status"] == "failed"
    assert (scans.loc["A01", "status"] == "ok").all()
    assert "Traceback" not in (study / "results/report.html").read_text()


def words_of(study, figure):
    svg = next((study / "results/cohort/figures").glob(f"{figure}_*.svg")).read_text()
    return [html.unescape(t).replace("−", "-") for t in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]


def test_numbers_on_the_figures_are_those_of_the_tables(study):
    fits = table(study, "fits").set_index(["fit", "parameter"])["value"]
    agent = fits[f"uptake against diameter, {AGENT}"]
    line = f"{agent['slope']:.3g}·d {agent['intercept']:+.3g}, R² {agent['r_squared']:.2f}"
    assert f"{AGENT}: {line}" in words_of(study, "figure6")
    patients = table(study, "patients").sort_values("mean_mg_ml", ascending=False)
    agent = patients.loc[patients["group"] == AGENT, "patient"].tolist()
    shown = [w for w in words_of(study, "figure8") if w in set(patients["patient"])]
    assert shown == agent
    tumors = table(study, "tumors")
    largest = tumors.loc[tumors.groupby("patient")["volume_ml"].idxmax()].set_index("patient").loc[agent]
    shares = [f"{100 * v:.0f}" for v in largest["fraction_le_0.05"] if v >= 0.07]
    numbers = [w for w in words_of(study, "figure8") if re.fullmatch(r"\d+", w)]
    assert not set(shares) - set(numbers)
    assert [w for w in words_of(study, "figure5") if w in set(patients["patient"])][: len(agent)] == agent


def test_the_same_tables_give_the_same_bytes(study, tmp_path):
    copy = tmp_path / "again"
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns(".snakemake", "cohort", "report.html"))
    run(copy, expected=3)
    for path in [*(study / "results/cohort").rglob("*.*"), study / "results/report.html"]:
        assert path.read_bytes() == (copy / path.relative_to(study)).read_bytes(), path.name


@pytest.mark.parametrize("kind", ["nobody", "one", "all placebo", "no means"])
def test_small_cohorts_get_a_page(tmp_path, kind):
    tumors = paper_cohort(agent=kind != "all placebo")
    if kind in ("nobody", "one"):
        tumors = tumors[tumors["patient"] == "A01"]
    if kind == "no means":
        tumors = tumors.assign(mean_mg_ml=np.nan, entropy_bits=np.nan)
    write_study(tmp_path, tumors, {"A01": ""} if kind == "nobody" else {})
    run(tmp_path)
    page = (tmp_path / "results/report.html").read_text()
    assert "not computed" in page or "no evidence of two groups" in page
    assert "Traceback" not in page


PROBE = """<script>addEventListener("load", () => {
  const found = {images: [...document.images].every(i => i.complete && i.naturalWidth > 0)};
  found.n_images = document.images.length;
  const names = performance.getEntriesByType("resource").map(e => e.name);
  found.fetched = names.filter(n => !n.startsWith("data:"));
  const table = document.getElementById("tumors");
  const place = [...table.tHead.rows[0].cells].findIndex(c => c.textContent.startsWith("mean_mg_ml"));
  const read = () => [...table.tBodies[0].rows].map(r => Number(r.cells[place].dataset.value));
  const button = table.tHead.rows[0].cells[place].querySelector("button");
  button.click(); found.up = read(); button.click(); found.down = read();
  const filter = document.querySelector("input[data-for=tumors]");
  if (filter) {
    filter.value = "GTV1 A03"; filter.dispatchEvent(new Event("input"));
    found.left = [...table.tBodies[0].rows].filter(r => !r.hidden).length;
  }
  const blend = document.querySelector(".blend input[type=range]");
  if (blend) {
    blend.value = 1; blend.dispatchEvent(new Event("input"));
    found.opacity = document.querySelector(".top").style.opacity;
  }
  found.wider = document.documentElement.scrollWidth > innerWidth;
  const out = document.createElement("pre");
  out.id = "probe"; out.textContent = JSON.stringify(found); document.body.append(out);
});</script></body>"""


def browse(page, tmp_path, width):
    """Return what the probe saw in a real browser; no console message is tolerated."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("PAGES NOT CHECKED IN A BROWSER: no chromium on PATH; set CHROMIUM")
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", PROBE))
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={tmp_path}/profile", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    return json.loads(html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.S)[1]))


@pytest.mark.parametrize("width", [1300, 500])
def test_the_cohorts_page_in_a_browser(study, tmp_path, width):
    found = browse((study / "results/report.html").read_text(), tmp_path, width)
    means = np.sort(table(study, "tumors")["mean_mg_ml"])
    assert found["up"] == pytest.approx(means)
    assert found["down"] == pytest.approx(means[::-1])
    assert found["left"] == 1
    assert not found["fetched"]
    assert not found["wider"]


def test_a_patients_page_in_a_browser(tmp_path):
    own = paper_cohort().query("patient == 'A01'")
    ends = {"": 1.0, "_low": 0.9, "_high": 1.1}
    intervals = {
        f"{name}_pvc{end}_mg_ml": own[f"{name}_mg_ml"] * factor
        for name in ("mean", "upper_quartile_mean")
        for end, factor in ends.items()
    }
    sources = ("noise", "partial_volume", "registration", "contour", "r1", "protocol", "drift")
    own = own.assign(**intervals, **{f"sd_{s}_mg_ml": 0.001 + 0.002 * (s == "contour") for s in sources})
    cuts = [section("A01", t, m) for t, m in zip(own["tumor"], own["mean_mg_ml"], strict=True)]
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    view = {"name": "Post on pre", "below": "pre", "above": "post", "size": 200, "path": "M0 0L9 9"}
    page = patient_html(
        patient="A01",
        steps=[json.loads(OK)],
        series=pd.DataFrame({"timepoint": ["pre"], "description": ["<script>alert(1)</script>"]}),
        views=[view | {"below_png": pixel, "above_png": pixel}],
        picture=b"",
        tumors=own,
        sections=pd.concat([c[0] for c in cuts]),
        profiles=pd.concat([c[1] for c in cuts]),
    )
    assert "<script>alert" not in page
    assert page.count("mostly from contour") == len(own)
    found = browse(page, tmp_path, 800)
    assert found["images"]
    assert found["n_images"] == 2 + len(own)
    assert found["up"] == sorted(found["up"])
    assert found["opacity"] == "1"
    assert not found["fetched"]


def test_a_failed_patient_gets_a_page_with_the_reason():
    failed = json.loads(OK) | {"ok": False, "reason": "no UNI in the folder"}
    none = pd.DataFrame()
    page = patient_html(
        patient="X3",
        steps=[failed],
        series=none,
        views=[],
        picture=b"",
        tumors=none,
        sections=none,
        profiles=none,
    )
    assert "no UNI in the folder" in page
    assert "No registration can be shown" in page
