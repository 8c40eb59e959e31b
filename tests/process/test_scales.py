"""Formulas of scales, and the search for means of transverse masses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepgen_ml.phase_space import BalancedChart
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import transverse_momentum
from hepgen_ml.process.auxiliary import Auxiliaries, value_of
from hepgen_ml.process.coupling_tables import coupling_table
from hepgen_ml.process.exceptions import is_exception
from hepgen_ml.process.scale_rules import learn_coupling, learn_scale, means_of
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


def test_few_events_with_a_scale_of_their_own_are_kept() -> None:
    """Three of 4,000 events have another scale, and a coupling at it; no event is lost."""
    incoming, p = events(4000)
    value = formula("ht", incoming, p).numpy()
    ratio = np.array([1.5, 0.7, 2.5])
    value[:3] *= ratio
    rule = learn_scale(incoming, p, value)
    assert not rule["free"]
    exceptions = [o for o in rule["options"] if is_exception(o)]
    assert sorted(o["factor"] for o in exceptions) == pytest.approx(sorted(ratio))
    coupling = np.full(4000, 0.0075)
    coupling[7] = 0.0081
    alpha = learn_coupling(incoming, p, value, coupling, [])
    assert [o["value"] for o in alpha["options"]] == [0.0075, 0.0081]
    assert not alpha["free"]
    rules = Auxiliaries({"scale": rule, "alpha_qcd": alpha, "alpha_qed": alpha})
    value[3] *= 1.7  # one that was not seen before
    given = {"scale": value, "alpha_qcd": coupling, "alpha_qed": coupling}
    branch, free = rules.encode(incoming, p, given)
    assert (branch >= 0).all()
    made = rules.decode(incoming, p, branch, free)
    some = np.arange(4000) != 3
    assert made["scale"][some] == pytest.approx(value[some], rel=1e-4)
    assert made["scale"][3] / value[3] == pytest.approx(1.5 / 1.7)
    assert made["alpha_qcd"] == pytest.approx(coupling)


def test_tables_reach_the_few_events_at_their_ends() -> None:
    """One event beyond the threshold of a flavour, and one that does not follow the table."""
    rng = np.random.default_rng(1)
    scale = np.append(rng.normal(80, 3, 4000), [150.0, 250.0, 350.0, 475.0, 9.0, 12.0, 20.0])
    top = 171.0

    def coupling(q: np.ndarray) -> np.ndarray:
        slope = np.where(q < top, 23, 21) / (6 * np.pi)
        return 1 / (8.5 + slope * np.log(q / top))

    value = coupling(scale)
    value[5] *= 1.02
    table = coupling_table(scale, value)
    assert table is not None
    incoming, p = events(len(scale))
    good = np.arange(len(scale)) != 5
    off = np.abs(value_of(table, incoming, p, scale) / value - 1)[good]
    assert off.max() < 2e-3
    beyond = np.full(len(scale), 1500.0)
    assert value_of(table, incoming, p, beyond) == pytest.approx(coupling(beyond), rel=2e-3)
    assert len(table["knots"]) == len(table["inverse"])
    assert (np.diff(table["knots"]) > 0).all()
