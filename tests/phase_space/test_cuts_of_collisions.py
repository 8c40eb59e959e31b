"""Cuts on whole collisions of two particles, and upper ends of slices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hepgen_ml.phase_space import Acceptance, parse_cut
from hepgen_ml.phase_space.coordinates import (
    boost,
    boost_along_beam,
    from_pt_rapidity_phi,
    massless_pt,
    pseudorapidity,
    two_body_momentum,
)
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.extremes import FinalStates
from tests.phase_space.test_cut_finder import two_bodies, two_jets


def massive_pair(
    n: int, pt_hat: float, masses: tuple[float, float], seed: int
) -> torch.Tensor:
    """Pairs with a smallest transverse momentum at the same angle and energy without masses."""
    rng = np.random.default_rng(seed)
    draw = [torch.from_numpy(v) for v in (rng.random(n), rng.normal(0, 1, (n, 2)))]
    hat, y = pt_hat * draw[0] ** (-1 / 3), draw[1]
    root_s = 2 * hat * torch.cosh(y[:, 0])
    m1, m2 = (torch.full_like(hat, m) for m in masses)
    k = two_body_momentum(root_s, m1, m2)
    pt, pz = k / torch.cosh(y[:, 0]), k * torch.tanh(y[:, 0])
    p = torch.stack([pt, 0 * pt, pz, torch.hypot(k, m1)], dim=1)
    q = torch.stack([-pt, 0 * pt, -pz, torch.hypot(k, m2)], dim=1)
    return torch.stack([boost_along_beam(v, torch.sinh(y[:, 1])) for v in (p, q)], dim=1)


def test_a_cut_on_the_transverse_momentum_without_masses() -> None:
    """As Pythia makes it; with their masses some quarks are softer."""
    finder, masses = CutFinder(), {"j": 0.0, "4": 1.5, "5": 4.8}
    for k, (a, b) in enumerate((("j", "j"), ("5", "j"), ("4", "j"), ("5", "5"))):
        p = massive_pair((60_000, 4000, 4000, 300)[k], 7.0, (masses[a], masses[b]), k)
        hat = massless_pt(p[:, 0], p[:, 1])
        assert float(hat.min()) >= 7 * (1 - 1e-12)
        finder.add(p, [a, b])
    acceptance = finder.acceptance()
    found = {c.classes: c.low for c in acceptance.cuts if c.observable == "pt_hat"}
    assert found == {("j", "j"): 7.0, ("5", "j"): 7.0, ("4", "j"): 7.0, ("5", "5"): 7.0}
    for k, (a, b) in enumerate((("j", "j"), ("5", "j"), ("5", "5"))):
        own = masses[a], masses[b]
        least = acceptance.pt_of_pair([a, b], own)
        pt = torch.hypot(*massive_pair(200_000, 7.0, own, 10 + k)[:, 0, :2].T)
        assert least <= float(pt.min()) <= 1.004 * least + 1e-3
    # it holds for events of two particles alone
    soft = massive_pair(10, 3.0, (0.0, 0.0), 20)
    third = from_pt_rapidity_phi(*(torch.full((10,), v, dtype=torch.float64) for v in (9, 0, 1, 0)))
    more = torch.cat([soft, third.unsqueeze(1)], dim=1)
    three = Acceptance([parse_cut("pt_hat(j, j) > 7")])
    assert three.passes(more, ["j", "j", "j"]).all()
    assert not three.passes(soft, ["j", "j"])[massless_pt(soft[:, 0], soft[:, 1]) < 7].any()


@pytest.mark.parametrize("seed", range(3))
def test_the_mass_of_a_resonance_takes_no_cut_of_its_products_away(seed: int) -> None:
    """X of fixed mass to a Z and a photon: the largest pT of massless ones is half its mass."""
    rng = np.random.default_rng(seed)
    n = 20_000
    cos, y = torch.from_numpy(rng.uniform(-1, 1, n)), torch.from_numpy(rng.normal(0, 0.7, n))
    root_s, heavy = torch.full_like(cos, 1000.0), torch.full_like(cos, 91.2)
    k = two_body_momentum(root_s, heavy, 0 * heavy)
    pt, pz = k * torch.sqrt(1 - cos**2), k * cos
    pair = [torch.stack([pt, 0 * pt, pz, torch.hypot(k, heavy)], dim=1),
            torch.stack([-pt, 0 * pt, -pz, k], dim=1)]  # fmt: skip
    p = torch.stack([boost_along_beam(v, torch.sinh(y)) for v in pair], dim=1)[pt > 50]
    finder = CutFinder()
    finder.add(p, ["23", "22"])
    cuts = {str(c) for c in finder.acceptance().cuts}
    assert "50 <= pt(22)" in cuts
    assert not [c for c in cuts if "pt_hat" in c]


def slice_of(p: torch.Tensor, name: str, low: float, high: float) -> list[str]:
    """Cuts that are found in the events of two jets with an observable in a range."""
    whole = p.sum(1)
    values = {
        "pt": torch.hypot(p[:, 0, 0], p[:, 0, 1]),
        "mass": torch.sqrt(whole[:, 3] ** 2 - (whole[:, :3] ** 2).sum(1)),
    }[name]
    finder = CutFinder()
    finder.add(p[(values > low) & (values < high)], ["j", "j"])
    return [str(c) for c in finder.acceptance().cuts]


@pytest.mark.parametrize("n", [6000, 60_000])
def test_samples_in_slices_end_where_the_next_begins(n: int) -> None:
    assert slice_of(two_jets(n, 50.0, seed=n), "pt", 50, 100) == ["50 <= pt(j) <= 100"]
    low, high = slice_of(two_jets(n, 50.0, seed=n), "mass", 0, 250)
    assert low == "50 <= pt(j)"
    assert high.startswith("mass(j, j) <= 25")


def test_half_of_a_fixed_mass_or_energy_is_no_cut() -> None:
    """Transverse momenta of two bodies end there, however the pair moves along the beam."""
    finder = CutFinder()
    p = two_bodies(30_000, 125.0, 1e-9, seed=5)
    finder.add(p, ["5", "5"], decays={(0, 1)})
    finder.add(p, ["22", "22"])
    assert not [c for c in finder.acceptance().cuts if c.observable == "pt"]


def test_the_energy_of_the_beams_is_no_cut_on_a_mass() -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    mass, cos = 100 / (1 + rng.exponential(0.2, n)), rng.uniform(-1, 1, n)
    pt, y, phi = mass / 2 * np.sqrt(1 - cos**2), np.arctanh(cos), rng.uniform(-3, 3, n)
    columns = [torch.from_numpy(v) for v in (pt, y, phi, 0 * pt)]
    other = from_pt_rapidity_phi(columns[0], -columns[1], columns[2] + math.pi, columns[3])
    p = torch.stack([from_pt_rapidity_phi(*columns), other], dim=1)
    finder = CutFinder()
    finder.add(p, ["13", "13"])
    assert [c for c in finder.acceptance().cuts if c.observable == "mass"]
    assert not [c for c in finder.acceptance(slices=False).cuts if c.observable in ("pt", "mass")]


def test_momenta_of_decay_products_have_no_upper_cut() -> None:
    """They end with the mass of what decays."""
    p, finder = slices_of_jets(), CutFinder()
    finder.add_all([FinalStates(p, ["j", "11"])])
    both = {"50 <= pt(11) <= 100", "50 <= pt(j) <= 100"}
    assert {str(c) for c in finder.acceptance().cuts} == both
    finder.add_all([FinalStates(p, ["j", "11"], products=[1])])
    assert {str(c) for c in finder.acceptance().cuts} == {"50 <= pt(11)", "50 <= pt(j) <= 100"}


def slices_of_jets() -> torch.Tensor:
    p = two_jets(20_000, 50.0, seed=2)
    return p[torch.hypot(p[:, 0, 0], p[:, 0, 1]) < 100]


def test_a_cut_on_the_angle_at_fixed_energy() -> None:
    """There it has edges in all observables, none of which is independent of the others."""
    p, finder = two_bodies(10_000, 91.2, 1e-9, seed=6), CutFinder()
    whole = p.sum(1, keepdim=True)  # of the moving pair, whose rapidity is taken away
    p = boost(p, whole * torch.tensor([-1.0, -1.0, -1.0, 1.0]), torch.full((10_000, 1), 91.2))
    eta = pseudorapidity(p[:, 0]).abs()
    finder.add(p, ["11", "11"])
    assert not finder.acceptance(angles=("pt", "abs_eta")).cuts
    finder = CutFinder()
    finder.add(p[eta < 1.5], ["11", "11"])
    assert not finder.acceptance().cuts
    pt, angle = finder.acceptance(angles=("pt", "abs_eta")).cuts
    assert pt.low == pytest.approx(45.6 / math.cosh(1.5), rel=5e-3)
    assert angle.high == pytest.approx(1.5, rel=5e-3)
