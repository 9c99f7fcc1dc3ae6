"""Simulated cohorts at table level."""

import numpy as np
import pandas as pd
from scipy import stats

COUNTS_AGENT = (3, 8, 4, 10, 5, 6, 7, 2, 9, 4, 6, 5, 8, 3)
COUNTS_PLACEBO = (4, 6, 8, 3, 7, 5, 9, 2, 5)


def paper_cohort(seed=1, *, agent=True, placebo=True, drawn=False):
    """Return tumours of 14 agent and 9 placebo patients, 129 in all, with the paper's means and SDs.

    Agent: mean 0.055 mg/ml over patients, tumours 0.012 to 0.17, SD within tumours 0.0053 to 0.11;
    placebo patients -0.0047 to 0.0097. Patients A01-A14 and P01-P09. Levels of agent patients are normal
    quantiles with SD 0.012; drawn: random with SD 0.016, so that some come close to placebo.
    """
    rng = np.random.default_rng(seed)
    names = ("homogeneous", "heterogeneous", "central minimum", "central maximum")
    rows = []
    for arm, counts in (("A", COUNTS_AGENT), ("P", COUNTS_PLACEBO)):
        if not {"A": agent, "P": placebo}[arm]:
            continue
        n = len(counts)
        level = (
            rng.permutation(stats.norm.ppf((np.arange(n) + 0.5) / n)) * 0.012
            if arm == "A"
            else np.linspace(-0.0047, 0.0097, n)
        )
        if drawn and arm == "A":
            level = rng.normal(0, 0.016, n)
        level = level - level.mean() + (0.055 if arm == "A" else 0.0025)
        for k, count in enumerate(counts):
            kind = names[k % 4]
            for t in range(count):
                diameter = rng.lognormal(np.log(11), 0.45)
                spread = 0.012 if arm == "A" else 0.004
                mean = level[k] + rng.normal(0, spread) + (0.0025 * (diameter - 11) if arm == "A" else 0)
                mean = float(np.clip(mean, 0.012, 0.17)) if arm == "A" else mean
                sd = float(np.clip(0.84 * mean, 0.0053, 0.11)) if arm == "A" else rng.normal(0.012, 0.002)
                volume = np.pi / 6000 * diameter**3
                width = 0.005
                low, high = stats.norm.cdf([0.05, 0.1], mean, sd)
                rows.append(
                    {
                        "patient": f"{arm}{k + 1:02d}",
                        "timepoint": "post",
                        "tumor": f"GTV{t + 1}",
                        "n_voxels": int(volume * 1000),
                        "volume_ml": volume,
                        "diameter_mm": diameter,
                        "mean_mg_ml": mean,
                        "sd_mg_ml": sd,
                        "upper_quartile_mean_mg_ml": mean + 1.27 * sd,
                        "entropy_bits": np.log2(sd * np.sqrt(2 * np.pi * np.e) / width) + rng.normal(0, 0.1),
                        "fraction_le_0.05": low,
                        "fraction_0.05_to_0.1": high - low,
                        "fraction_gt_0.1": 1 - high,
                        "baseline_mg_ml": rng.normal(0, 0.001),
                        "noise_mg_ml": 0.006,
                        "pattern": kind if rng.random() < 0.7 else names[rng.integers(4)],
                        "flags": "",
                    }
                )
    return pd.DataFrame(rows)
