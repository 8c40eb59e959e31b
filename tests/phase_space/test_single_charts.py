"""What single charts promise beyond the contract of all: edges, peaks, beams, atoms."""

from __future__ import annotations

import math

import pytest
import torch

from hepgen_ml.phase_space import (
    BeamsChart,
    Beside,
    DecayChart,
    FixedEnergyChart,
    FormationChart,
    Peak,
    RadiativeReturnChart,
    ReconstructedChart,
    Resonance,
    chart_from_config,
)
from hepgen_ml.phase_space.beams import EDGE, MARGIN
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.coordinates import (
    invariant_mass_squared,
    pseudorapidity,
)
from tests.phase_space.test_charts import CHARTS, draws


def test_cut_is_built_in() -> None:
    chart = CHARTS[0]
    p, _ = chart.inverse(draws(chart))
    assert torch.hypot(p[:, 0, 0], p[:, 0, 1]).min() > 20.0


def reconstructed() -> ReconstructedChart:
    chart = next(c for c in CHARTS if isinstance(c, ReconstructedChart))
    assert chart.resonances
    return chart


def test_objects_of_a_kind_are_ordered() -> None:
    p, _ = reconstructed().inverse(10 * draws(reconstructed()))
    pt = torch.hypot(p[..., 0], p[..., 1])
    assert (pt[:, 2] * (1 + 1e-12) >= pt[:, 3]).all()
    assert pt[:, 3].min() >= 20.0 * (1 - 1e-12)


def test_peak_is_a_coordinate() -> None:
    """A logistic in the first coordinate is the Breit-Wigner itself."""
    chart = reconstructed()
    x, u = draws(chart, 200_000), torch.rand(200_000, dtype=torch.float64)
    x[:, 0] = torch.log(u) - torch.log1p(-u)
    p, _ = chart.inverse(x)
    mass = torch.sqrt(invariant_mass_squared(p[:, 0] + p[:, 1]))
    assert mass.max() <= 120.0
    inside = ((mass - 91.2).abs() < 1.5).double().mean()
    assert abs(inside - 0.5) < 0.02  # a bit more than half: the tail above 120 GeV is cut


def test_massless_jets_stay_massless() -> None:
    chart = reconstructed()
    p, _ = chart.inverse(draws(chart))
    p[::2, 2, 3] = torch.sqrt((p[::2, 2, :3] ** 2).sum(-1))
    x = chart.forward(p)
    column = [c.name for c in chart.coordinates].index("log_mass:j1")
    assert x[::2, column].std() > 0.05, "an atom has no density"
    again, _ = chart.inverse(x)
    assert torch.allclose(again, p, rtol=1e-9)
    mass2 = invariant_mass_squared(again[:, 2])
    assert mass2[::2].abs().max() < 1e-6
    assert mass2[1::2].min() > 1e-8


def test_resonances_stay_in_their_range() -> None:
    chart = next(c for c in CHARTS if isinstance(c, DecayChart))
    x = draws(chart)
    x[:, [c.name.startswith("logit_mass") for c in chart.coordinates]] *= 5
    p, total = chart.inverse(x)
    assert total[:, :2].abs().max() < 1e-12 * total[:, 3].max()
    labels = list(chart.labels)
    rows = {name: [labels.index(k) for k in keys] for name, keys in
            (("W+", ("u", "d~")), ("W-", ("d", "u~")), ("t", ("b", "u", "d~")))}  # fmt: skip
    mass = {k: torch.sqrt(invariant_mass_squared(p[:, r].sum(1))) for k, r in rows.items()}
    assert 150.0 * (1 - 1e-8) <= mass["t"].min() <= mass["t"].max() <= 200.0 * (1 + 1e-8)
    assert 50.0 * (1 - 1e-8) <= mass["W+"].min() <= mass["W+"].max() <= 110.0 * (1 + 1e-9)
    assert (mass["W-"] < 200.0 - 4.8 + 1e-6).all()
    assert (mass["t"] - mass["W+"] > 4.8 - 1e-6).all()


@pytest.mark.parametrize("varies", [0, 1])
def test_energy_of_a_beam_is_exact_where_one_particle_is_formed(varies: int) -> None:
    energies: list[float | None] = [27.5, 27.5]
    energies[varies] = None
    masses = [0.000511, 0.938]
    chart = FormationChart(["LQ"], [(50.0, 300.0)], energies, masses)
    p, total = chart.inverse(draws(chart))
    mass = torch.sqrt(invariant_mass_squared(p[:, 0]))
    incoming = incoming_momenta(total, *masses)
    assert ((incoming[:, 1 - varies, 3] / 27.5 - 1).abs() < 1e-12).all()
    assert (mass > 50.0 - 1e-9).all()
    assert (mass < 300.0 + 1e-9).all()


