"""Scale and couplings: formulas recognised, the rest learned."""

from __future__ import annotations

import numpy as np
import torch

from hepgen_ml.phase_space import BalancedChart
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.process.auxiliary import Auxiliaries, value_of
from hepgen_ml.process.coupling_tables import best_table, coupling_table
from hepgen_ml.process.scale_rules import learn_coupling, learn_scale
from hepgen_ml.process.scales import formula, formula_names

CHART = BalancedChart(["j1", "6", "-6"], [0.0, 173.0, 173.0], [20.0, 0.0])


def events(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    x = torch.randn(n, 7, dtype=torch.float64)
    x[:, [0, 3]] = 3 + x[:, [0, 3]]
    p, total = CHART.inverse(x)
    return incoming_momenta(total, 0.0, 0.0), p


def alpha(scale: np.ndarray) -> np.ndarray:
    return 1 / (8.5 + 1.2 * np.log(scale / 91.2) + 0.01 * np.log(scale / 91.2) ** 2)


NOWHERE = torch.zeros(10, 2, 4), torch.zeros(10, 2, 4)
CONSTANT = learn_coupling(*NOWHERE, np.ones(10), np.full(10, 0.0075), [])


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
            "alpha_qcd": learn_coupling(incoming, p, scale, coupling, [table]),
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
    assert "core_mt:" in formula_names(p)


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


def test_couplings_beyond_a_table_have_no_pole() -> None:
    """Down to a scale of zero, which a formula may have, and up to that of any collider."""
    scale = np.geomspace(0.7, 20.0, 500)
    coupling = 1 / (1.2 * np.log(scale / 0.25))
    table = coupling_table(scale, coupling)
    assert table is not None
    beyond = value_of(
        table, torch.empty(0), torch.empty(0), np.array([0.0, 0.01, 0.2, 0.25, 0.6, 1e5])
    )
    assert (beyond > 0).all()
    assert beyond.max() <= 2.01 * coupling.max()
    assert (np.diff(beyond) <= 0).all()


def test_table_is_accurate_between_its_knots() -> None:
    rng = np.random.default_rng(3)
    scale = np.exp(rng.normal(5.3, 0.4, 30_000))
    table = coupling_table(scale, alpha(scale))
    guess = value_of(table, torch.empty(0), torch.empty(0), scale)
    off = np.abs(guess / alpha(scale) - 1)
    assert np.quantile(off, 0.999) < 1e-5


def test_unknown_values_are_constants() -> None:
    rule = learn_coupling(*NOWHERE, np.ones(10), np.full(10, -1.0), [])
    assert rule["options"][0]["value"] == -1.0


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
            "alpha_qcd": learn_coupling(incoming, p, scale, coupling, [table]),
            "alpha_qed": learn_coupling(incoming, p, scale, other, []),
        }
    )
    values = {"scale": scale, "alpha_qcd": coupling, "alpha_qed": other}
    branch, free = rules.encode(incoming, p, values)
    assert (branch >= 0).all()
    is_free = rules.is_free(rules.branches)[branch]
    assert not is_free[:, [0, 2]].any()
    # the coupling of an event without scale follows from nothing: it is an exception
    chosen = rules.rules["alpha_qcd"]["options"][rules.branches[branch[7], 1]]
    assert chosen == {"kind": "constant", "value": coupling[7], "exception": True}
    assert is_free[:, 1].mean() < 0.02
    again = rules.decode(incoming, p, branch, free)
    for name, value in values.items():
        assert np.allclose(again[name], value, rtol=3e-5)


