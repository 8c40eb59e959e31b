"""Contract of every chart: round trip, Jacobian, exact kinematics."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.phase_space import (
    BalancedChart,
    BeamsChart,
    Beside,
    Chart,
    DecayChart,
    FixedEnergyChart,
    FormationChart,
    Node,
    PairChart,
    Peak,
    RadiativeReturnChart,
    ReconstructedChart,
    Resonance,
    chart_from_config,
)
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import (
    boost,
    invariant_mass_squared,
    reverse,
    wrap,
)

CHARTS = [
    BalancedChart(["j1", "6", "-6"], [0.0, 173.0, 173.0], [20.0, 0.0]),
    BalancedChart(["6", "-6"], [173.0, 173.0], [0.0]),
    BalancedChart(["b", "W", "j1", "t"], [4.7, (60.0, 100.0), 0.0, 173.0], [20.0, 0.0, 30.0]),
    BalancedChart(["Z"], [(60.0, 120.0)], []),
    BalancedChart(
        ["j1", "b", "ph", "W", "t"], [0.0, 4.7, 0.0, (60.0, 100.0), 173.0],
        [20.0, 30.0, 10.0, 0.0], [0.0, 0.4, 0.7, 0.0],
    ),
    FixedEnergyChart(["13", "-13"], [0.1, 0.1], [0.0, 0.0, 0.0, 91.2]),
    FixedEnergyChart(["j1", "j2", "j3"], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 91.2]),
    FixedEnergyChart(["a", "b", "c", "d"], [0.0, 4.0, 0.0, (1.0, 3.0)], [0.0, 0.0, 10.0, 191.2]),
    BeamsChart(["e", "q"], [0.000511, 0.0], [None, 27.5], [920.0, 0.0], [0.0, 0.000511]),
    BeamsChart(["a", "b", "c"], [0.1, (1.0, 3.0), 0.0], [None, None], [120.0, 130.0], [0.0, 0.0]),
    ReconstructedChart(
        ["mu", "nu", "j1", "j2"],
        [0.1056583755, 0.1056583755, None, None],
        [0.0, 0.0, 20.0, 20.0],
        [False, False, False, True],
        [Resonance("Z", (0, 1), Peak(0.22, 120.0, 91.2, 3.0))],
    ),
    ReconstructedChart(
        ["e", "mu", "j1", "j2", "j3"],
        [0.0, 0.1056583755, 0.0, None, None],
        [10.0, 5.0, 20.0, 20.0, 20.0],
        [False, False, False, True, True],
    ),
    ReconstructedChart(
        ["mu", "nu"], [0.1056583755] * 2, [0.0] * 2, [False] * 2,
        [Resonance("Z", (1, 0), Peak(0.22, math.inf, 91.2, 3.0))],
    ),
    ReconstructedChart(
        ["mu", *(f"j{i}" for i in range(1, 7))],
        [0.1056583755] + [None] * 6,
        [5.0] + [20.0] * 6,
        [False, False] + [True] * 5,
        [
            Resonance("t", (1, 4, 5), Peak(30.0, 400.0, 173.0, 12.0)),
            Resonance("W", (2, 0), Peak(1.0, math.inf, 80.4, 8.0)),
        ],
    ),
    ReconstructedChart(
        ["ph1", "ph2", "e"], [0.0, 0.0, 0.000511], [10.0] * 3, [False, True, False],
        [Resonance("H", (0, 1), Peak(0.0, math.inf, 125.0, 1.0))],
    ),
    BalancedChart(["b", "W", "t"], [4.7, Peak(60.0, 100.0, 80.4, 2.1), 0.0], [20.0, 0.0]),
    DecayChart(
        [
            Node("t", Peak(150.0, 200.0, 173.0, 1.5), (2, 3)),
            Node("t~", Peak(150.0, 200.0, 173.0, 1.5), (4, 5)),
            Node("W+", Peak(50.0, 110.0, 80.4, 2.1), (6, 7)),
            Node("b", 4.8),
            Node("W-", Peak(50.0, math.inf, 80.4, 2.1), (8, 9)),
            Node("b~", 4.8),
            Node("u", 0.0),
            Node("d~", 0.33),
            Node("d", 0.33),
            Node("u~", 0.0),
        ],
        2,
        {"kind": "balanced", "pt_min": [0.0]},
    ),
    DecayChart(
        [
            Node("j1", 0.0),
            Node("j2", 0.0),
            Node("Z", Peak(60.0, 120.0, 91.2, 2.5), (3, 4)),
            Node("mu-", 0.1),
            Node("mu+", 0.1),
        ],
        3,
        {"kind": "balanced", "pt_min": [20.0, 20.0], "close": [0.0, 0.4]},
    ),
    BalancedChart(["j", "t", "t~"], [0.0, 173.0, 173.0], [20.0, 0.0], share=0.5),
    BalancedChart(
        ["j1", "j2", "t", "W-"], [0.0, 0.0, (160.0, 180.0), 80.4], [20.0, 20.0, 0.0],
        [0.0, 0.4, 0.0], 0.7,
    ),
    DecayChart(
        [Node("Z", Peak(60.0, 120.0, 91.2, 2.5), (1, 2)), Node("mu-", 0.1), Node("mu+", 0.1)],
        1,
        {"kind": "balanced", "pt_min": []},
    ),
    DecayChart(
        [
            Node("j", 0.0),
            Node("H", (100.0, 200.0), (2, 3)),
            Node("Z1", (1.0, 150.0), (4, 5)),
            Node("Z2", Peak(0.5, 150.0, 91.2, 2.5), (6, 7)),
            *(Node(f"l{i}", 0.0) for i in range(4)),
        ],
        2,
        {"kind": "fixed_energy", "total": [0.0, 0.0, 0.0, 500.0]},
    ),
    DecayChart(
        [
            Node("H", (1.0, 30.0), (2, 3)),
            Node("Z", Peak(1.0, 30.0, 9.0, 0.5), (4, 5)),
            *(Node(f"l{i}", 0.0) for i in range(4)),
        ],
        2,
        {
            "kind": "beams", "energies": [None, 240.0], "largest": [240.0, 0.0],
            "incoming_masses": [0.0, 0.000511],
        },
    ),
    # t -> b (f f') with masses of f f' on both sides of the W only, and a jet of varying mass
    DecayChart(
        [
            Node("t", Peak(100.0, 300.0, 173.0, 1.5), (2, 3)),
            Node("j", 0.33),
            Node("W", Beside(0.0, 300.0, 80.4, 2.1, 70.0, 90.0), (4, 5)),
            Node("b", (1.0, 8.0)),
            Node("e", 0.000511),
            Node("nu", 0.0),
        ],
        2,
        {"kind": "balanced", "pt_min": [0.0]},
    ),
    # H -> four, a chain of unnamed systems
    DecayChart(
        [
            Node("H", Peak(100.0, 150.0, 125.0, 0.5), (1, 2)),
            Node("a", 5.0),
            Node("H>2", (0.0, 150.0), (3, 4)),
            Node("b", 0.0),
            Node("H>2>2", (0.0, 150.0), (5, 6)),
            Node("c", 0.0),
            Node("d", 1.0),
        ],
        1,
        {"kind": "balanced", "pt_min": []},
    ),
    FormationChart(["LQ"], [Peak(100.0, 300.0, 250.0, 1.0)], [None, 27.5], [0.0, 0.000511]),
    DecayChart(
        [Node("LQ", Peak(100.0, 310.0, 250.0, 1.0), (1, 2)), Node("e", 0.000511), Node("j", 0.0)],
        1,
        {"kind": "formation", "energies": [27.5, None], "incoming_masses": [0.5, 1.5]},
    ),
    RadiativeReturnChart(
        ["mu-", "mu+"], [0.105, 0.105], [None, None], [100.0, 120.0], [0.000511, 0.0], [91.2, 2.5]
    ),
    DecayChart(
        [Node("H", Peak(1.0, 30.0, 9.0, 0.5), (2, 3)), Node("Z", (1.0, 30.0)), Node("b", 0.0),
         Node("c", 0.0)],
        2,
        {
            "kind": "radiative_return", "energies": [None, None], "largest": [240.0, 200.0],
            "incoming_masses": [0.1, 0.1], "peak": [91.2, 2.5],
        },
    ),
    PairChart(
        ["q", "e"], [0.0, 0.000511], [None, 27.5], [920.0, 0.0], [0.0, 0.000511],
        math.sqrt(25.0), 2.0, [[0.0, 0.0], [25 / 55, 0.0]],
    ),
    PairChart(
        ["q", "e"], [0.0, 0.000511], [None, 27.5], [920.0, 0.0], [0.0, 0.000511],
        5.0, 2.0, [[0.0, 0.0], [25 / 55, 0.0]], at_full=[True, False],
    ),
    RadiativeReturnChart(
        ["mu-", "mu+"], [0.105, 0.105], [None, None], [100.0, 120.0], [0.000511, 0.0],
        [91.2, 2.5], at_full=[True, True],
    ),
    RadiativeReturnChart(
        ["mu-", "mu+"], [0.105, 0.105], [None, 120.0], [100.0, 0.0], [0.000511, 0.000511],
        [91.2, 2.5],
    ),
    PairChart(
        ["a", "b"], [0.1, (1.0, 3.0)], [None, None], [100.0, 90.0], [0.0, 0.0], 12.0, 3.0,
        [[0.0, 0.5], [0.1, 0.2]],
    ),
    PairChart(
        ["e-", "e+"], [0.000511, 0.000511], [45.0, 50.0], [45.0, 50.0], [0.000511, 0.000511], 0.0,
        12.0, [[0.0, 0.0], [0.0, 0.0]],
    ),
    BalancedChart(["ll", "j"], [Beside(0.0, math.inf, 91.2, 2.5, 50.0, 130.0), 0.0], [0.0]),
]
IDS = [f"{c.kind}-{len(c.labels)}" for c in CHARTS]


def draws(chart: Chart, n: int = 500) -> torch.Tensor:
    torch.manual_seed(1)
    x = 1.5 * torch.randn(n, chart.n_coordinates, dtype=torch.float64)
    for i, coordinate in enumerate(chart.coordinates):
        if coordinate.periodic:
            x[:, i] = math.pi * (2 * torch.rand(n, dtype=torch.float64) - 1)
        if coordinate.name.startswith("log_mass"):
            x[:, i] = x[:, i].abs()  # below is the atom of massless jets
    return x


def allowed(chart: Chart, n: int) -> torch.Tensor:
    """Draws that lead to events of the chart."""
    x = draws(chart, 5 * n)
    while (good := chart.allows(chart.inverse(x)[0])).sum() < n:
        assert good.any()
        x = draws(chart, 4 * len(x))
    return x[good][:n]


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_round_trip(chart: Chart) -> None:
    x = allowed(chart, 100)
    p, _ = chart.inverse(x)
    back = chart.forward(p)
    periodic = torch.tensor([c.periodic for c in chart.coordinates])
    difference = torch.where(periodic, wrap(back - x), back - x)
    assert difference.abs().max() < 1e-8


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_momenta_are_on_shell_and_balanced(chart: Chart) -> None:
    p, total = chart.inverse(draws(chart))
    scale = p[..., 3].max()
    assert (p.sum(1) - total).abs().max() < 1e-12 * scale
    free = getattr(chart, "free", [False] * len(chart.masses))
    for i, mass in enumerate(chart.masses):
        if free[i]:
            assert (invariant_mass_squared(p[:, i]) > -1e-12 * scale**2).all()
        elif isinstance(mass, float):
            energy = torch.sqrt((p[:, i, :3] ** 2).sum(-1) + mass**2)
            assert (p[:, i, 3] - energy).abs().max() < 1e-12 * scale
        else:
            found = torch.sqrt(invariant_mass_squared(p[:, i]).clamp_min(0.0))
            assert found.min() > mass[0] - 1e-6
            assert found.max() < mass[1] + 1e-6
    if isinstance(chart, BalancedChart):
        assert total[:, :2].abs().max() < 1e-12 * scale


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_degrees_of_freedom(chart: Chart) -> None:
    n = len(chart.labels)
    varying = sum(isinstance(m, tuple) for m in chart.masses) + sum(getattr(chart, "free", ()))
    constraints = {BalancedChart: 2, FixedEnergyChart: 4, BeamsChart: 4,
                   RadiativeReturnChart: 4, PairChart: 4, FormationChart: 3,
                   ReconstructedChart: 0}  # fmt: skip
    made = chart.production if isinstance(chart, DecayChart) else chart
    expected = 3 * n - constraints[type(made)]
    assert chart.n_coordinates == expected + varying + getattr(made, "n_beams", 0)


def measure(chart: Chart, x: torch.Tensor) -> torch.Tensor:
    """The quantities to whose volume `log_det` refers."""
    p, _ = chart.inverse(x)
    n = len(chart.labels)
    if isinstance(chart, DecayChart):
        return decay_measure(chart, p)
    if isinstance(chart, BalancedChart):
        parts = [p[i, :3] for i in range(n - 1)] + [p[n - 1, 2:3]]
    elif isinstance(chart, FormationChart):
        parts = []
    elif isinstance(chart, ReconstructedChart):
        parts = [p[i, :3] for i in range(n)]
        free = [i for i in range(n) if chart.free[i]]
        parts += [torch.sqrt(p[i, 3] ** 2 - (p[i, :3] ** 2).sum())[None] for i in free]
    else:
        parts = [p[i, :3] for i in range(n - 2)]
        pair = p[n - 2 :].sum(0)
        mass = torch.sqrt(pair[3] ** 2 - (pair[:3] ** 2).sum())
        local = boost(p[n - 2], reverse(pair), mass)
        parts += [(local[2] / local[:3].norm())[None], torch.atan2(local[1], local[0])[None]]
    if isinstance(chart, BeamsChart):
        incoming = incoming_momenta(p.sum(0), *chart.incoming_masses)
        parts += [incoming[i, 3:] for i, e in enumerate(chart.energies) if e is None]
    for i, spec in enumerate(chart.masses):
        if isinstance(spec, tuple):
            parts.append(torch.sqrt(p[i, 3] ** 2 - (p[i, :3] ** 2).sum())[None])
    return torch.cat(parts)


def decay_measure(chart: DecayChart, p: torch.Tensor) -> torch.Tensor:
    """Measure of the production, then masses and solid angles from independent boosts."""
    below = [
        [chart.leaves.index(leaf) for leaf in leaves(chart, i)] for i in range(len(chart.nodes))
    ]
    q = [p[rows].sum(0) for rows in below]
    made = chart.production
    parts = [measure(made, made.forward(torch.stack(q[: chart.n_made])[None])[0])]
    # volumes of solid angles are the same in every orientation of a rest frame
    for i, node in enumerate(chart.nodes):
        if not node.children:
            continue
        mass = torch.sqrt(q[i][3] ** 2 - (q[i][:3] ** 2).sum())
        local = boost(q[node.children[0]], reverse(q[i]), mass)
        for child in node.children:
            if isinstance(chart.nodes[child].mass, tuple):
                parts.append(torch.sqrt(q[child][3] ** 2 - (q[child][:3] ** 2).sum())[None])
        parts += [(local[2] / local[:3].norm())[None], torch.atan2(local[1], local[0])[None]]
    return torch.cat(parts)


def leaves(chart: DecayChart, i: int) -> list[int]:
    children = chart.nodes[i].children
    return [leaf for c in children for leaf in leaves(chart, c)] if children else [i]


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_jacobian_against_autograd(chart: Chart) -> None:
    x = draws(chart, 8)
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: measure(chart, v), row)
        expected = torch.linalg.slogdet(jacobian).logabsdet
        assert torch.isclose(chart.log_det(row[None])[0], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_stored_form(chart: Chart) -> None:
    again = chart_from_config(chart.to_config())
    x = draws(chart, 10)
    assert torch.equal(again.inverse(x)[0], chart.inverse(x)[0])


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_push_forward_is_the_differential_of_the_coordinates(chart: Chart) -> None:
    """Moving the coordinates moves the momenta; pushed forward, these move the coordinates."""
    x, dx = allowed(chart, 100), torch.randn(100, chart.n_coordinates, dtype=torch.float64)
    p, v = torch.func.jvp(lambda x: chart.inverse(x)[0], (x,), (dx,))
    assert torch.allclose(chart.push_forward(p, v), dx, rtol=1e-6, atol=1e-6)
    general = torch.randn_like(p)
    if isinstance(chart, BalancedChart):
        general[:, -1, :2] = -general[:, :-1, :2].sum(1)
    expected = Chart.push_forward(chart, p, general)
    found = chart.push_forward(p, general)
    assert ((found - expected).abs() / (1 + expected.abs())).max() < 1e-6


def is_event(chart: Chart, x: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(chart.inverse(x)[0]).all(-1).all(-1)


@pytest.mark.parametrize("chart", CHARTS, ids=IDS)
def test_continued_charts_have_momenta_and_slopes_everywhere(chart: Chart) -> None:
    """The same momenta but near a threshold, and none that jump or are missing beyond it."""
    x, continued = allowed(chart, 100), chart.continued()
    same = (continued.inverse(x)[0] == chart.inverse(x)[0]).all(-1).all(-1)
    assert same.double().mean() > 0.9
    far = (2.5 * draws(chart, 100)).requires_grad_()
    p, _ = continued.inverse(far)
    assert torch.isfinite(p).all()
    (slope,) = torch.autograd.grad(p.sum(), far)
    assert torch.isfinite(slope).all()
    outside = ~is_event(chart, far.detach())
    inner, outer = x[outside], far.detach()[outside]
    for _ in range(50):
        middle = (inner + outer) / 2
        good = is_event(chart, middle).unsqueeze(-1)
        inner, outer = torch.where(good, middle, inner), torch.where(good, outer, middle)
    one, other = continued.inverse(inner)[0], continued.inverse(outer)[0]
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)


def test_some_coordinates_are_those_of_no_event() -> None:
    counts = [int((~is_event(chart, 2.5 * draws(chart, 100))).sum()) for chart in CHARTS]
    assert sum(n > 0 for n in counts) >= 3
