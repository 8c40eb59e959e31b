"""Scale and couplings: formulas recognised, the rest learned."""

from __future__ import annotations

import numpy as np
import torch

from hepgen_ml.auxiliary import (
    Auxiliaries,
    coupling_table,
    formula,
    formula_names,
    learn_coupling,
    learn_scale,
)
from hepgen_ml.phase_space import BalancedChart
from hepgen_ml.phase_space.chart import incoming_momenta

CHART = BalancedChart(["j1", "6", "-6"], [0.0, 173.0, 173.0], [20.0, 0.0])


def events(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    x = torch.randn(n, 7, dtype=torch.float64)
    x[:, [0, 3]] = 3 + x[:, [0, 3]]
    p, total = CHART.inverse(x)
    return incoming_momenta(total, 0.0, 0.0), p


def alpha(scale: np.ndarray) -> np.ndarray:
    return 1 / (8.5 + 1.2 * np.log(scale / 91.2) + 0.01 * np.log(scale / 91.2) ** 2)


CONSTANT = learn_coupling(np.ones(10), np.full(10, 0.0075), [])


def test_clustering_choices_are_recognised() -> None:
    """The scale of half of the events is clustered to one beam, a few follow nothing."""
    incoming, p = events()
    n = len(p)
    first = formula("core_mt:", incoming, p).numpy()
    second = formula("core_mt:0", incoming, p).numpy()
    which = np.arange(n) % 20
    rng = np.random.default_rng(0)
    scale = np.where(which < 10, first, np.where(which < 19, second, 200 * rng.random(n) + 50))
    rule = learn_scale(incoming, p, scale)
    assert {o["formula"] for o in rule["options"]} == {"core_mt:", "core_mt:0"}
    assert rule["free"]
    coupling = alpha(scale)
    coupling[::50] *= 1.01
    table = coupling_table(scale, coupling)
    assert table is not None
    rules = Auxiliaries(
        {
            "scale": rule,
            "alpha_qcd": learn_coupling(scale, coupling, [table]),
            "alpha_qed": CONSTANT,
        }
    )
    values = {"scale": scale, "alpha_qcd": coupling, "alpha_qed": np.full(n, 0.0075)}
    branch, free = rules.encode(incoming, p, values)
    assert (branch >= 0).all()
    is_free = rules.is_free(rules.branches)[branch]
    assert np.array_equal(is_free[:, 0], which == 19)
    assert is_free[::50, 1].all()
    assert is_free[:, 1].mean() < 0.12
    again = rules.decode(incoming, p, branch, free)
    for name, value in values.items():
        assert np.allclose(again[name], value, rtol=3e-5)


def test_core_mt_without_emissions_is_the_transverse_mass() -> None:
    chart = BalancedChart(["6", "-6"], [173.0, 173.0], [0.0])
    p, total = chart.inverse(torch.randn(100, 4, dtype=torch.float64))
    incoming = incoming_momenta(total, 0.0, 0.0)
    expected = torch.sqrt(p[:, 0, 0] ** 2 + p[:, 0, 1] ** 2 + 173.0**2)
    assert torch.allclose(formula("core_mt:", incoming, p), expected)
    assert formula_names(p)[-1] == "core_mt:"


def test_simple_formula_with_a_factor() -> None:
    incoming, p = events(500)
    rule = learn_scale(incoming, p, 0.5 * formula("ht", incoming, p).numpy())
    assert rule["options"] == [{"kind": "formula", "formula": "ht", "factor": 0.5}]
    assert not rule["free"]


def test_random_scale_is_free() -> None:
    incoming, p = events(500)
    rule = learn_scale(incoming, p, np.random.default_rng(1).uniform(50, 100, 500))
    assert rule["options"] == []
    assert rule["free"]


def test_table_is_accurate_between_its_knots() -> None:
    rng = np.random.default_rng(3)
    scale = np.exp(rng.normal(5.3, 0.4, 30_000))
    table = coupling_table(scale, alpha(scale))
    guess = Auxiliaries._value(table, torch.empty(0), torch.empty(0), scale)
    off = np.abs(guess / alpha(scale) - 1)
    assert np.quantile(off, 0.999) < 1e-5


def test_unknown_values_are_constants() -> None:
    assert learn_coupling(np.ones(5), np.full(5, -1.0), [])["options"][0]["value"] == -1.0


def test_unknown_values_among_others_cost_no_rule() -> None:
    """One scale of -1, one coupling of 0 and one constant that is unknown: an option each."""
    incoming, p = events()
    n = len(p)
    scale = formula("core_mt:", incoming, p).numpy().copy()
    coupling, other = alpha(scale), np.full(n, 0.0075)
    scale[7], coupling[8], other[9] = -1.0, 0.0, -1.0
    table = coupling_table(scale, coupling)
    assert table is not None
    rules = Auxiliaries(
        {
            "scale": learn_scale(incoming, p, scale),
            "alpha_qcd": learn_coupling(scale, coupling, [table]),
            "alpha_qed": learn_coupling(scale, other, []),
        }
    )
    values = {"scale": scale, "alpha_qcd": coupling, "alpha_qed": other}
    branch, free = rules.encode(incoming, p, values)
    assert (branch >= 0).all()
    is_free = rules.is_free(rules.branches)[branch]
    assert not is_free[:, [0, 2]].any()
    assert is_free[7, 1]  # the coupling of an event without scale follows from nothing
    assert is_free[:, 1].mean() < 0.02
    again = rules.decode(incoming, p, branch, free)
    for name, value in values.items():
        assert np.allclose(again[name], value, rtol=3e-5)
