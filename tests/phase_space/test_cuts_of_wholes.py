"""Slices of sums over all that a collision makes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hepgen_ml.phase_space import Acceptance, parse_cut
from hepgen_ml.phase_space.coordinates import boost, from_pt_rapidity_phi, invariant_mass
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.extremes import FinalStates
from hepgen_ml.phase_space.implied import without_implied
from hepgen_ml.phase_space.made import Made
from hepgen_ml.phase_space.smallest import Seen
from tests.phase_space.recoils import jets_and_boson

Z = 91.2


def z_with_jets(n: int, n_jets: int, seed: int) -> FinalStates:
    """Jets above 20 GeV and a Z boson that recoils, which becomes two equal parts."""
    jets, pt, y, phi = jets_and_boson(n, n_jets, torch.Generator().manual_seed(seed))
    z = from_pt_rapidity_phi(pt, y, phi, torch.full_like(pt, Z))
    p = torch.cat([jets, z[:, None] / 2, z[:, None] / 2], dim=1)
    classes = ["j"] * (n_jets - 1) + ["4", "11", "11"]
    made = [*(Made(c, (k,)) for k, c in enumerate(classes[:-2])), Made("23", (n_jets, n_jets + 1))]
    pair = (n_jets, n_jets + 1)
    return FinalStates(p, classes, True, {pair}, pair, made)


def observable(state: FinalStates, name: str) -> Tensor:
    p = state.p
    if name == "mass(all)":
        return invariant_mass(p.sum(1))
    pt = torch.hypot(p[:, :-2, 0], p[:, :-2, 1]).sum(1)
    if name == "ht(j)":
        return pt
    z = p[:, -2:].sum(1)
    return pt + torch.sqrt(z[:, 0] ** 2 + z[:, 1] ** 2 + Z**2)


def sliced(name: str, low: float, high: float, seed: int, n: int = 20_000) -> list[FinalStates]:
    states = [z_with_jets(n // k, k, 10 * seed + k) for k in (1, 2, 3)]
    values = [observable(s, name) for s in states]
    return [
        s._replace(p=s.p[(v > low) & (v < high)]) for s, v in zip(states, values, strict=True)
    ]


def found_in(states: list[FinalStates]) -> Acceptance:
    finder = CutFinder()
    finder.add_all(states)
    return finder.acceptance()


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("ht(j)", 100, 200), ("ht(j)", 0, 100), ("ht(all)", 250, 400), ("mass(all)", 300, 600)],
)
def test_slices_of_sums(name: str, low: float, high: float) -> None:
    """Of one, two and three jets; they exclude no other event of the slice."""
    acceptance = found_in(sliced(name, low, high, seed=1))
    cuts = {str(c).replace(" <= ", "|").split("|")[low > 0]: c for c in acceptance.cuts}
    assert cuts[name].high == pytest.approx(high, rel=4e-3)
    if low:
        assert cuts[name].low == pytest.approx(low, rel=4e-3)
    others = [c for k, c in cuts.items() if k != name]
    assert {str(c) for c in others} <= {"20 <= pt(j)", "20 <= pt(4)"}
    n, bad = 0, 0
    for state in sliced(name, low, high, seed=2):
        n += len(state.p)
        bad += int((~acceptance.passes(state.p, state.labels, state.made)).sum())
    assert n > 4000
    assert bad <= 1
    own = Acceptance([cuts[name]])
    for state in (z_with_jets(2000, k, 77 + k) for k in (1, 2, 3)):
        values = observable(state, name)
        inside = (values >= cuts[name].low) & (values <= cuts[name].high)
        assert (own.passes(state.p, state.labels, state.made) == inside).all()


@pytest.mark.parametrize("seed", range(3))
def test_sums_without_slices_have_no_cut(seed: int) -> None:
    acceptance = found_in(sliced("ht(j)", 0, math.inf, seed))
    assert {str(c) for c in acceptance.cuts} <= {"20 <= pt(j)", "20 <= pt(4)"}


def test_stated_cuts_on_sums() -> None:
    state = z_with_jets(1000, 2, 5)
    for text in ("ht(j) > 90", "ht(all) > 250", "mass(all) < 400"):
        cut = parse_cut(text)
        values = observable(state, text.split()[0])
        good = Acceptance([cut]).passes(state.p, state.labels, state.made)
        assert (good == (values >= cut.low) & (values <= cut.high)).all()
        again = Acceptance.from_config(Acceptance([cut]).to_config())
        assert again.cuts == (cut,)
    finder = CutFinder()
    finder.add_all([state])
    assert str(finder.acceptance([parse_cut("mass(all) < 400")]).cuts[-1]) == "mass(all) <= 400"


def photon_and_pair(n: int, least: float, seed: int) -> FinalStates:
    """A photon of an energy above a smallest one, and a pair, in collisions of 200 GeV."""
    rng = torch.Generator().manual_seed(seed)

    def isotropic() -> Tensor:
        v = torch.randn(n, 3, generator=rng, dtype=torch.float64)
        return v / v.norm(dim=1, keepdim=True)

    root, share = 200.0, torch.rand(n, generator=rng, dtype=torch.float64)
    energy = least * (90 / least) ** share
    photon = torch.cat([energy[:, None] * isotropic(), energy[:, None]], dim=1)
    rest = torch.tensor([0.0, 0.0, 0.0, root]) - photon
    mass, direction = invariant_mass(rest), isotropic()
    pair = [boost(torch.cat([s * mass[:, None] / 2 * direction, mass[:, None] / 2], dim=1), rest,
                  mass) for s in (1, -1)]  # fmt: skip
    made = [Made("22", (0,)), Made("13", (1,)), Made("13", (2,))]
    return FinalStates(torch.stack([photon, *pair], dim=1), ["22", "13", "13"], True, (), (), made)


def test_smallest_energies_of_photons_at_fixed_energy() -> None:
    state, finder = photon_and_pair(6000, 10.0, 3), CutFinder()
    finder.add_all([state])
    assert not [c for c in finder.acceptance(slices=False).cuts if c.observable == "energy"]
    cuts = finder.acceptance(slices=False, energies=True).cuts
    (cut,) = [c for c in cuts if c.observable == "energy"]
    assert cut.low == pytest.approx(10.0, rel=2e-3)
    soft = photon_and_pair(2000, 5.0, 4)
    good = Acceptance([parse_cut("energy(22) > 10")]).passes(soft.p, soft.labels)
    assert (good == (soft.p[:, 0, 3] >= 10)).all()
    # the edge is that of a decay if the photon comes from one
    finder = CutFinder()
    finder.add_all([state._replace(products=[0])])
    found = finder.acceptance(slices=False, energies=True).cuts
    assert not [c for c in found if c.observable == "energy"]


@pytest.mark.parametrize("text", ["ht(j) > 50", "pt(23) > 50"])
def test_stated_cuts_exclude_what_stands_alone(text: str) -> None:
    """A Z boson without any parton has no transverse momentum, and no sum of them."""
    jet = z_with_jets(3000, 1, 5)
    alone = z_with_jets(3000, 1, 6)
    p = alone.p[:, 1:].clone()
    p[..., 0] = torch.tensor([30.0, -30.0])  # of the two products
    p[..., 1] = 0.0
    p[..., 3] = torch.sqrt(30.0**2 + p[..., 2] ** 2)
    p[:, 1, 0] *= 1 + 1e-12  # as rounded in files
    alone = FinalStates(p, ["11", "11"], True, {(0, 1)}, (0, 1), [Made("23", (0, 1))])
    acceptance = Acceptance([parse_cut(text)])
    assert not acceptance.passes(alone.p, alone.labels, alone.made).any()
    assert acceptance.passes(jet.p, jet.labels, jet.made).any()
    assert acceptance.concerned(alone.made)
    # nor is a cut found that would exclude it, or one in what is rounded
    pt = jet.p[:, 0, :2].norm(dim=1)
    found = found_in([alone, jet._replace(p=jet.p[pt > 50])])
    assert {c.observable for c in found.cuts if "23" in c.classes or "j" in c.classes} <= {"pt"}
    assert found.passes(alone.p, alone.labels, alone.made).all()
    assert not found_in([alone]).cuts


def test_sums_of_partons_with_masses_alone() -> None:
    state = z_with_jets(1000, 1, 5)  # a charm quark
    finder = CutFinder(find=False)
    finder.add_all([state])
    (cut,) = finder.acceptance([parse_cut("ht(j) > 50")]).cuts
    assert str(cut) == "50 <= ht(j)"


def test_flavours_that_sums_count_have_channels_of_their_own() -> None:
    acceptance = Acceptance([parse_cut("ht(j) > 50")])
    assert acceptance.bounds(["23", "j", "j"]) != acceptance.bounds(["23", "11", "11"])


@pytest.mark.parametrize("first", [0, 1])
def test_ends_of_momenta_follow_from_the_smallest_end_of_a_mass(first: int) -> None:
    masses = [parse_cut("mass(j, j) < 500"), parse_cut("mass(5, j) > 20")]
    cuts = [masses[first], masses[1 - first], parse_cut("pt(j) < 300")]
    seen = {(c.observable, c.classes): Seen() for c in cuts}
    seen["pt", ("j",)].alone, seen["pt", ("j",)].entries = False, 1000
    assert {str(c) for c in without_implied(cuts, seen)} == {str(c) for c in masses}
