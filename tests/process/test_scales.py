"""Formulas of scales, and the search for means of transverse masses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepgen_ml.phase_space import BalancedChart
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import transverse_momentum
from hepgen_ml.process.scale_rules import learn_scale, means_of
from hepgen_ml.process.scale_search import exchanged_masses, find_mean
from hepgen_ml.process.scales import Mean, formula, formula_names

CHART = BalancedChart(["25", "j1", "j2"], [125.0, 0.33, 0.0], [0.0, 0.0])


def events(n: int = 3000, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Something like Higgs production by vector boson fusion."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 7, dtype=torch.float64, generator=generator)
    x[:, [0, 3]] = 4 + 0.7 * x[:, [0, 3]]
    p, total = CHART.inverse(x)
    return incoming_momenta(total, 0.0, 0.0), p


def test_names_of_means_are_read_back() -> None:
    mean = Mean(0, ((0.5, "mt2", 1, 80.385), (0.25, "s", 0, math.nan), (2.0, "mt2", 0, math.nan)))
    assert str(Mean.parse(str(mean))) == str(mean)
    assert exchanged_masses([str(mean), "ht"]) == [80.385]


@pytest.mark.parametrize(
    "name", ["nonsense", "mean:3:1*s", "mean:0:", "mean:0:1*os", "mean:0", "mean:0:__import__*s"]
)
def test_unknown_names_are_refused(name: str) -> None:
    incoming, p = events(3)
    with pytest.raises(ValueError, match=r"scale|unpack|float"):
        formula(name, incoming, p)


@pytest.mark.parametrize(
    "mean",
    [
        "mean:0:0.5*mt2.1@80.385 0.5*mt2.2@80.385",
        "mean:0:0.333333333333*mt2.0 0.333333333333*mt2.1@91.1876 0.333333333333*mt2.2@91.1876",
        "mean:2:0.25*mt2.0 0.25*mt2.1 0.5*mt2.2",
        "mean:2:1*mt2.1 6400*one",
        "mean:1:0.5*mt2.0 0.5*mt2.2",
        "mean:0:0.25*mt2.0 0.75*s",
    ],
)
def test_means_are_found(mean: str) -> None:
    """Most events follow the mean, some follow nothing."""
    incoming, p = events()
    value = formula(mean, incoming, p).numpy().copy()
    value[::10] *= 1.3
    found = find_mean(p, value, 2e-5)
    assert found is not None
    again = formula(found.name, *events(1000, seed=6)).numpy()
    assert np.allclose(again, formula(mean, *events(1000, seed=6)).numpy(), rtol=2e-5)


def test_masses_of_exchanged_bosons_are_exact() -> None:
    incoming, p = events()
    value = formula("mean:0:0.5*mt2.1@80.385 0.5*mt2.2@80.385", incoming, p).numpy()
    found = find_mean(p, value, 2e-5)
    assert found is not None
    assert exchanged_masses([found.name]) == [80.385]


def test_what_holds_elsewhere_is_tried_first() -> None:
    """Too few events to search with follow the formula of other channels."""
    name = "mean:0:0.5*mt2.1@80.385 0.5*mt2.2@80.385"
    incoming, p = events(30)
    value = formula(name, incoming, p).numpy()
    alone = learn_scale(incoming, p, value)
    assert alone["free"]
    told = learn_scale(incoming, p, value, hints=[name])
    assert told["options"] == [{"kind": "formula", "formula": name, "factor": 1.0}]
    assert not told["free"]
    assert means_of(told) == [name]


def test_no_mean_where_there_is_none() -> None:
    _, p = events()
    assert find_mean(p, np.random.default_rng(0).uniform(50, 100, len(p)), 2e-5) is None


def test_massless_transverse_momentum() -> None:
    """It is that of two particles without masses, and larger with them by energy alone."""
    chart = BalancedChart(["5", "-5"], [0.0, 0.0], [0.0])
    p, total = chart.inverse(torch.randn(50, 4, dtype=torch.float64))
    value = formula("massless_pt", incoming_momenta(total, 0.0, 0.0), p)
    assert torch.allclose(value, transverse_momentum(p[:, 0]))
    heavy = BalancedChart(["5", "-5"], [4.8, 4.8], [0.0])
    p, total = heavy.inverse(torch.randn(50, 4, dtype=torch.float64))
    assert (formula("massless_pt", incoming_momenta(total, 0.0, 0.0), p)
            > transverse_momentum(p[:, 0])).all()  # fmt: skip


def test_every_name_is_a_formula() -> None:
    incoming, p = events(20)
    for name in formula_names(p):
        assert torch.isfinite(formula(name, incoming, p)).all(), name