def test_masses_beside_a_resonance() -> None:
    """Nothing lies in between, both sides are reached, and mothers may be too light for one."""
    chart = next(c for c in CHARTS if any(isinstance(m, Beside) for m in c.masses))
    x = draws(chart, 5000)
    x[:, 0] *= 3
    p, _ = chart.inverse(x)
    mass = torch.sqrt(invariant_mass_squared(p[:, 0]))
    assert not ((mass > 50.0 + 1e-9) & (mass < 130.0 - 1e-9)).any()
    assert (mass < 50.0).any()
    assert (mass > 130.0).any()
    decays = next(c for c in CHARTS if "nu" in c.labels and isinstance(c, DecayChart))
    p, _ = decays.inverse(draws(decays, 5000))
    labels = list(decays.labels)
    pair = torch.sqrt(invariant_mass_squared(p[:, [labels.index(k) for k in ("e", "nu")]].sum(1)))
    whole = [labels.index(k) for k in ("b", "e", "nu")]
    top = torch.sqrt(invariant_mass_squared(p[:, whole].sum(1)))
    assert not ((pair > 70.0 + 1e-9) & (pair < 90.0 - 1e-9)).any()
    assert (pair > 90.0).any()
    assert (pair < 70.0).any()
    assert (top > pair).all()


@pytest.mark.parametrize("masses", [(0.0, 0.0), (4.8, 0.33)])
def test_incoming_partons(masses: tuple[float, float]) -> None:
    _, total = CHARTS[0].inverse(draws(CHARTS[0]))
    p = incoming_momenta(total, *masses)
    assert torch.allclose(p.sum(1)[:, 2:], total[:, 2:], rtol=1e-13)
    assert (p[..., :2] == 0).all()
    assert (p[:, 0, 2] > p[:, 1, 2]).all()
    mass = torch.sqrt(invariant_mass_squared(p).clamp_min(0.0))
    assert (mass - torch.tensor(masses)).abs().max() < 1e-4


def test_incoming_too_light() -> None:
    total = torch.tensor([[0.0, 0.0, 0.0, 5.0]], dtype=torch.float64)
    assert torch.isnan(incoming_momenta(total, 4.8, 4.8)).any()


def test_pseudorapidity_is_finite_far_forward() -> None:
    p = torch.tensor([[1e-3, 0.0, 6000.0, 6000.0]], dtype=torch.float64)
    assert torch.isclose(pseudorapidity(p), torch.tensor(16.3, dtype=torch.float64), atol=0.02)


def test_resonance_of_objects_in_order() -> None:
    """Where jets of a resonance are in order, all jets are, and what they decay to stays whole."""
    chart = next(c for c in CHARTS if len(getattr(c, "resonances", ())) == 2)
    x = draws(chart, 20_000)
    names = [c.name for c in chart.coordinates]
    p, _ = chart.inverse(x)
    good = chart.allows(p)
    assert 0 < good.double().mean() < 1
    pt = torch.hypot(p[good][..., 0], p[good][..., 1])
    assert (pt[:, 2:] <= pt[:, 1:-1]).all()
    assert pt[:, [3, 6]].min() >= 20.0 * (1 - 1e-12)  # those of resonances are for the cuts
    top = torch.sqrt(invariant_mass_squared(p[:, [1, 4, 5]].sum(1)))
    parts = torch.sqrt(invariant_mass_squared(p[:, [1, 4, 5]]).clamp_min(0)).sum(-1)
    light = parts < 399.0  # else nothing is left for them to move with
    assert light.double().mean() > 0.99
    assert (top > parts - 1e-6)[light].all()
    assert (top < 400.0 * (1 + 1e-8))[light].all()
    assert {"log_mass:t>1", "logit_mass:t", "logit_mass:t>2", "decay_phi:t>2", "phi:W"} < {*names}
    assert [c.name for c in chart.coordinates if c.cyclic] == ["phi:t"]


def test_charts_of_older_models_are_read() -> None:
    chart = chart_from_config({
        "kind": "reconstructed", "labels": ["Muon-", "Muon+", "Jet1"],
        "masses": [0.1, 0.1, None], "pt_min": [0.0, 0.0, 20.0], "ordered": [False] * 3,
        "pair": {"first": 0, "second": 1, "mass": 91.2, "width": 2.5, "low": 0.25, "high": None},
    })  # fmt: skip
    assert isinstance(chart, ReconstructedChart)
    assert chart.resonances == (
        Resonance("Muon-,Muon+", (0, 1), Peak(0.25, math.inf, 91.2, 2.5)),
    )
    assert chart.coordinates[0].name == "logit_mass:Muon-,Muon+"


