"""Cuts are found where there are some, and only there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import hepgen_ml
from hepgen_ml.errors import UsageError
from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space import Acceptance, Cut, parse_cut
from hepgen_ml.phase_space.coordinates import (
    azimuth,
    boost,
    from_pt_rapidity_phi,
    pseudorapidity,
    wrap,
)
from hepgen_ml.phase_space.cuts import CutFinder, _lower_edge, flavour_class
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.training.data import SampleSource, learn_process
from tests.samples import toy_top_pairs, toy_z_jets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pt(Jet)>25", Cut("pt", ("Jet",), low=25.0)),
        (" delta_r( Jet , Muon ) >= 0.4 ", Cut("delta_r", ("13", "Jet"), low=0.4)),
        ("abs_eta(j) < 4.5", Cut("abs_eta", ("j",), high=4.5)),
        ("mass(-6,6) > 400", Cut("mass", ("6", "6"), low=400.0)),
    ],
)
def test_cuts_are_parsed(text: str, expected: Cut) -> None:
    assert parse_cut(text) == expected


@pytest.mark.parametrize("text", ["pt>25", "pt(Jet)", "pt(Jet,Jet)>1", "pt(Foo)>1", "pt(Jet)>nan"])
def test_what_is_no_cut(text: str) -> None:
    with pytest.raises(UsageError, match="is no cut"):
        parse_cut(text)


def test_stated_cuts_hold() -> None:
    """Events outside and their share of the cross section are left out, pT goes into the chart."""
    sample = toy_z_jets(3000)
    source = SampleSource(sample, cuts=[parse_cut("pt(Jet) > 30"), parse_cut("mass(13,13) > 70")])
    process = learn_process(source, seed=0)
    low = {(c.observable, c.classes): c.low for c in process.acceptance.cuts}
    assert low["pt", ("Jet",)] == 30.0
    assert low["mass", ("13", "13")] == 70.0
    kept = sum(len(chunk) for chunk in source.chunks())
    assert 0.3 < kept / len(sample) < 0.95
    assert source.n_unselected == len(sample) - kept
    assert source.run.cross_section == pytest.approx(1500.0 * kept / len(sample))
    charts = [c.chart for c in process.channels if len(c.classes) > 2]
    assert charts[0].pt_min[2] == 30.0
    assert charts[0].resonances[0].mass.low == 70.0


def final_state(n: int, pt_min: float, eta_max: float, seed: int) -> torch.Tensor:
    """Jet, jet and top with exponential spectra above a cut."""
    generator = torch.Generator().manual_seed(seed)

    def u() -> torch.Tensor:
        return torch.rand(n, generator=generator, dtype=torch.float64)

    momenta = []
    for mass, low, high in ((0.0, pt_min, eta_max), (0.0, pt_min, eta_max), (173.0, 0.0, 50.0)):
        # without a cut the density is linear in pT at zero
        pt = low - 30 * torch.log(u()) if low > 0 else 80 * torch.sqrt(-2 * torch.log(u()))
        y = torch.randn(n, generator=generator, dtype=torch.float64) * 2
        y = torch.where(y.abs() < high, y, high * (2 * u() - 1))
        phi = math.pi * (2 * u() - 1)
        momenta.append(from_pt_rapidity_phi(pt, y, phi, torch.full_like(pt, mass)))
    return torch.stack(momenta, dim=1)


CLASSES = ("j", "j", "6")


@pytest.mark.parametrize("seed", range(5))
def test_cuts_are_found(seed: int) -> None:
    finder = CutFinder()
    p = final_state(40_000, 20.0, 2.5, seed)
    eta = torch.asinh(p[..., 2] / torch.hypot(p[..., 0], p[..., 1]))
    phi = torch.atan2(p[..., 1], p[..., 0])
    gap = torch.remainder(phi[:, 0] - phi[:, 1] + math.pi, 2 * math.pi) - math.pi
    p = p[torch.hypot(eta[:, 0] - eta[:, 1], gap) > 0.4]
    for part in p.split(7000):
        finder.add(part, CLASSES)
    cuts = {(c.observable, c.classes): c for c in finder.acceptance().cuts}
    assert cuts[("pt", ("j",))].low == pytest.approx(20.0, abs=1e-9)
    assert cuts[("abs_eta", ("j",))].high == pytest.approx(2.5, abs=1e-9)
    assert cuts[("delta_r", ("j", "j"))].low == pytest.approx(0.4, abs=1e-9)
    assert ("pt", ("6",)) not in cuts
    assert ("delta_r", ("6", "j")) not in cuts


@pytest.mark.parametrize("seed", range(5))
def test_no_event_of_the_sample_is_lost(seed: int) -> None:
    finder = CutFinder()
    p = final_state(20_000, 23.7, 4.1, seed)
    finder.add(p, CLASSES)
    assert finder.acceptance().passes(p, CLASSES).all()


@pytest.mark.parametrize("seed", range(3))
def test_soft_edges_are_found(seed: int) -> None:
    """Jets of radius 0.4 come a little closer than that, some in ten thousand of them."""
    rng = np.random.default_rng(seed)
    r = np.sqrt(rng.uniform(0.4**2, 4.0, 100_000))
    r[:60] = 0.4 - rng.exponential(0.003, 60)
    r.sort()
    edge = np.sqrt(_lower_edge(r[:1025] ** 2, len(r), 0.0))
    assert 0.97 * r[0] < edge <= r[0]
    assert _lower_edge(r[:65] ** 2, 500, 0.0) == 0.0  # so few cannot tell
    tail = np.sort(rng.exponential(1.0, 100_000))[::-1]
    assert _lower_edge(-tail[:1025], len(tail)) == -math.inf


@pytest.mark.parametrize("stray", [5.0, 19.5])
def test_a_stray_event_hides_no_cut(stray: float) -> None:
    p = final_state(40_000, 20.0, 2.5, 0)
    p[17, 0, :2] *= stray / torch.hypot(p[17, 0, 0], p[17, 0, 1])
    finder = CutFinder()
    finder.add(p, CLASSES)
    assert finder.acceptance().pt_min("j") == pytest.approx(20.0)


def test_thresholds_are_no_cuts(shipped_sample: Path) -> None:
    """Masses of a massive and a light particle begin near their sum, the more so in few events."""
    sample = hepgen_ml.read(shipped_sample)[:1500]
    cuts = learn_process(SampleSource(sample), seed=0).acceptance.cuts
    assert ("pt", ("j",)) in [(c.observable, c.classes) for c in cuts]
    assert not [c for c in cuts if c.observable == "mass"]


def test_few_events_give_no_cuts() -> None:
    finder = CutFinder()
    finder.add(final_state(50, 20.0, 2.5, 0), CLASSES)
    assert finder.acceptance().cuts == ()


def test_acceptance_rejects_and_is_stored() -> None:
    acceptance = Acceptance([Cut("pt", ("j",), low=20.0), Cut("abs_eta", ("j",), high=5.0)])
    p = final_state(1000, 10.0, 4.0, 1)
    passes = acceptance.passes(p, CLASSES)
    pt = torch.hypot(p[..., 0], p[..., 1])
    assert torch.equal(passes, (pt[:, :2] > 20.0).all(1))
    again = Acceptance.from_config(acceptance.to_config())
    assert again.cuts == acceptance.cuts
    assert str(acceptance.cuts[0]) == "20 <= pt(j)"


@pytest.mark.parametrize(
    ("pdg_id", "mass", "name"), [(21, 0, "j"), (-5, 0, "j"), (5, 4.7, "5"), (-13, 0.1, "13")]
)
def test_classes(pdg_id: int, mass: float, name: str) -> None:
    assert flavour_class(pdg_id, mass) == name


def test_stated_cuts_reach_everything_they_name() -> None:
    """Pairs of jets, and pairs in events that have nothing else."""
    sample = toy_z_jets(3000)
    for text in ("delta_r(Muon, Muon) < 3.0", "mass(Jet, Jet) > 60"):
        source = SampleSource(sample, cuts=[parse_cut(text)])
        process = learn_process(source, seed=0)
        assert source.n_unselected > 0
        kept = [process.encode(chunk) for chunk in source.chunks()]
        assert sum(map(len, kept)) == len(sample) - source.n_unselected
        assert len(process.encode(sample)) == len(sample) - source.n_unselected
    with pytest.raises(UsageError, match="no particle is of class '11'"):
        learn_process(SampleSource(sample, cuts=[parse_cut("pt(Electron) > 5")]), seed=0)


def test_chunks_of_which_nothing_remains() -> None:
    """A part of a file without a single event inside does not end the training."""
    sample = toy_z_jets(3000)
    process = learn_process(SampleSource(sample), seed=0)
    nothing = process.encode(sample[:0])
    assert len(nothing) == 0
    assert len(Encoded.join([nothing, process.encode(sample[:50])])) == 50


def test_events_without_objects_take_their_cross_section_away() -> None:
    sample = toy_z_jets(3000)
    jets = sample.pdg_id == 93
    counts = np.bincount(sample.event_index, jets, len(sample)).astype(int)
    columns = {name: values[jets] for name, values in sample.particles.items()}
    only = EventSample(sample.run, np.concatenate([[0], np.cumsum(counts)]), columns)
    source = SampleSource(only)
    kept = sum(len(chunk) for chunk in source.chunks())
    assert kept == (counts > 0).sum()
    assert source.run.cross_section == pytest.approx(1500.0 * kept / len(sample))


def test_cuts_take_each_process_its_own_share() -> None:
    """Events with a jet are one process, those without another; a jet cut concerns only one."""
    sample = toy_top_pairs(3000)
    source = SampleSource(sample, cuts=[parse_cut("pt(j) > 40")])
    for _ in source.chunks():
        pass
    without, with_jet = source.run.processes
    assert without.cross_section == pytest.approx(1.5)
    hard = np.hypot(sample.px, sample.py)[sample.offsets[1:] - 1] > 40
    jet = sample.process_id == 1
    assert with_jet.cross_section == pytest.approx(1.5 * hard[jet].mean())


def test_momentum_transfer_from_a_fixed_beam() -> None:
    """Q² > 25 GeV² of an electron of 27.5 GeV along -z is an edge of its light-cone momentum."""
    rng = np.random.default_rng(8)
    n, beam = 40_000, 27.5
    q2 = 25 * rng.random(n) ** -1.0  # falls as 1/Q⁴ above the cut
    y = rng.uniform(0.05, 0.9, n)
    keep = q2 < 0.5 * 4 * beam * 920 * y
    q2, y = q2[keep], y[keep]
    plus, minus = q2 / (2 * beam), 2 * beam * (1 - y)
    phi = rng.uniform(-np.pi, np.pi, len(q2))
    pt = np.sqrt(plus * minus)
    momenta = [pt * np.cos(phi), pt * np.sin(phi), (plus - minus) / 2, (plus + minus) / 2]
    electron = torch.from_numpy(np.stack(momenta, axis=1))
    quark = electron * torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    finder = CutFinder()
    finder.add(torch.stack([electron, quark], dim=1), ["11", "j"])
    assert not any(c.observable == "plus" for c in finder.acceptance().cuts)
    (found,) = [c for c in finder.acceptance(light_cone=True).cuts if c.observable == "plus"]
    assert found.low == pytest.approx(25 / 55, rel=1e-4)
    assert str(parse_cut("plus(11) > 0.45")) == "0.45 <= plus(11)"


def two_bodies(n: int, mass: float, top: float, seed: int) -> torch.Tensor:
    """Massless products of a particle with transverse momenta up to `top` GeV."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator, dtype=torch.float64)

    cos, phi, turn = uniform(-1, 1), uniform(-math.pi, math.pi), uniform(-math.pi, math.pi)
    sin = torch.sqrt(1 - cos**2)
    rest = torch.stack([sin * torch.cos(phi), sin * torch.sin(phi), cos, torch.ones_like(cos)], -1)
    mother = from_pt_rapidity_phi(uniform(0, top), uniform(-2, 2), turn, torch.full((n,), mass))
    size = torch.full((n,), mass, dtype=torch.float64)
    pair = [boost(mass / 2 * sign * rest, mother, size) for sign in (
        torch.ones(4), torch.tensor([-1.0, -1.0, -1.0, 1.0])
    )]  # fmt: skip
    return torch.stack(pair, dim=1)


