"""Why a voxel has a value or none: one code list for every map."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np


class Validity(IntEnum):
    """Code of a voxel. Maps hold NaN wherever the code is not OK."""

    OK = 0
    NO_SIGNAL = 1
    T1_BELOW_RANGE = 2
    T1_ABOVE_RANGE = 3
    B1_OUT_OF_RANGE = 4
    NOT_FINITE = 5
    OUTSIDE_FIELD_OF_VIEW = 6
    FIT_FAILED = 7


MEANING = {
    Validity.OK: "the value can be used",
    Validity.NO_SIGNAL: "signal below the noise threshold (air, bone, outside the head)",
    Validity.T1_BELOW_RANGE: "T1 shorter than the sequence can tell: above the upper limit of quantification",
    Validity.T1_ABOVE_RANGE: "T1 longer than the sequence can tell",
    Validity.B1_OUT_OF_RANGE: "B1 missing or outside the range the model is inverted for",
    Validity.NOT_FINITE: "the input was not a finite number",
    Validity.OUTSIDE_FIELD_OF_VIEW: "the voxel lies outside the field of view of the other scan",
    Validity.FIT_FAILED: "the fit did not converge or its result contradicts the data",
}


class T1Estimate(NamedTuple):
    """What every T1 model returns: T1 and its SD in seconds (NaN where unknown) and a code per voxel."""

    t1_s: np.ndarray
    sd_s: np.ndarray | None
    validity: np.ndarray
