"""Account of weights, and rejection by them."""

from __future__ import annotations

import numpy as np
import pytest

from hepgen_ml.errors import ModelError
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.reweighting.account import WeightAccount


def test_accepted_events_follow_the_weights() -> None:
    rng, account = np.random.default_rng(1), WeightAccount()

    def draw(k: int) -> tuple[FloatArray, FloatArray]:
        x = rng.random(k)
        account.count(x)
        return x, x

    parts = [x[taken] for x, taken in account.accepted(
        20_000, draw, 1.0, rng, expected=0.1, remedy="")]  # fmt: skip
    found = np.concatenate(parts)
    assert len(found) >= 20_000
    assert account.n_accepted == len(found)
    assert account.efficiency == pytest.approx(0.5, abs=0.01)
    assert account.effective_fraction == pytest.approx(0.75, abs=0.01)
    assert found.mean() == pytest.approx(2 / 3, abs=4 * np.sqrt(1 / 18 / 20_000))


def test_accounts_add_up() -> None:
    whole, some, others = WeightAccount(), WeightAccount(), WeightAccount()
    weight = np.random.default_rng(2).random(100)
    whole.count(weight)
    some.count(weight[:30])
    others.count(weight[30:])
    some.add(others.counts)
    np.testing.assert_allclose(some.counts, whole.counts)


def test_hopeless_rejection_ends() -> None:
    rng, account = np.random.default_rng(3), WeightAccount()
    parts = account.accepted(
        10, lambda k: (None, np.zeros(k)), 1.0, rng, expected=1.0, remedy="take weighted events"
    )
    with pytest.raises(ModelError, match="accepted only 0 of"):
        list(parts)
