"""Patterns of colours and helicities are counted alike, however many events there are."""

from __future__ import annotations

import numpy as np

from hepgen_ml.process.patterns import sums_of_patterns


def test_weights_of_patterns_add_up_in_one_order() -> None:
    """However many events there are of a subprocess, with negative codes and weights, too."""
    rng = np.random.default_rng(3)
    rows = rng.integers(-2, 2, (300, 3), dtype=np.int32)
    weight = rng.normal(size=300)
    few = [sums_of_patterns(rows[i : i + 20], weight[i : i + 20]) for i in range(0, 300, 20)]
    for sums in (sums_of_patterns(rows, weight), *few):
        found = [np.frombuffer(key, dtype=np.int32).tolist() for key in sums]
        assert found == sorted(found)
        assert len(found) > 1
    total = sums_of_patterns(rows, weight)
    for key, value in total.items():
        own = (rows == np.frombuffer(key, dtype=np.int32)).all(1)
        np.testing.assert_allclose(value, weight[own].sum(), rtol=1e-12)
        np.testing.assert_allclose(value, sum(s.get(key, 0.0) for s in few), rtol=1e-9)
