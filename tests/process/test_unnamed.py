"""Resonances that the record of no event names, found by the peak of their mass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hepgen_ml.events.sample import EventSample, RunInfo, Subrun
from hepgen_ml.phase_space import (
    DecayChart,
    Node,
    Peak,
)
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.process.peaks import find_peak
from hepgen_ml.process.understanding import understood
from hepgen_ml.process.unnamed import is_narrow, is_of_leptons
from tests.phase_space.test_decays import TOP, W, hadronic_tops
from tests.process.test_decay_charts import check_round_trip, without_rows
from tests.samples import learned


def test_a_peak_without_any_row_is_found() -> None:
    sample = hadronic_tops(3000)
    sample = without_rows(sample, np.abs(sample.particles["pdg_id"]) == 24)
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    for node in channel.chart.nodes:
        if node.label in ("6>1", "-6>1"):
            assert isinstance(node.mass, Peak)
            assert node.mass.mass == pytest.approx(W.mass, abs=0.3)
            assert len(node.children) == 2
    check_round_trip(process, sample)


def test_top_quarks_that_no_event_names() -> None:
    """They are bottom quarks with the only pair of a W boson's charge, all of which have peaks."""
    sample = hadronic_tops(1000)
    ids = sample.particles["pdg_id"]
    for rows in (ids == 6, np.abs(ids) == 6):
        without = without_rows(sample, rows | (np.abs(ids) == 24))
        process = learned(without)
        (channel,) = process.channels
        assert isinstance(channel.chart, DecayChart)
        made = channel.chart.nodes[: channel.chart.n_made]
        assert all(isinstance(n.mass, Peak) and abs(n.mass.mass - TOP.mass) < 0.5 for n in made)
        assert len(made) == 2
        check_round_trip(process, without)
    assert "d u~ b~ without a row at 17" in dict(understood(process, sample.run, {}))["resonances"]
    # of two pairs of the same charge it is not known which came from one particle
    p = without.particles["pdg_id"]
    p[p == 1], p[p == -2] = 2, -1
    assert not isinstance(learned(without).channels[0].chart, DecayChart)


def pairs_and_a_jet(n: int, flavours: tuple[int, int]) -> EventSample:
    """Final particles only, as Sherpa writes them: Z or W bosons have no row."""
    z = Peak(40.0, 250.0, 91.2, 2.5)
    nodes = [Node("j", 0.0), Node("z", z, (2, 3)), Node("a", 0.0), Node("b", 0.0)]
    chart = DecayChart(nodes, 2, {"kind": "balanced", "pt_min": [20.0]})
    return final_particles(chart, n, (1, *flavours))


