"""Named weights in the comparison with truth."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.events.sample import EventSample
from hepgen_ml.validation.comparison import compare
from hepgen_ml.validation.report_sections import CONTENTS
from hepgen_ml.validation.variations import compare_variations
from tests.samples import toy_top_pairs


def _sample(seed: int, slope: float) -> EventSample:
    sample = toy_top_pairs(3000, seed, jets=False)
    rows = sample.offsets[:-1] + 2
    pt = np.hypot(sample.px[rows], sample.py[rows])
    sample.weights = {
        "same": sample.weight * (1 + pt / 400),
        "other <1>": sample.weight * (1 + slope * pt / 400),
        "interference": sample.weight * np.where(np.arange(3000) % 2, 1.0, -1.0),
        "posterior_1": sample.weight * 2,
    }
    return sample


def test_a_wrong_variation_is_seen() -> None:
    truth, made = _sample(0, 1.0), _sample(1, 12.0)
    rows = compare_variations(truth, made, compare(truth, made, n_classifier=1500))
    found = {row["name"]: row for row in rows}
    assert list(found) == ["same", "other <1>", "interference"]
    assert abs(found["same"]["pull"]) < 4
    assert found["same"]["chi2_per_ndf"] < 2
    assert found["other <1>"]["pull"] > 10
    assert found["other <1>"]["chi2_per_ndf"] > 2
    assert found["other <1>"]["chi2_per_ndf_nominal"] < 2
    assert found["interference"]["truth"] == pytest.approx(0, abs=1e-12)
    assert found["interference"]["chi2_per_ndf"] is None
    page = CONTENTS["weights"]({"weight_variations": rows})
    assert "other &lt;1&gt;" in page
    assert CONTENTS["weights"]({}) == ""
