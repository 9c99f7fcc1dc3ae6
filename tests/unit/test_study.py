"""The sheet and the config fail at the start, by name; code digests follow imports and ignore comments."""

from pathlib import Path

import pytest
import yaml

from nanouptake.code_digest import code_digest
from nanouptake.errors import DataError
from nanouptake.study import Study

ROOT = Path(__file__).parents[2]
GOOD = "patient\ttimepoint\tpath\n" + "".join(f"A1\t{t}\tdata/A1/{t}\n" for t in ("planning", "pre", "post"))


def load(tmp_path, text=GOOD, **changes):
    sheet = tmp_path / "scans.tsv"
    sheet.write_text(text)
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            config[section][name] = value
        else:
            config[section] = value
    return Study.load(config, sheet=sheet, schemas=ROOT / "workflow/schemas")


def test_a_good_study_loads(tmp_path):
    study = load(tmp_path)
    assert study.patients == ["A1"]
    assert study.posts("A1") == ["post"]
    assert not study.is_reference("A1")


PHANTOMS = """phantom\tkind\tpath\tlayout\tagent_batch
gels\taccuracy\tdata/gels\treference_gels_layout\t
one\trelaxivity\tdata/one\treference_dilution_layout\tA
two\trelaxivity\tdata/two\treference_dilution_layout\tB
"""


def with_phantoms(tmp_path, scans=GOOD, text=PHANTOMS, r1="one"):
    (tmp_path / "phantoms.tsv").write_text(text)
    return load(tmp_path, scans, phantoms={"sheet": str(tmp_path / "phantoms.tsv")}, agent__r1=r1)


def test_the_relaxivity_of_a_scan_is_that_of_its_batch_or_of_the_config(tmp_path):
    sheet = GOOD.replace("path\n", "path\tagent_batch\n")
    sheet = (
        sheet.replace("planning\n", "planning\t\n").replace("pre\n", "pre\t\n").replace("post\n", "post\tB\n")
    )
    study = with_phantoms(tmp_path, sheet)
    assert study.relaxivity_phantom("A1", "post") == "two"
    assert with_phantoms(tmp_path).relaxivity_phantom("A1", "post") == "one"
    number = {"per_mm_per_s": 6.7, "sd_per_mm_per_s": 0.1}
    study = with_phantoms(tmp_path, r1=number)
    assert study.relaxivity_phantom("A1", "post") is None
    assert study.agent("A1", "post")["r1"] == number
    with pytest.raises(DataError, match="no relaxivity phantoms of the agent batch"):
        with_phantoms(tmp_path, sheet.replace("\tB", "\tC"))


@pytest.mark.parametrize(
    ("text", "r1", "message"),
    [
        (PHANTOMS, "gels", "not a relaxivity phantom"),
        (PHANTOMS, "three", "not a relaxivity phantom"),
        (PHANTOMS.replace("two\t", "one\t"), "one", "listed twice"),
        (PHANTOMS.replace("accuracy", "beauty"), "one", "not allowed"),
        (PHANTOMS.replace("layout\t", "plan\t"), "one", "not"),
        ("", "one", "sheet of phantoms is empty"),
    ],
)
def test_bad_phantoms_are_refused(tmp_path, text, r1, message):
    with pytest.raises(DataError, match=message):
        with_phantoms(tmp_path, text=text, r1=r1)


def test_missing_timings_are_listed_with_where_scanners_show_them(tmp_path):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    del config["mp2rage"]["echo_spacing_s"]
    with pytest.raises(DataError, match="lacks a timing") as error:
        load(tmp_path, mp2rage=config["mp2rage"])
    assert error.value.field == "mp2rage.echo_spacing_s"
    assert "protocol printout" in error.value.wanted
    assert "protocol_check" in error.value.cure


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("patient\ttimepoint\tpath\n", "empty"),
        (GOOD + "A1\tpost\tdata/again\n", "listed twice"),
        (GOOD.replace("A1\tpre", "../x\tpre"), "not allowed"),
        (GOOD.replace("\tpre\t", "\tbefore\t"), "not allowed"),
        (GOOD.replace("A1\tpre\tdata/A1/pre\n", ""), "has no pre scan"),
        (GOOD.replace("A1\tpost\tdata/A1/post\n", ""), "has no post scan"),
        (GOOD + "a1" + GOOD.split("\n", 1)[1].replace("A1\t", "a1\t")[2:], "case only"),
        (GOOD.replace("path", "folder"), "not"),
        (GOOD + "A2\tpre\n", "cells"),
    ],
)
def test_bad_sheets_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_sheet_that_is_no_utf8_is_refused(tmp_path, encoding):
    (tmp_path / "scans.tsv").write_bytes(GOOD.replace("data/", "däta/").encode(encoding))
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with pytest.raises(DataError, match="tab-separated text in UTF-8"):
        Study.load(config, sheet=tmp_path / "scans.tsv", schemas=ROOT / "workflow/schemas")


def test_a_sheet_of_a_spreadsheet_is_read(tmp_path):
    assert load(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n")).patients == ["A1"]


def test_links_to_nothing_and_in_circles_hide_no_change(tmp_path):
    scan = tmp_path / "data"
    scan.mkdir()
    (scan / "a").symlink_to(scan / "gone")
    (scan / "b").symlink_to(scan)
    (scan / "c").symlink_to(scan)
    (scan / "z").write_text("1")
    text = GOOD.replace("data/A1", str(scan)).replace("/pre\n", "\n").replace("/post\n", "\n")
    before = load(tmp_path, text).listing("A1", "pre")
    from nanouptake import study

    study._listing.cache_clear()
    (scan / "z").write_text("22")
    assert load(tmp_path, text).listing("A1", "pre") != before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"mp2rage__ti1_s": 700}, "mp2rage.ti1_s"),
        ({"mp2rage__ti_s": 1}, "mp2rage.ti_s"),
        ({"agents": {}}, "agents"),
        ({"agent__r1": {"per_mm_per_s": -1, "sd_per_mm_per_s": 0}}, "agent.r1"),
    ],
)
def test_bad_configs_are_refused_by_field(tmp_path, change, field):
    with pytest.raises(DataError) as caught:
        load(tmp_path, **change)
    assert caught.value.field == field


def test_a_changed_file_changes_the_listing(tmp_path):
    scan = tmp_path / "data"
    scan.mkdir()
    (scan / "a").write_text("1")
    text = GOOD.replace("data/A1", str(scan)).replace("/pre\n", "\n").replace("/post\n", "\n")
    before = load(tmp_path, text).listing("A1", "pre")
    from nanouptake import study

    study._listing.cache_clear()
    (scan / "deeper").mkdir()
    (scan / "deeper" / "b").write_text("2")
    assert load(tmp_path, text).listing("A1", "pre") != before


def test_code_digest_follows_imports_and_ignores_comments(tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("from . import b\n")
    (package / "b.py").write_text("X = 1\n")
    (package / "c.py").write_text("Y = 1\n")
    (tmp_path / "s.py").write_text("from pkg.a import b\n")

    def digest():
        from nanouptake import code_digest as module

        module._parsed.cache_clear()
        return code_digest(tmp_path / "s.py", package=package)

    first = digest()
    (package / "b.py").write_text("X = 1  # why\n")
    (package / "c.py").write_text("Y = 2\n")
    assert digest() == first
    (package / "b.py").write_text("X = 2\n")
    assert digest() != first