def final_particles(chart: DecayChart, n: int, ids: tuple[int, ...]) -> EventSample:
    """Events of which the record has final particles only."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(n, chart.n_coordinates)))
    for i, c in enumerate(chart.coordinates):
        if c.periodic:
            x[:, i] = torch.from_numpy(rng.uniform(-np.pi, np.pi, n))
        elif c.name.startswith("logit_mass"):
            x[:, i] = torch.from_numpy(rng.logistic(size=n))
    final, total = chart.inverse(x)
    p = torch.cat([incoming_momenta(total, 0.0, 0.0), final], 1).numpy()
    k = 2 + len(ids)
    rows = {"pdg_id": (21, 1, *ids), "status": (-1, -1, *[1] * len(ids)),
            "mother1": (0, 0, *[1] * len(ids)), "mother2": (0, 0, *[2] * len(ids))}  # fmt: skip
    columns = {name: np.tile(row, n) for name, row in rows.items()}
    columns |= {k: p[..., i].ravel() for i, k in enumerate(("px", "py", "pz", "energy"))}
    columns |= {"mass": np.zeros(k * n), "spin": np.full(k * n, 9.0)}
    columns |= {name: np.zeros(k * n) for name in ("color1", "color2", "lifetime")}
    run = RunInfo((2212, 2212), (6500.0, 6500.0), processes=(Subrun(1, 10.0, 0.1),))
    return EventSample(run, k * np.arange(n + 1), columns, {"process_id": np.ones(n)})


@pytest.mark.parametrize("flavours", [(13, -13), (-11, 12), (5, -5), (22, 22)])
def test_pairs_of_a_resonance_that_no_event_names(flavours: tuple[int, int]) -> None:
    sample = pairs_and_a_jet(3000, flavours)
    process = learned(sample)
    (channel,) = process.channels
    assert isinstance(channel.chart, DecayChart)
    (pair,) = (node for node in channel.chart.nodes if node.children)
    assert isinstance(pair.mass, Peak)
    assert pair.mass.mass == pytest.approx(91.2, abs=0.3)
    check_round_trip(process, sample)


def test_collisions_that_make_a_particle_which_no_event_names() -> None:
    """H -> Z photon: a pair with a peak, and everything together; Z photon alone has none."""
    h, z = Peak(110.0, 140.0, 125.0, 0.004), Peak(20.0, 140.0, 91.2, 2.5)
    nodes = [Node("h", h, (1, 2)), Node("z", z, (3, 4))] + 3 * [Node("a", 0.0)]
    chart = DecayChart(nodes, 1, {"kind": "balanced", "pt_min": []})
    sample = final_particles(chart, 2000, (22, 13, -13))
    process = learned(sample)
    (found,) = (c.chart for c in process.channels)
    assert isinstance(found, DecayChart)
    positions = [n.mass.mass for n in found.nodes if isinstance(n.mass, Peak)]
    assert positions == pytest.approx([125.0, 91.2], rel=2e-3)
    check_round_trip(process, sample)
    chart = DecayChart([Node("s", (150.0, 900.0), (1, 2)), *nodes[1:]], 1, chart.made_by)
    process = learned(final_particles(chart, 2000, (22, 13, -13)))
    assert [len(n.children) for n in process.channels[0].chart.nodes].count(2) == 1


def test_two_bosons_that_decay_alike() -> None:
    """WW -> mu nu mu nu: leptons of one generation, of which each has one partner."""
    w = Peak(20.0, 300.0, 80.4, 2.1)
    nodes = [Node("w", w, (2, 3)), Node("v", w, (4, 5))] + 4 * [Node("a", 0.0)]
    chart = DecayChart(nodes, 2, {"kind": "balanced", "pt_min": [0.0]})
    sample = final_particles(chart, 1000, (-13, 14, 13, -14))
    process = learned(sample)
    (found,) = (c.chart for c in process.channels)
    assert isinstance(found, DecayChart)
    positions = [n.mass.mass for n in found.nodes if isinstance(n.mass, Peak)]
    assert positions == pytest.approx([80.4, 80.4], rel=5e-3)
    check_round_trip(process, sample)


def test_masses_that_are_no_rounding_stay() -> None:
    """A gravitino of 1 keV; a photon's mass from rounded momenta is zero."""
    chart = DecayChart([Node("N", 100.0, (1, 2)), Node("a", 0.0), Node("G", 0.0)], 1,
                       {"kind": "balanced", "pt_min": []})  # fmt: skip
    sample = final_particles(chart, 500, (22, 1000039))
    sample.particles["mass"].reshape(-1, 4)[:, 2:] = 1e-6
    (channel,) = learned(sample).channels
    masses = [channel.chart.fixed_mass(k) for k in range(2)]
    assert dict(zip(channel.classes, masses, strict=True)) == {"22": 0.0, "1000039": 1e-6}
    sample.particles["mass"].reshape(-1, 4)[::2, 3] = 2e-6
    (channel,) = learned(sample).channels
    assert [channel.chart.fixed_mass(k) for k in range(2)] == [0.0, 0.0]


@pytest.mark.parametrize("power", [3, 8, 20])
def test_an_edge_is_no_resonance(power: int) -> None:
    """Masses of two photons that fall from a cut on are no particle's."""
    mass = 100 * np.random.default_rng(2).uniform(size=3000) ** (-1 / power)
    peak = find_peak(mass)
    assert peak is None or not is_narrow(mass, *peak)


def test_broad_humps_of_two_leptons() -> None:
    """A steep spectrum that cuts begin is no particle's; a broad Z' on falling densities is."""
    rng = np.random.default_rng(3)
    pt = 50 * rng.uniform(size=3000) ** (-1 / 5)
    gap = rng.uniform(-0.5, 0.5, (2, 3000))
    edge = pt * np.sqrt(2 * (np.cosh(gap[0] - gap[1]) + 1))
    m = rng.uniform(300, 3000, 200_000)
    shape = (200 / m) ** 3 / ((m**2 - 1e6) ** 2 + 80**2 * 1e6)
    particle = m[rng.uniform(size=len(m)) * shape.max() < shape]
    for mass, known in ((edge, False), (particle, True)):
        peak = find_peak(mass)
        assert peak is not None
        assert 0.05 < peak[1] / peak[0] < 0.1
        assert is_of_leptons(mass, *peak) == known


def test_leptons_without_a_peak_stay_apart() -> None:
    """Nor do two of one generation with the same sign of their ids come from one particle."""
    sample = pairs_and_a_jet(3000, (13, 14))
    assert not isinstance(learned(sample).channels[0].chart, DecayChart)
    smooth = pairs_and_a_jet(3000, (13, -13))
    for k in ("px", "py", "pz", "energy"):
        rows = smooth.particles[k].reshape(-1, 5)
        rows[:, 3] = np.roll(rows[:, 3], 1)  # muons of different events
        rows[:, :2] = 0.0
    p = smooth.momentum.reshape(-1, 5, 4)
    total = torch.from_numpy(p[:, 2:].sum(1))
    for i, k in enumerate(("px", "py", "pz", "energy")):
        incoming = incoming_momenta(total, 0.0, 0.0)[..., i].numpy()
        smooth.particles[k].reshape(-1, 5)[:, :2] = incoming
    assert not isinstance(learned(smooth).channels[0].chart, DecayChart)
