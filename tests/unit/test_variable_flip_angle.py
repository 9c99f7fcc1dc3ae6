"""Variable flip angle recovers T1 from a spoiled steady state reached pulse by pulse."""

import numpy as np
import pytest

from nanouptake.errors import DataError
from nanouptake.validity import Validity
from nanouptake.variable_flip_angle import Protocol

FLIPS, TR = (2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0), 0.0073


def steady_state(t1, b1=1.0, pulses=6000):
    """Return the signal after many pulses with perfect spoiling, by recursion of Mz alone."""
    angle = np.deg2rad(np.array(FLIPS)) * b1
    mz = np.ones(len(FLIPS))
    for _ in range(pulses):
        mz = 1 + (mz * np.cos(angle) - 1) * np.exp(-TR / t1)
    return mz * np.sin(angle)


@pytest.mark.parametrize("t1", [0.05, 0.3, 1.2, 3.0])
@pytest.mark.parametrize("b1", [0.8, 1.0, 1.2])
def test_exact_without_noise(t1, b1):
    protocol = Protocol(tr_s=TR, flip_deg=FLIPS)
    signal = 800 * steady_state(t1, b1)
    assert protocol.signal(t1, b1, m0=800) == pytest.approx(signal, rel=1e-7)
    found = protocol.estimate(signal[None], b1=np.array([b1]))
    assert found.t1_s[0] == pytest.approx(t1, rel=2e-4)
    if b1 != 1:
        # Without the map T1 is off by about the square of B1.
        assert protocol.estimate(signal[None]).t1_s[0] == pytest.approx(t1 * b1**2, rel=0.06)


def test_the_stated_sd_is_that_of_repeated_scans():
    rng = np.random.default_rng(2)
    protocol = Protocol(tr_s=TR, flip_deg=FLIPS)
    for t1 in (0.3, 1.2):
        clean = 10_000 * steady_state(t1)
        found = protocol.estimate(clean + 5 * rng.standard_normal((5000, len(FLIPS))))
        spread = found.t1_s.std()
        assert found.t1_s.mean() == pytest.approx(t1, rel=0.005)
        assert np.sqrt((found.sd_s**2).mean()) == pytest.approx(spread, rel=0.06)


def test_what_cannot_be_known_has_a_code():
    rows = np.array([[0] * 7, [np.nan] * 7, steady_state(1.0)])
    found = Protocol(tr_s=TR, flip_deg=FLIPS).estimate(rows, b1=np.array([1, 1, np.nan]))
    assert found.validity.tolist() == [Validity.NO_SIGNAL, Validity.NOT_FINITE, Validity.B1_OUT_OF_RANGE]
    assert np.isnan(found.t1_s).all()


def test_milliseconds_are_refused():
    with pytest.raises(DataError, match="divide by 1000"):
        Protocol(tr_s=7.3, flip_deg=FLIPS)
