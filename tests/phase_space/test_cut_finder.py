"""Cuts are found where there are some, and only there."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import hepgen_ml
from hepgen_ml.phase_space import parse_cut
from hepgen_ml.phase_space.coordinates import (
    azimuth,
    boost,
    from_pt_rapidity_phi,
    pseudorapidity,
    wrap,
)
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.edges import lower_edge
from hepgen_ml.training.data import SampleSource, learn_process


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
    edge = lower_edge(r[:4097], len(r), 0.0)
    assert edge is not None
    assert 0.97 * r[0] < edge.at <= r[0]
    assert lower_edge(r[:65], 500, 0.0) is None  # so few cannot tell
    tail = np.sort(rng.exponential(1.0, 100_000))[::-1]
    assert lower_edge(-tail[:4097], len(tail)) is None


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
    assert found.low == pytest.approx(25 / 55, rel=3e-4)
    assert found.low <= 25 / 55
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
    assert list(map(str, finder.acceptance().cuts)) == ["pt_pair(11, 12) <= 90"]


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


def particles(pt: np.ndarray, eta: np.ndarray, seed: int = 0) -> torch.Tensor:
    """Massless particles, one in each event."""
    phi = np.random.default_rng(seed).uniform(-3, 3, len(pt))
    columns = (torch.from_numpy(np.asarray(v, dtype=float)) for v in (pt, eta, phi, 0 * pt))
    return from_pt_rapidity_phi(*columns)[:, None]


def with_pt(rng: np.random.Generator, low: float, n: int) -> torch.Tensor:
    """Particles whose transverse momenta fall exponentially above a cut."""
    return particles(low + rng.exponential(30, n), rng.uniform(-2, 2, n))


def test_few_charm_jets_have_the_cut_of_others() -> None:
    rng = np.random.default_rng(5)
    finder = CutFinder()
    finder.add(with_pt(rng, 30, 20_000), ["j"])
    finder.add(with_pt(rng, 30, 60), ["4"])
    assert finder.acceptance().pt_min("4") == finder.acceptance().pt_min("j") == 30.0
    finder.add(particles(np.array([12.0]), np.zeros(1)), ["4"])
    assert finder.acceptance().pt_min("4") == 0.0
    assert finder.acceptance().pt_min("j") == 30.0


def test_an_entry_beyond_the_upper_edge_of_relatives_contradicts() -> None:
    """One charm jet of a hundred at 4.9, where all light ones are inside 2.5."""
    rng = np.random.default_rng(6)
    light, charm = rng.uniform(-2.5, 2.5, 20_000), rng.uniform(-2.5, 2.5, 100)
    jets = particles(30 + rng.exponential(30, 20_000), light)
    finder, fewer = CutFinder(), CutFinder()
    finder.add(jets, ["j"])
    fewer.add(jets, ["j"])
    fewer.add(particles(30 + rng.exponential(30, 100), charm), ["4"])
    assert {str(c) for c in fewer.acceptance().cuts} >= {"abs_eta(4) <= 2.5", "abs_eta(j) <= 2.5"}
    charm[17] = 4.9
    finder.add(particles(30 + rng.exponential(30, 100), charm), ["4"])
    etas = [str(c) for c in finder.acceptance().cuts if c.observable == "abs_eta"]
    assert etas == ["abs_eta(j) <= 2.5"]


def test_classes_with_few_entries_show_a_cut_together() -> None:
    """None of them has enough by itself."""
    rng = np.random.default_rng(7)
    finder = CutFinder()
    for name in ("j", "4", "5"):
        finder.add(with_pt(rng, 30, 100), [name])
    for name in ("j", "4", "5"):
        assert finder.acceptance().pt_min(name) == 30.0
    (cut,) = [c for c in finder.acceptance().cuts if str(c) == "30 <= pt(4)"]
    assert cut.evidence[0] is not None
    assert cut.evidence[0].classes == ("j", "4", "5")
    assert cut.evidence[0].entries == 300


def test_a_cut_of_its_own_is_kept() -> None:
    """Bottom jets above 50 GeV beside light ones above 20; charm jets without any."""
    rng = np.random.default_rng(8)
    finder = CutFinder()
    finder.add(with_pt(rng, 20, 20_000), ["j"])
    finder.add(with_pt(rng, 50, 20_000), ["5"])
    assert [finder.acceptance().pt_min(c) for c in ("j", "5")] == [20.0, 50.0]
    soft = 30 * np.sqrt(rng.exponential(1.0, 5_000))
    finder.add(particles(soft, rng.uniform(-2, 2, 5_000)), ["4"])
    assert [finder.acceptance().pt_min(c) for c in ("j", "4", "5")] == [20.0, 0.0, 50.0]


def two_jets(n: int, pt_min: float, seed: int) -> torch.Tensor:
    """Pairs of massless jets that balance, falling as 1/pT⁴."""
    rng = np.random.default_rng(seed)
    pt = pt_min * rng.random(n) ** (-1 / 3)
    y = rng.normal(0, 1.2, (n, 2))
    phi = rng.uniform(-3, 3, n)
    columns = [torch.from_numpy(v) for v in (pt, y[:, 0], y[:, 1], phi, 0 * pt)]
    jets = [from_pt_rapidity_phi(columns[0], columns[k], columns[3] + (k - 1) * math.pi, columns[4])
            for k in (1, 2)]  # fmt: skip
    return torch.stack(jets, dim=1)


@pytest.mark.parametrize("n", [2000, 20_000, 100_000])
def test_the_mass_of_two_jets_has_no_edge_of_its_own(n: int) -> None:
    """It begins at twice their transverse momentum; a cut at any of these stays."""
    p = two_jets(n, 50.0, seed=n)
    finder = CutFinder()
    finder.add(p, ["j", "j"])
    assert [str(c) for c in finder.acceptance().cuts] == ["50 <= pt(j)"]
    q = p.sum(1)
    mass = torch.sqrt(q[:, 3] ** 2 - (q[:, :3] ** 2).sum(1))
    finder = CutFinder()
    finder.add(p[mass > 180.0], ["j", "j"])
    (found,) = [c for c in finder.acceptance().cuts if c.observable == "mass"]
    assert 175.0 < found.low <= 180.0


@pytest.mark.parametrize("seed", range(3))
def test_separate_jets_have_no_cut_in_their_mass(seed: int) -> None:
    """It follows from the cuts in transverse momentum and Delta R."""
    rng = np.random.default_rng(seed)
    n = 60_000
    pt, y = 20 + rng.exponential(25, (n, 2)), rng.normal(0, 1.5, (n, 2))
    phi = rng.uniform(-math.pi, math.pi, (n, 2))
    momenta = [torch.from_numpy(v) for v in (pt, y, phi, 0 * pt)]
    p = from_pt_rapidity_phi(*momenta)
    distance = torch.hypot(
        momenta[1][:, 0] - momenta[1][:, 1], wrap(momenta[2][:, 0] - momenta[2][:, 1])
    )
    finder = CutFinder()
    finder.add(p[distance > 0.4], ["j", "j"], balanced=False)
    assert [str(c) for c in finder.acceptance().cuts] == ["20 <= pt(j)", "0.4 <= delta_r(j, j)"]


@pytest.mark.parametrize("seed", range(3))
def test_small_masses_and_distances_are_rare_by_nature(seed: int) -> None:
    """The fewer, the smaller: a neutrino and a jet have neither cut."""
    rng = np.random.default_rng(seed)
    n = 3_000
    jet = with_pt(rng, 30, n)
    neutrino = particles(25 * np.sqrt(rng.exponential(1, n)), rng.normal(0, 1.5, n), seed=9 + seed)
    finder = CutFinder()
    finder.add(torch.cat([jet, neutrino], dim=1), ["4", "12"], balanced=False)
    assert [str(c) for c in finder.acceptance().cuts] == ["30 <= pt(4)", "abs_eta(4) <= 2"]


@pytest.mark.parametrize("n", [3_000, 60_000])
def test_distances_that_follow_from_a_mass_are_no_cut(n: int) -> None:
    """Muon pairs above 12 GeV of limited momentum are never close to each other."""
    rng = np.random.default_rng(n)
    pt = rng.uniform(3, 40, (n, 2))
    y, phi = rng.normal(0, 1, (n, 2)), rng.uniform(-math.pi, math.pi, (n, 2))
    p = from_pt_rapidity_phi(*(torch.from_numpy(v) for v in (pt, y, phi, 0 * pt)))
    q = p.sum(1)
    mass = torch.sqrt(q[:, 3] ** 2 - (q[:, :3] ** 2).sum(1))
    finder = CutFinder()
    finder.add(p[mass > 12.0], ["11", "13"], balanced=False)
    cuts = [c for c in finder.acceptance().cuts if len(c.classes) == 2]
    assert [c.observable for c in cuts] == ["mass"]
    assert 11.5 < cuts[0].low <= 12.0


def test_without_a_search_only_stated_cuts_count() -> None:
    finder = CutFinder(find=False)
    finder.add(with_pt(np.random.default_rng(0), 30, 20_000), ["j"])
    assert finder.acceptance().cuts == ()
    assert finder.acceptance([parse_cut("pt(j) > 25")]).pt_min("j") == 25.0
    assert finder.range("mass", ("j", "j")) == (-math.inf, math.inf)


def test_the_energy_of_a_beam_is_no_cut_in_rapidity() -> None:
    """Jets above 7 GeV and below the energy of the beam end at arcosh(100/7)."""
    rng = np.random.default_rng(1)
    pt, eta = 7 * rng.random(400_000) ** -0.25, rng.uniform(-4, 4, 400_000)
    inside = pt * np.cosh(eta) < 100 * np.sqrt(rng.random(400_000))
    finder = CutFinder()
    finder.add(particles(pt[inside], eta[inside]), ["j"])
    assert [str(c) for c in finder.acceptance().cuts] == ["7 <= pt(j)"]


def test_few_entries_have_no_cut_of_their_own() -> None:
    """Not where very many of relatives show none: bottom jets that begin at 6 GeV, by chance."""
    rng = np.random.default_rng(8)
    finder, alone = CutFinder(), CutFinder()
    finder.add(particles(30 * np.sqrt(rng.exponential(1, 20_000)), rng.normal(0, 2, 20_000)), ["j"])
    bottom = with_pt(rng, 6, 200)
    for one in (finder, alone):
        one.add(bottom, ["5"])
    assert alone.acceptance().pt_min("5") > 0
    assert finder.acceptance().pt_min("5") == 0


@pytest.mark.parametrize("at", [11.9267123456789, -3.38945123456789, 173.0])
def test_values_that_differ_by_rounding_have_an_edge_below_them(at: float) -> None:
    """Repeated events; the edge was above its values, or the logarithm of zero."""
    rng = np.random.default_rng(1)
    for spread in (1e-16, 1e-15, 1e-12, 1e-9):
        values = np.sort(at * (1 + np.sign(at) * spread * rng.uniform(0, 1, 70)))
        edge = lower_edge(values, 2000)
        if edge is not None:
            assert edge.at <= values[0]
            assert edge.width >= 0
