"""Inversion recovery recovers what its forward model, written again here, was given."""

import numpy as np
import pytest

from nanouptake.errors import DataError
from nanouptake.inversion_recovery import Protocol
from nanouptake.validity import Validity

TI = (0.035, 0.075, 0.1, 0.125, 0.15, 0.25, 1.0, 1.5, 2.0, 3.0)


@pytest.mark.parametrize("inversion", [1.7, 1.9, 2.0])
def test_exact_without_noise(inversion):
    t1 = np.linspace(0.12, 2.5, 60)
    signal = np.abs(900 * (1 - inversion * np.exp(-np.array(TI) / t1[:, None])))
    found = Protocol(ti_s=TI).estimate(signal)
    assert (found.validity == Validity.OK).all()
    assert found.t1_s == pytest.approx(t1, rel=1e-4)


def test_the_stated_sd_is_that_of_repeated_scans():
    rng = np.random.default_rng(1)
    protocol = Protocol(ti_s=TI)
    for t1 in (0.25, 0.8, 1.6):
        signal = np.abs(1000 * (1 - 1.95 * np.exp(-np.array(TI) / t1)) + 8 * rng.standard_normal((4000, 10)))
        found = protocol.estimate(signal)
        spread = found.t1_s.std()
        assert found.t1_s.mean() == pytest.approx(t1, abs=4 * spread / np.sqrt(4000) + 1e-3 * t1)
        assert np.sqrt((found.sd_s**2).mean()) == pytest.approx(spread, rel=0.06)


def test_what_cannot_be_known_has_a_code():
    data = np.array(
        [np.abs(1 - 2 * np.exp(-np.array(TI) / t1)) for t1 in (0.02, 8.0)] + [[0] * 10, [np.nan] * 10]
    )
    found = Protocol(ti_s=TI).estimate(data)
    expected = [Validity.T1_BELOW_RANGE, Validity.T1_ABOVE_RANGE, Validity.NO_SIGNAL, Validity.NOT_FINITE]
    assert found.validity.tolist() == expected
    assert np.isnan(found.t1_s).all()


def test_milliseconds_are_refused():
    with pytest.raises(DataError, match="different times in seconds"):
        Protocol(ti_s=(35, 75, 100, 3000))
