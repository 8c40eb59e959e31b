"""Cuts on the leading particles of a class."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hepgen_ml.errors import UsageError
from hepgen_ml.phase_space import Acceptance, parse_cut
from hepgen_ml.phase_space.coordinates import from_pt_rapidity_phi, transverse_momentum
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.extremes import FinalStates
from hepgen_ml.phase_space.leading import smallest_by_rank
from hepgen_ml.process.document import CutDocument


def balanced(n: int, n_free: int, least: float, seed: int) -> Tensor:
    """Massless particles above a transverse momentum, and one more that balances them."""
    rng = torch.Generator().manual_seed(seed)
    pt = least * torch.rand(n, n_free, generator=rng, dtype=torch.float64) ** -0.6
    phi = 2 * math.pi * torch.rand(n, n_free, generator=rng, dtype=torch.float64)
    y = torch.randn(n, n_free + 1, generator=rng, dtype=torch.float64) * 1.2
    free = from_pt_rapidity_phi(pt, y[:, :-1], phi, 0 * pt)
    recoil = -free[..., :2].sum(1)
    size = recoil.norm(dim=1)
    last = from_pt_rapidity_phi(
        size, y[:, -1], torch.atan2(recoil[:, 1], recoil[:, 0]), torch.zeros_like(size)
    )
    return torch.cat([free, last[:, None]], dim=1)


def photons(n: int, leading: float, jet: float, seed: int) -> list[FinalStates]:
    """Two above 30 GeV, one of them above another bound, alone or beside a jet."""
    pair, both = balanced(n, 1, leading, seed), balanced(4 * n, 2, 30.0, seed + 1)
    pt = transverse_momentum(both)
    both = both[(pt[:, :2].amax(1) > leading) & (pt[:, 2] > jet)]
    return [FinalStates(pair, ["22", "22"]), FinalStates(both, ["22", "22", "j"])]


def found_in(states: list[FinalStates]) -> Acceptance:
    finder = CutFinder()
    for state in states:
        finder.add_all([state._replace(p=part) for part in state.p.split(5000)])
    return finder.acceptance()


def test_photons_with_two_bounds() -> None:
    seed = 1
    found = found_in(photons(4000, 40.0, 20.0, seed))
    texts = set(map(str, found.cuts))
    assert {"30 <= pt(22)", "40 <= pt(22:1)", "20 <= pt(j)"} <= texts
    assert not [text for text in texts if "ht" in text]  # these follow
    assert all(f.passes(s.p, s.labels).all() for f in [found]
               for s in photons(3000, 40.0, 20.0, seed + 10))  # fmt: skip
    (evidence, _) = next(c for c in found.cuts if c.observable == "pt1").evidence
    assert evidence is not None
    assert Acceptance.from_config(found.to_config()).cuts == found.cuts
    for config in found.to_config():
        CutDocument.model_validate(config)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("jet", [20.0, 90.0])
def test_none_where_all_have_the_same(seed: int, jet: float) -> None:
    """Not where the leading photon has to balance a jet, either."""
    found = found_in(photons(4000, 30.0, jet, seed)[1:])
    assert not [c for c in found.cuts if c.observable in ("pt1", "pt2")]


def test_jets_of_three_ranks() -> None:
    states = []
    for n_free, seed in ((1, 1), (2, 2), (3, 3)):
        p = balanced(20_000, n_free, 20.0, seed)
        pt = transverse_momentum(p).sort(dim=1, descending=True).values
        good = (pt[:, -1] > 20) & (pt[:, 0] > 70)
        good &= pt[:, 1] > 40
        states.append(FinalStates(p[good], ["j"] * (n_free + 1)))
    cuts = {str(c) for c in found_in(states).cuts if c.observable.startswith("pt")}
    assert {"70 <= pt(j1)", "40 <= pt(j2)", "20 <= pt(j)"} <= cuts
    assert not [c for c in cuts if "j3" in c]


def test_leptons_of_any_flavour() -> None:
    states = []
    for k, labels in enumerate((["11", "11"], ["11", "13"], ["13", "13"])):
        p = balanced(12_000, 2, 10.0, k)
        pt = transverse_momentum(p)
        states.append(FinalStates(p[pt[:, :2].amax(1) > 25], [*labels, "23"]))
    cuts = set(map(str, found_in(states).cuts))
    assert {"25 <= pt(l1)", "10 <= pt(11)", "10 <= pt(13)"} <= cuts


def test_masks_are_exact() -> None:
    p = balanced(2000, 3, 20.0, 4)
    labels = ["j", "j of decays", "22", "j"]
    pt = transverse_momentum(p)
    jets = pt[:, [0, 1, 3]].sort(dim=1, descending=True).values
    for text, expected in (
        ("pt(j1) > 60", jets[:, 0] >= 60),
        ("pt(j:2) > 40", jets[:, 1] >= 40),
        ("pt(j3) < 30", jets[:, 2] <= 30),
        ("pt(j4) > 50", jets[:, 0] > 0),  # there are three
        ("pt(Photon1) > 30", pt[:, 2] >= 30),
    ):
        passes = Acceptance([parse_cut(text)]).passes(p, labels)
        assert (passes == expected).all()
        assert (passes.any(), passes.all()) in ((True, False), (True, "j4" in text))
    same = {str(parse_cut(text)) for text in ("pt(22:1) > 40", "pt(Photon1) > 40")}
    assert same == {"40 <= pt(22:1)"}
    assert str(parse_cut("pt(Jet2) < 300")) == "pt(Jet2) <= 300"
    assert str(parse_cut("pt(23) > 100")) == "100 <= pt(23)"


def test_classes_of_other_places_have_channels_of_their_own() -> None:
    acceptance = Acceptance([parse_cut("pt(l1) > 20")])
    assert acceptance.bounds(["11", "13", "j"]) != acceptance.bounds(["12", "13", "j"])
    assert {"11", "13"} <= acceptance.classes
    assert acceptance.bounds(["22", "22"]) == acceptance.bounds(["22", "22"])
    # a rank is among particles of any origin, which may have no other cut
    apart = Acceptance([parse_cut("pt(j of the collision) > 20"), parse_cut("pt(j1) > 100")])
    assert {"j", "j of the collision", "j of decays"} <= apart.classes


@pytest.mark.parametrize("text", ["pt(l) > 20", "mass(l, l) > 20", "pt(all1) > 20", "pt(j0) > 20",
                                  "mass(j1, j) > 20", "pt1(j) > 20", "pt(13 of decays:2) > 20",
                                  "pt(j of the collision1) > 20"])  # fmt: skip
def test_other_ranks_are_no_cuts(text: str) -> None:
    with pytest.raises(UsageError, match="is not a cut"):
        parse_cut(text)


def test_stated_cut_on_leptons_needs_some() -> None:
    finder = CutFinder(find=False)
    finder.add_all([FinalStates(balanced(100, 1, 20.0, 1), ["13", "13"])])
    assert [str(c) for c in finder.acceptance([parse_cut("pt(l1) > 40")]).cuts] == ["40 <= pt(l1)"]
    with pytest.raises(UsageError, match="no particle is of class 'j'"):
        finder.acceptance([parse_cut("pt(j1) > 40")])


def test_charts_know_the_ranks_of_identical_particles() -> None:
    low = Acceptance([parse_cut(t) for t in ("pt(22:1) > 40", "pt(22) > 30", "pt(22:3) > 35")]).low
    labels = ["22", "22", "j"]
    assert smallest_by_rank(low, labels, ["22", "22", "2"]) == [40.0, 30.0, 0.0]
    assert smallest_by_rank(low, [*labels, "22"], [0, 0, 1, 0]) == [40.0, 35.0, 0.0, 35.0]
    # of other mothers, or of a class with several flavours: of unknown rank
    assert smallest_by_rank(low, labels, ["22", "22 of 25", "2"]) == [30.0, 30.0, 0.0]
