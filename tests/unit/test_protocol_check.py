"""The MP2RAGE protocol read back from pairs of UNI and the scanner's T1 at 12 bits and 1 ms."""

from dataclasses import replace

import numpy as np
import pytest

from nanouptake import protocol_check
from nanouptake.errors import DataError
from nanouptake.images import Volume
from nanouptake.ingest import check_protocol
from nanouptake.mp2rage import Lookup, Protocol, to_dn

CONFIGURED = Protocol(
    tr_s=5.0, ti1_s=0.7, ti2_s=2.5, flip1_deg=4.0, flip2_deg=5.0,
    echo_spacing_s=0.00718, shots_before=44, shots_after=88, inversion_efficiency=0.96,
)  # fmt: skip


def scan(true):
    """UNI and the scanner's T1 in ms of a head's T1, as whole numbers, made with a protocol."""
    t1 = np.random.default_rng(5).uniform(0.15, 4.0, (60, 60, 40))
    uni = to_dn(true.uni(t1))
    return uni, np.round(1000 * np.nan_to_num(Lookup(true).estimate(uni).t1_s)).astype(np.uint16)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"echo_spacing_s": 0.0069},
        {"shots_before": 48, "shots_after": 96},
        {"shots_before": 66, "shots_after": 88, "echo_spacing_s": 0.0071},
        {"shots_before": 80, "shots_after": 80, "echo_spacing_s": 0.0065, "inversion_efficiency": 0.99},
        {"inversion_efficiency": 0.93},
    ],
)
def test_the_protocol_is_recovered(change):
    true = replace(CONFIGURED, **change)
    uni, t1_ms = scan(true)
    found = protocol_check.check(uni, t1_ms / 1000, CONFIGURED)
    best = found.best
    print(f"\n{change}: {found.rms_ms:.2f} ms, {best}, {found.best_rms_ms:.2f} ms")
    assert best.echo_spacing_s == pytest.approx(true.echo_spacing_s, abs=1e-4)
    assert (best.shots_before, best.shots_after) == (true.shots_before, true.shots_after)
    assert best.inversion_efficiency == pytest.approx(true.inversion_efficiency, abs=0.005)
    assert found.best_rms_ms < 0.5


def test_a_wrong_protocol_is_refused_or_recorded():
    uni, t1_ms = scan(replace(CONFIGURED, shots_before=48, shots_after=96))
    volumes = [Volume(a, np.eye(4)) for a in (uni, t1_ms)]
    with pytest.raises(DataError, match="not the one this scan was made with") as error:
        check_protocol(*volumes, CONFIGURED, {})
    assert "shots_before: 48" in error.value.wanted
    figures, flags = check_protocol(*volumes, CONFIGURED, {"refuse": False})
    assert figures["rms_ms"] > 3
    assert "overridden" in flags[0]
    right = scan(CONFIGURED)
    figures, flags = check_protocol(*(Volume(a, np.eye(4)) for a in right), CONFIGURED, {})
    assert figures["rms_ms"] < 0.5
    assert not flags


def test_a_map_of_another_scan_checks_nothing():
    uni, t1_ms = scan(CONFIGURED)
    shuffled = np.random.default_rng(1).permutation(t1_ms.ravel()).reshape(t1_ms.shape)
    figures, flags = check_protocol(*(Volume(a, np.eye(4)) for a in (uni, shuffled)), CONFIGURED, {})
    assert not figures
    assert "not checked" in flags[0]
