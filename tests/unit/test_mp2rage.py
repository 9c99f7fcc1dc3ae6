"""The closed form against a recursion that shares no code with it; the inverse against the model."""

import math

import numpy as np
import pytest

from nanouptake.errors import DataError
from nanouptake.mp2rage import Lookup, Protocol, from_dn, to_dn
from nanouptake.validity import Validity

TIMING = {
    "tr_s": 5.0,
    "ti1_s": 0.7,
    "ti2_s": 2.5,
    "flip1_deg": 4.0,
    "flip2_deg": 5.0,
    "echo_spacing_s": 0.00718,
    "shots_before": 48,
    "shots_after": 96,
}
PROTOCOL = Protocol(**TIMING)


def recursion(timing: dict, t1: float, b1: float, efficiency: float) -> tuple[float, float]:
    """Play the sequence pulse by pulse until the magnetisation repeats, and read S1 and S2."""

    def relax(m: float, t: float) -> float:
        return 1 + (m - 1) * math.exp(-t / t1)

    es, nb, na = timing["echo_spacing_s"], timing["shots_before"], timing["shots_after"]
    m, signals = 1.0, (0.0, 0.0)
    for _ in range(2000):
        before, read = m, []
        m, clock = -efficiency * m, 0.0
        for ti, flip in ((timing["ti1_s"], timing["flip1_deg"]), (timing["ti2_s"], timing["flip2_deg"])):
            alpha = math.radians(flip) * b1
            m = relax(m, ti - nb * es - clock)
            for pulse in range(nb + na):
                if pulse == nb:
                    read.append(m * math.sin(alpha))
                m = relax(m * math.cos(alpha), es)
            clock = ti + na * es
        m = relax(m, timing["tr_s"] - clock)
        signals = (read[0], read[1])
        if abs(m - before) < 1e-15:
            break
    return signals


@pytest.mark.parametrize("shots", [(48, 96), (72, 72), (88, 88)])
@pytest.mark.parametrize("b1", [0.5, 1.0, 1.5])
def test_closed_form_is_the_recursion(shots, b1):
    timing = TIMING | {"shots_before": shots[0], "shots_after": shots[1]}
    for t1 in (0.05, 0.1, 0.3, 0.9, 1.35, 2.5, 5.0):
        brute = recursion(timing, t1, b1, 0.96)
        assert np.allclose(Protocol(**timing).signal(t1, b1), brute, rtol=0, atol=1e-9)


def test_published_range_of_the_usual_protocol():
    """An independent simulation gave 0.106 to 4.47 s, and UNI 0.4848 at 0.2 s and 0.4895 at 0.1 s."""
    assert Lookup(PROTOCOL).t1_range_s == pytest.approx((0.106, 4.47), abs=1e-3)
    assert PROTOCOL.uni([0.2, 0.1]) == pytest.approx([0.4848, 0.4895], abs=5e-5)


@pytest.mark.parametrize("b1", [None, 1.0, 1.2, 1.396, 0.955])
def test_inverse_is_within_a_tenth_of_a_millisecond(b1):
    lookup = Lookup(PROTOCOL)
    t1 = np.linspace(0.15, 4.2, 5001)
    field = None if b1 is None else np.full_like(t1, b1)
    found = lookup.estimate(PROTOCOL.uni(t1, 1.0 if b1 is None else b1), b1=field)
    assert (found.validity == Validity.OK).all()
    assert np.abs(found.t1_s - t1).max() < 1e-4


@pytest.mark.parametrize("b1", [0.5, 0.7, 0.803])
def test_inverse_with_low_b1_up_to_its_own_turning_point(b1):
    lookup = Lookup(PROTOCOL)
    longest = lookup._monotonic(b1)[0][-1]
    t1 = np.linspace(0.15, 0.99 * longest, 5001)
    found = lookup.estimate(PROTOCOL.uni(t1, b1), b1=np.full_like(t1, b1))
    assert np.abs(found.t1_s - t1).max() < 1e-4


def test_scanner_numbers_and_codes():
    lookup = Lookup(PROTOCOL)
    dn = to_dn(PROTOCOL.uni([0.9, 1.35]))
    found = lookup.estimate(np.append(dn, [4095, 0]).astype(np.uint16))
    assert found.t1_s[:2] == pytest.approx([0.9, 1.35], abs=0.002)
    assert found.validity.tolist()[2:] == [Validity.T1_BELOW_RANGE, Validity.T1_ABOVE_RANGE]
    assert np.isnan(found.t1_s[2:]).all()
    assert from_dn(to_dn(0.123)) == pytest.approx(0.123, abs=0.5 / 4095)
    outside = lookup.estimate(np.array([-3, 2000, 5000], np.int16))
    assert outside.validity.tolist() == [Validity.NOT_FINITE, Validity.OK, Validity.NOT_FINITE]


def test_noise_in_uni_becomes_the_stated_sd_of_t1():
    rng = np.random.default_rng(1)
    lookup = Lookup(PROTOCOL)
    uni = PROTOCOL.uni(1.35) + rng.normal(0, 0.005, 20000)
    found = lookup.estimate(uni, uni_sd=np.full(uni.shape, 0.005))
    assert found.sd_s is not None
    assert np.median(found.sd_s) == pytest.approx(found.t1_s.std(), rel=0.03)


@pytest.mark.parametrize(
    ("change", "field"),
    [({"shots_before": 98}, "TA"), ({"tr_s": 3.0}, "TC"), ({"ti1_s": 700.0}, "ti1_s")],
)
def test_impossible_protocols_are_refused(change, field):
    with pytest.raises(DataError, match=field):
        Protocol(**(TIMING | change))
