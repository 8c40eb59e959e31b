"""Slices in the transverse momentum of a pair that the record does not name."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hepgen_ml.phase_space import Acceptance, parse_cut
from hepgen_ml.phase_space.coordinates import boost, from_pt_rapidity_phi, transverse_momentum
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.extremes import FinalStates
from hepgen_ml.phase_space.made import Made
from tests.phase_space.recoils import jets_and_boson


def pair_and_jets(n: int, n_jets: int, seed: int) -> Tensor:
    """Jets above 20 GeV, and two massless particles above 10 GeV that a boson becomes."""
    rng = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=rng, dtype=torch.float64)

    jets, pt, y, phi = jets_and_boson(n, n_jets, rng)
    mass = 91.2 + 2.5 * torch.tan((uniform(n) - 0.5) * 2.8)
    boson = from_pt_rapidity_phi(pt, y, phi, mass)
    cosine, angle = 2 * uniform(n) - 1, 2 * math.pi * uniform(n)
    sine = torch.sqrt(1 - cosine**2)
    unit = torch.stack([sine * torch.cos(angle), sine * torch.sin(angle), cosine], dim=1)
    half = mass[:, None] / 2
    one = boost(torch.cat([unit * half, half], dim=1), boson, mass)
    p = torch.cat([one[:, None], (boson - one)[:, None], jets], dim=1)
    return p[(transverse_momentum(p[:, :2]) > 10).all(1)]


def states(
    flavours: tuple[int, ...], low: float, high: float, seed: int, row: bool = False
) -> list[FinalStates]:
    """Of one jet and of two, without or with the row of the boson."""
    found = []
    for n_jets in (1, 2):
        for flavour in map(str, flavours):
            p = pair_and_jets(12_000, n_jets, seed + n_jets + int(flavour))
            pt = transverse_momentum(p[:, :2].sum(1))
            labels = [flavour, flavour] + ["j"] * n_jets
            made = [Made("23", (0, 1))] if row else [Made(flavour, (0,)), Made(flavour, (1,))]
            made += [Made("j", (2 + k,)) for k in range(n_jets)]
            pairs = {(0, 1)} if row else set()
            found.append(FinalStates(p[(pt > low) & (pt < high)], labels, True, pairs,
                                     (0, 1) if row else (), made))  # fmt: skip
    return found


def found_in(some: list[FinalStates]) -> Acceptance:
    finder = CutFinder()
    finder.add_all(some)
    return finder.acceptance()


def on_pairs(some: list[FinalStates]) -> list[str]:
    return [str(c) for c in found_in(some).cuts if c.observable == "pt_pair"]


@pytest.mark.parametrize("seed", range(2))
def test_slices_are_found(seed: int) -> None:
    some = states((11, 13), 60.0, 150.0, 10 * seed)
    found = found_in(some)
    texts = [str(c) for c in found.cuts if c.observable == "pt_pair"]
    assert texts == ["60 <= pt_pair(11, 11) <= 150", "60 <= pt_pair(13, 13) <= 150"]
    assert not [c for c in found.cuts if c.observable == "ht" and c.low > 0]  # that follows
    assert all(found.passes(s.p, s.labels, s.made).all()
               for s in states((11, 13), 60.0, 150.0, 10 * seed + 5))  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("flavour", [13, 22])
def test_none_without_slices(seed: int, flavour: int) -> None:
    assert not on_pairs(states((flavour,), 0.0, math.inf, 10 * seed))


def test_what_other_cuts_say() -> None:
    """The recoil against one jet, and the resonance that the record names."""
    one_jet = states((22,), 50.0, math.inf, 3)[:1]
    found = found_in(one_jet)
    assert found.pt_min("j") == pytest.approx(50.0)
    assert not on_pairs(one_jet)
    named = states((13,), 60.0, 150.0, 4, row=True)
    assert "60 <= pt(23) <= 150" in map(str, found_in(named).cuts)
    assert not on_pairs(named)
    # the row is missing in some events
    mixed = [*named, *(s._replace(p=s.p[::10]) for s in states((13,), 60.0, 150.0, 5))]
    assert on_pairs(mixed) == ["60 <= pt_pair(13, 13) <= 150"]


def test_masks_of_pairs_are_exact() -> None:
    p = pair_and_jets(1000, 2, 1)
    pt = transverse_momentum(p[:, :2].sum(1))
    cut = parse_cut("pt_pair(Muon, Muon) > 60")
    assert str(cut) == "60 <= pt_pair(13, 13)"
    passes = Acceptance([cut]).passes(p, ["13", "13", "j", "j"])
    assert (passes == (pt >= 60)).all()
    bounds = [Acceptance([cut]).bounds([c, c, "j"]) for c in ("13", "11")]
    assert bounds[0] != bounds[1]
