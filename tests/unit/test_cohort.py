"""Cohort statistics against oracles, other programs and simulated cohorts whose answer is known."""

import warnings

import numpy as np
import pandas as pd
import pytest

from nanouptake import cohort
from nanouptake.errors import DataError
from nanouptake.tumors import patient_table
from unit.cohorts import paper_cohort


def test_lar_oracle_and_quantreg():
    import statsmodels.api as sm

    x, y = np.arange(1.0, 6), np.array([1.0, 12, 20, 8, 46])
    assert cohort.lar(x, y, degree=2) == pytest.approx([0.875, 6, -5.875])
    rng = np.random.default_rng(2)
    x = rng.uniform(4, 30, 90)
    y = 0.01 + 0.002 * x + rng.standard_t(2, 90) * 0.01
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = sm.QuantReg(y, sm.add_constant(x)).fit(q=0.5, max_iter=5000, p_tol=1e-10).params
    ours = cohort.lar(x, y)
    loss = [np.abs(y - np.polyval(line, x)).sum() for line in (ours, other[::-1])]
    assert loss[0] <= loss[1] + 1e-9
    assert ours == pytest.approx(other[::-1], rel=0.02)


def test_kmeans_is_the_optimum_of_scikit_learn():
    from sklearn.cluster import KMeans

    values = np.random.default_rng(4).gamma(2, size=(20, 23))
    upper = cohort.kmeans2(values)
    for row, ours in zip(values, upper, strict=True):
        inertia = sum(((row[m] - row[m].mean()) ** 2).sum() for m in (ours, ~ours))
        assert inertia <= KMeans(2, n_init=10, random_state=0).fit(row[:, None]).inertia_ + 1e-9


@pytest.mark.parametrize("n", [12, 23])
def test_one_group_is_not_split(n):
    values = np.random.default_rng(5).normal(4.2, 0.4, (500, n))
    p = cohort.p_one_group(cohort.fit_mixture(values).ratio, n)
    assert (p >= cohort.SIGNIFICANCE).mean() >= 0.95


def test_the_papers_effect_is_found():
    cohorts = [
        paper_cohort(seed, drawn=True).groupby("patient")["entropy_bits"].mean() for seed in range(100, 600)
    ]
    values = np.array([c.to_numpy() for c in cohorts])  # 14 agent first, 9 placebo
    fit = cohort.fit_mixture(values)
    p = cohort.p_one_group(fit.ratio, values.shape[1])
    groups = cohort.groups_of(cohort.posterior_upper(values, fit), p)
    truth = np.array([cohort.AGENT] * 14 + [cohort.PLACEBO] * 9)
    decided = np.isin(groups, (cohort.AGENT, cohort.PLACEBO))
    found = (p < cohort.SIGNIFICANCE).mean()
    right = (groups == truth)[decided].mean()
    print(f"two groups in {found:.3f} of cohorts, {decided.mean():.3f} decided, {right:.4f} right")
    assert found >= 0.95
    assert decided.mean() > 0.7
    assert right >= 0.95


def test_the_papers_cohort():
    tumors = paper_cohort()
    assert len(tumors) == 129
    cohort.check_tumors(tumors)
    patients, arms = cohort.patient_groups(patient_table(tumors))
    arm = patients["patient"].str[0].map({"A": cohort.AGENT, "P": cohort.PLACEBO})
    assert (patients["kmeans_group"] == arm).all()
    assert arms.p < cohort.SIGNIFICANCE
    assert (patients.loc[patients["group"] != cohort.INDETERMINATE, "group"] == arm).all()
    assert (patients["loo_stable"] == "yes").mean() > 0.8
    table = cohort.fits(cohort.first_post(tumors), patients, arms, blur_sd_mm=0.8).set_index(
        ["fit", "parameter"]
    )
    slope = table.loc[(f"uptake against diameter, {cohort.AGENT}", "slope")]
    placebo = table.loc[(f"uptake against diameter, {cohort.PLACEBO}", "slope")]
    assert slope["low"] > 0
    assert slope["low"] < 0.0025 < slope["high"]
    assert placebo["low"] < 0 < placebo["high"]