def test_the_edge_of_a_decay_is_no_cut() -> None:
    """Products of a W of limited transverse momentum are never close to each other."""
    p = two_bodies(60_000, 80.4, 90.0, seed=1)
    finder = CutFinder()
    finder.add(p, ["11", "12"], balanced=False, decays={(0, 1)})
    assert finder.acceptance().cuts == ()


def test_a_cut_on_products_of_a_decay_is_found() -> None:
    p = two_bodies(200_000, 30.0, 400.0, seed=2)
    distance = torch.hypot(
        pseudorapidity(p[:, 0]) - pseudorapidity(p[:, 1]),
        wrap(azimuth(p[:, 0]) - azimuth(p[:, 1])),
    )
    finder = CutFinder()
    finder.add(p[distance > 0.4], ["11", "13"], balanced=False, decays={(0, 1)})
    (found,) = [c for c in finder.acceptance().cuts if c.observable == "delta_r"]
    assert found.low == pytest.approx(0.4, abs=2e-3)


def test_pairs_of_decays_obey_the_cuts_of_others() -> None:
    """A separation that jets of the collision keep and those of a W do not is no cut."""
    rng = torch.Generator().manual_seed(3)
    n = 20_000
    pt = 30 + 50 * torch.rand(n, 2, generator=rng, dtype=torch.float64)
    gap = 0.4 + 2 * torch.rand(n, generator=rng, dtype=torch.float64)
    zero = torch.zeros(n, dtype=torch.float64)
    jets = torch.stack([
        from_pt_rapidity_phi(pt[:, 0], zero, zero, zero),
        from_pt_rapidity_phi(pt[:, 1], gap, zero, zero),
    ], dim=1)  # fmt: skip
    finder = CutFinder()
    finder.add(jets, ["j", "j"], balanced=False)
    assert any(c.observable == "delta_r" for c in finder.acceptance().cuts)
    finder.add(two_bodies(1000, 20.0, 300.0, seed=4), ["j", "j"], balanced=False, decays={(0, 1)})
    assert not any(c.observable == "delta_r" for c in finder.acceptance().cuts)


def test_few_charm_jets_have_the_cut_of_others() -> None:
    rng = np.random.default_rng(5)

    def particles(pt: np.ndarray) -> torch.Tensor:
        phi, y = rng.uniform(-3, 3, len(pt)), rng.uniform(-2, 2, len(pt))
        columns = (torch.from_numpy(v) for v in (pt, y, phi, np.zeros(len(pt))))
        return from_pt_rapidity_phi(*columns)[:, None]

    light, charm = 30 + rng.exponential(30, 20_000), 30 + rng.exponential(30, 60)
    finder = CutFinder()
    finder.add(particles(light), ["j"])
    finder.add(particles(charm), ["4"])
    assert finder.acceptance().pt_min("4") == finder.acceptance().pt_min("j") == 30.0
    finder.add(particles(np.array([12.0])), ["4"])
    assert finder.acceptance().pt_min("4") == 0.0
    assert finder.acceptance().pt_min("j") == 30.0