def test_objects_belong_to_one_resonance() -> None:
    peak = Peak(0.0, math.inf, 91.2, 2.5)
    for objects in ((0, 0), (0, 5), (0,), (1, 2)):
        with pytest.raises(ValueError, match="objects of its own"):
            ReconstructedChart(
                ["a", "b", "c"], [0.0] * 3, [0.0] * 3, [False] * 3,
                [Resonance("x", (0, 1), peak), Resonance("y", objects, peak)],
            )  # fmt: skip


def test_a_fixed_beam_is_exact() -> None:
    """Whatever the coordinates: the electron of deep-inelastic scattering has its energy."""
    chart = next(c for c in CHARTS if isinstance(c, BeamsChart))
    p, _ = chart.inverse(3 * draws(chart))
    incoming = incoming_momenta(p.sum(1), 0.0, 0.000511)
    finite = torch.isfinite(p).all(-1).all(-1)
    assert finite.float().mean() > 0.5
    assert (incoming[finite, 1, 3] / 27.5 - 1).abs().max() < 1e-12
    assert (incoming[finite, 0, 3] < 920.0).all()


def test_events_at_the_full_energy_have_a_place() -> None:
    """Radiation leaves most electrons next to their whole energy, and some exactly there."""
    top = 120.0 * (1 + 1e-11)
    chart = BeamsChart(["13", "-13"], [0.1, 0.1], [None, None], [top, top], [0.0, 0.0])
    for loss in (0.0, 1e-10, 1e-6, 1e-2, 0.5):
        energy = torch.tensor(120.0 * (1 - loss), dtype=torch.float64)
        x = torch.tensor([[0.0, 0.0, 0.3, 0.1]], dtype=torch.float64)
        x[0, 0] = x[0, 1] = torch.log(energy / (top - energy))
        p, _ = chart.inverse(x)
        found = incoming_momenta(p.sum(1), 0.0, 0.0)[0, :, 3]
        assert torch.allclose(found, energy, rtol=1e-13)
        assert torch.allclose(chart.forward(p)[0, :2], x[0, :2], rtol=1e-2)


def test_events_at_the_full_energy_beside_a_resonance() -> None:
    """Each beam at its full energy, or both: exact, with volumes of what still varies."""
    chart = RadiativeReturnChart(
        ["13", "-13"], [0.1, 0.1], [None, None], [100.0 * (1 + MARGIN), 120.0 * (1 + MARGIN)],
        [0.0, 0.0], [91.2, 2.5], at_full=[True, True],
    )  # fmt: skip
    both = chart.inverse(torch.tensor([[60.0, 0.3, 0.2, 0.1]], dtype=torch.float64))[0]
    t = float(chart.forward(both)[0, 0])
    assert t > 30.0
    x = torch.tensor(
        [[1.3, 24.0, 0.3, 0.1], [1.3, -24.0, 0.3, 0.1], [t, 0.2, 0.3, 0.1], [1.3, 3.0, 0.3, 0.1]],
        dtype=torch.float64,
    )
    p, _ = chart.inverse(x)
    energies = incoming_momenta(p.sum(1), 0.0, 0.0)[..., 3]
    full = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0]], dtype=torch.bool)
    where = energies / torch.tensor([100.0, 120.0], dtype=torch.float64)
    assert ((where - 1).abs() < 1e-14).equal(full)
    again = chart.forward(p)
    assert torch.allclose(again[[0, 1, 3], 0], x[[0, 1, 3], 0], atol=1e-6)
    assert ((again[:, 1] > EDGE) == full[:, 0] & ~full[:, 1]).all()
    assert ((again[:, 1] < -EDGE) == full[:, 1] & ~full[:, 0]).all()
    # with one energy fixed the volume is that of the other, by its numerical derivative
    step = 1e-5
    shift = torch.tensor([step, 0.0, 0.0, 0.0], dtype=torch.float64)
    for row, varies in ((0, 1), (1, 0)):
        ends = torch.stack([x[row] - shift, x[row] + shift])
        found = incoming_momenta(chart.inverse(ends)[0].sum(1), 0.0, 0.0)[:, varies, 3]
        slope = torch.log((found[1] - found[0]) / (2 * step))
        total, angles = (chart.log_det(v[None])[0] for v in (x[row], x[2]))
        shape = FixedEnergyChart(["13", "-13"], [0.1, 0.1], p[row].sum(0).tolist())
        rest = shape.log_det(torch.tensor([[0.3, 0.1]], dtype=torch.float64))[0]
        assert abs(total - rest - slope) < 1e-5
        assert torch.isfinite(angles)


def test_too_little_energy_is_no_event() -> None:
    chart = BeamsChart(["t", "t~"], [173.0, 173.0], [None, None], [250.0, 250.0], [0.0, 0.0])
    p, _ = chart.inverse(torch.tensor([[-3.0, -3.0, 0.1, 0.2]], dtype=torch.float64))
    assert not torch.isfinite(p).any()