def test_variance_components_are_statsmodels():
    import statsmodels.formula.api as smf

    rng = np.random.default_rng(7)
    patient = np.repeat(np.arange(14), rng.integers(2, 9, 14))
    y = rng.normal(0, 0.02, 14)[patient] + rng.normal(0.055, 0.03, patient.size)
    frame = pd.DataFrame({"y": y * 100, "patient": patient})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = smf.mixedlm("y ~ 1", frame, groups="patient").fit(reml=True)
    between, within = float(other.cov_re.iloc[0, 0]), float(other.scale)
    ours = cohort.variance_components(y, patient)
    assert ours.icc == pytest.approx(between / (between + within), abs=0.002)
    assert ours.within_sd * 100 == pytest.approx(np.sqrt(within), rel=0.005)
    assert ours.mean * 100 == pytest.approx(other.params["Intercept"], rel=0.002)


def test_the_interval_of_the_icc_covers():
    rng = np.random.default_rng(8)
    patient = np.repeat(np.arange(14), 6)
    hits = 0
    for _ in range(200):
        y = rng.normal(0, 1, 14)[patient] + rng.normal(0, 1, patient.size)
        found = cohort.variance_components(y, patient)
        hits += found.icc_low <= 0.5 <= found.icc_high
    assert 0.9 <= hits / 200 <= 0.99


def test_pattern_consistency_is_tested():
    rng = np.random.default_rng(9)
    patient = np.repeat(np.arange(12), 5)
    own = rng.choice(list("abc"), 12)[patient]
    assert cohort.pattern_consistency(own, patient)[2] < 0.01
    ps = [
        cohort.pattern_consistency(rng.choice(list("abc"), 60), patient, permutations=200)[2]
        for _ in range(60)
    ]
    assert np.mean(np.array(ps) < 0.05) < 0.15


def test_partial_volume_is_that_of_a_blurred_sphere():
    from scipy import ndimage

    grid = np.moveaxis(np.indices((81,) * 3), 0, -1) - 40
    distance = np.linalg.norm(grid * 0.25, axis=-1)  # 0.25 mm voxels
    for diameter in (4.0, 8.0):
        ball = distance <= diameter / 2
        blurred = ndimage.gaussian_filter(ball.astype(float), 0.8 / 0.25)
        expected = cohort.partial_volume_recovery(np.array([diameter]), blur_sd_mm=0.8)[0]
        assert blurred[ball].mean() == pytest.approx(expected, abs=0.02)


def test_bad_tables():
    good = paper_cohort()
    with pytest.raises(DataError, match="GTV1"):
        cohort.check_tumors(pd.concat([good, good.iloc[:1]]))
    with pytest.raises(DataError, match="entropy_bits"):
        cohort.check_tumors(good.drop(columns="entropy_bits"))
    with pytest.raises(DataError, match="many"):
        cohort.check_tumors(good.assign(mean_mg_ml="many"))


@pytest.mark.parametrize("kind", ["none", "one", "all placebo", "all NaN", "identical"])
def test_small_cohorts_say_what_could_not_be_computed(kind):
    tumors = paper_cohort(agent=kind != "all placebo")
    if kind in ("none", "one"):
        tumors = tumors[tumors["patient"] == ("A01" if kind == "one" else "")]
    if kind == "all NaN":
        tumors = tumors.assign(mean_mg_ml=np.nan, entropy_bits=np.nan)
    if kind == "identical":
        tumors = tumors.assign(mean_mg_ml=0.05, entropy_bits=4.0, diameter_mm=10.0, pattern="homogeneous")
    cohort.check_tumors(tumors)
    patients, arms = cohort.patient_groups(patient_table(tumors))
    assert not (patients["group"] == cohort.AGENT).any()
    table = cohort.fits(cohort.first_post(tumors), patients, arms, blur_sd_mm=0.8)
    words = " ".join(table["meaning"])
    assert ("not computed" in words) or (cohort.ONE_GROUP in words)
    cohort.null_curve(cohort.first_post(tumors), blur_sd_mm=0.8)
