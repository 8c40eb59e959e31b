"""Cuts in any observable on the leptons of collisions that those of decays lack."""

from __future__ import annotations

import pytest
import torch

from hepgen_ml.phase_space.coordinates import azimuth, invariant_mass, pseudorapidity, wrap
from hepgen_ml.phase_space.cut_finder import CutFinder
from hepgen_ml.phase_space.cuts import reported
from hepgen_ml.phase_space.extremes import FinalStates
from hepgen_ml.phase_space.made import Made
from hepgen_ml.process.origins import Origins
from hepgen_ml.process.structure import Structure
from tests.phase_space.test_cuts_on_pairs import pair_and_jets

PROMPT, PRODUCT = "13 of the collision", "13 of decays"


def two_prompt_muons(n: int, seed: int) -> torch.Tensor:
    """Two muons of a Z boson above 10 GeV, then two of the collision above 20 GeV."""
    p = pair_and_jets(n, 2, seed)
    return p[(p[:, 2:, :2].norm(dim=2) < 500).all(1)]


def cuts_of(p: torch.Tensor) -> list[str]:
    labels = ["13 of decays"] * 2 + ["13"] * 2
    made = [Made("23", (0, 1)), Made("13", (2,)), Made("13", (3,))]
    finder = CutFinder()
    finder.add_all([FinalStates(p, labels, True, {(0, 1)}, (0, 1), made)])
    return [str(c) for c in reported(finder.acceptance().cuts)]


def distance(p: torch.Tensor, i: int, j: int) -> torch.Tensor:
    eta, phi = pseudorapidity(p), azimuth(p)
    return torch.hypot(eta[:, i] - eta[:, j], wrap(phi[:, i] - phi[:, j]))


@pytest.mark.parametrize("seed", [1, 2])
def test_pseudorapidities(seed: int) -> None:
    p = two_prompt_muons(20_000, seed)
    cuts = cuts_of(p[(pseudorapidity(p)[:, 2:].abs() < 2.0).all(1)])
    assert f"abs_eta({PROMPT}) <= 2" in cuts
    assert f"20 <= pt({PROMPT}) <= 500" in cuts
    assert not [c for c in cuts if "abs_eta" in c and PRODUCT in c]


@pytest.mark.parametrize("seed", [1, 2])
def test_distances(seed: int) -> None:
    p = two_prompt_muons(40_000, seed)
    cuts = cuts_of(p[distance(p, 2, 3) > 0.7])
    assert f"0.7 <= delta_r({PROMPT}, {PROMPT})" in cuts
    assert not [c for c in cuts if "delta_r" in c and PRODUCT in c]
    both = torch.stack([distance(p, i, j) for i in (0, 1) for j in (2, 3)]).amin(0)
    cuts = cuts_of(p[both > 0.7])
    assert [c for c in cuts if "delta_r" in c] == [f"0.7 <= delta_r({PRODUCT}, {PROMPT})"]


@pytest.mark.parametrize("seed", [1, 2])
def test_masses(seed: int) -> None:
    p = two_prompt_muons(40_000, seed)
    mass = invariant_mass(p[:, 2] + p[:, 3])
    cuts = cuts_of(p[(mass > 50) & (mass < 300)])
    assert f"50 <= mass({PROMPT}, {PROMPT}) <= 300" in cuts
    assert not [c for c in cuts if "mass" in c and PRODUCT in c]


def test_leptons_of_chains_of_decays() -> None:
    """W+ -> tau+ nu, tau+ -> e+ nu nu beside an electron and a positron of the collision."""
    rows = [
        (2, -1, 0, 0), (-1, -1, 0, 0), (24, 2, 1, 2), (-15, 2, 3, 3), (16, 1, 3, 3),
        (-11, 1, 4, 4), (12, 1, 4, 4), (-16, 1, 4, 4), (11, 1, 1, 2), (-11, 1, 1, 2),
    ]  # fmt: skip
    structure = Structure(1, *map(tuple, zip(*rows, strict=True)))
    origins = Origins()
    origins.add([structure])
    classes = [str(abs(structure.pdg_id[row])) for row in structure.final]
    labels = origins.labels(structure, classes)
    assert labels == [
        "16 of decays", "11 of decays", "12 of decays", "16 of decays", "11", "11",
    ]  # fmt: skip
    made = {(one.label, one.places) for one in origins.made(structure, labels)}
    assert made == {("24", (0, 1, 2, 3)), ("11", (4,)), ("11", (5,))}
    # without the row of the W boson, that of the tau lepton tells which positron is its product
    rows = [(i, s, 1, 2) if a == 3 else (i, s, a - (a > 3), b - (b > 3)) for i, s, a, b in rows
            if i != 24]  # fmt: skip
    other = Structure(1, *map(tuple, zip(*rows, strict=True)))
    origins.add([other])
    found = origins.labels(other, [str(abs(other.pdg_id[row])) for row in other.final])
    assert found == labels
    assert {(one.label, one.places) for one in origins.made(other, found)} == made