def test_coupling_at_a_scale_of_its_own() -> None:
    """The printed scale is that of factorisation, the coupling is that of renormalisation."""
    incoming, p = events()
    scale = formula("min_mt", incoming, p).numpy()
    other = formula("geometric_mean_mt", incoming, p).numpy()
    coupling = alpha(other)
    table = best_table(incoming, p, scale, coupling)
    assert table is not None
    rule = learn_coupling(incoming, p, scale, coupling, [table])
    (option,) = rule["options"]
    assert option["of"][0] == "geometric_mean_mt"
    rules = Auxiliaries(
        {"scale": learn_scale(incoming, p, scale), "alpha_qcd": rule, "alpha_qed": CONSTANT}
    )
    values = {"scale": scale, "alpha_qcd": coupling, "alpha_qed": np.full(len(p), 0.0075)}
    branch, free = rules.encode(incoming, p, values)
    # at its ends, a table is less exact
    assert rules.is_free(rules.branches)[branch][:, 1].mean() < 0.01
    assert np.allclose(rules.decode(incoming, p, branch, free)["alpha_qcd"], coupling, rtol=3e-5)


def test_chance_is_no_formula() -> None:
    """Scales close to a formula without being equal to it are no option of it."""
    incoming, p = events()
    noise = np.exp(1e-3 * np.random.default_rng(4).normal(size=len(p)))
    rule = learn_scale(incoming, p, formula("ht", incoming, p).numpy() * noise)
    assert rule["options"] == []
    assert rule["reference"][0] == "ht"


def test_processes_of_one_final_state_have_their_own_scales() -> None:
    incoming, p = events()
    process = np.arange(len(p)) % 2
    scale = np.where(process == 0, formula("ht", incoming, p), formula("min_mt", incoming, p))
    rule = learn_scale(incoming, p, scale, process)
    assert [o["formula"] for o in rule["options"]] == ["ht", "min_mt"]
    values = {"scale": scale[process == 1], "alpha_qcd": np.ones(len(p) // 2)}
    ones = {"options": [{"kind": "constant", "value": 1.0}], "reference": ["constant", 1.0],
            "free": False}  # fmt: skip
    rules = Auxiliaries({"scale": rule, "alpha_qcd": ones, "alpha_qed": ones})
    (only,) = rules.occurring(incoming[1::2], p[1::2], values, [len(p) // 2])
    assert [o["formula"] for o in only.rules["scale"]["options"]] == ["min_mt"]
    # of groups of events, each for itself
    order = torch.from_numpy(np.argsort(process, kind="stable"))
    every = {"scale": scale[order.numpy()], "alpha_qcd": np.ones(len(p))}
    sizes = [len(p) // 2, len(p) // 2 - 3, 3]
    first, second, third = rules.occurring(incoming[order], p[order], every, sizes)
    assert [o["formula"] for o in first.rules["scale"]["options"]] == ["ht"]
    assert second is third
    assert [o["formula"] for o in third.rules["scale"]["options"]] == ["min_mt"]


def test_a_single_event_follows_the_rule_of_others() -> None:
    """Its scale and coupling are no constants, where those of other events vary."""
    incoming, p = events(600)
    scale = 0.5 * formula("ht", incoming, p).numpy()
    rule, coupling = learn_scale(incoming, p, scale), alpha(scale)
    table = coupling_table(scale, coupling)
    assert table is not None
    one = incoming[:1], p[:1]
    alone = learn_scale(*one, scale[:1], elsewhere=rule["options"])
    assert alone["options"] == rule["options"]
    assert not alone["free"]
    known = {"elsewhere": [table]}
    of_one = learn_coupling(*one, scale[:1], coupling[:1], [table], **known)
    assert (of_one["options"], of_one["free"]) == ([table], False)
    # without a formula it is drawn
    other = learn_scale(*one, np.array([77.7]), elsewhere=rule["options"])
    assert (other["options"], other["free"]) == ([], True)
    # a constant, where that is the one of others or there are none
    same = [*rule["options"], {"kind": "constant", "value": 91.2}]
    for elsewhere in (same, []):
        assert learn_scale(*one, np.array([91.2]), elsewhere=elsewhere)["options"] == same[-1:]
