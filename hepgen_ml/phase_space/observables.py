"""Observables that a cut may bound: of particles, of pairs, and of what a collision makes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    azimuth,
    invariant_mass,
    massless_pt,
    pseudorapidity,
    transverse_momentum,
    wrap,
)
from hepgen_ml.phase_space.leading import LEADING
from hepgen_ml.phase_space.made import Made, base_class, momenta_made, pairs_to_cut

LEPTONS = frozenset(map(str, range(11, 17)))
JETS = frozenset(["j", "4", "5"])
ALL = "all"
"""In place of a class: all that the collision makes."""

SINGLE = ("pt", "abs_eta", "plus", "minus", "energy")
"""Observables of one particle, see `of_single`."""

OF_PAIRS = ("delta_r", "mass", "pt_pair", "pt_hat")
"""Observables of two particles, the last one of all there are."""

Key = tuple[str, tuple[str, ...]]
"""Observable and classes."""


def base_key(key: Key) -> Key:
    """Observable and classes without origins."""
    return key[0], tuple(sorted(map(base_class, key[1])))


def of_single(label: str) -> tuple[str, ...]:
    """Observables of a particle of this class: light-cone momenta of leptons, energy of photons."""
    label = base_class(label)
    if label in LEPTONS:
        return SINGLE[:4]
    return (*SINGLE[:2], "energy") if label == "22" else SINGLE[:2]


def pairs_of(n: int) -> tuple[str, ...]:
    """Observables of pairs among n final particles."""
    return OF_PAIRS if n == 2 else OF_PAIRS[:3]


def particle_observables(
    p: Tensor,
    labels: Sequence[str],
    wanted: Collection[Key] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    single: bool = True,
) -> dict[Key, Tensor]:
    """All observables that a cut may bound.

    Parameters
    ----------
    p : (events, n, 4) tensor
    labels : sequence of n str
        Flavour classes.
    wanted : collection of Key, optional
        Compute these only.
    pairs : sequence of (int, int), optional
        Compute pair observables of these only.
    single : bool
        Compute observables of single particles.

    Returns
    -------
    dict
        (observable, classes) to (events, k) tensor of the k particles or pairs.
    """
    pt, eta = transverse_momentum(p), pseudorapidity(p)
    columns: dict[str, Callable[[list[int]], Tensor]] = {
        "pt": lambda i: pt[:, i],
        "abs_eta": lambda i: eta[:, i].abs(),
        "plus": lambda i: p[:, i, 3] + p[:, i, 2],
        "minus": lambda i: p[:, i, 3] - p[:, i, 2],
        "energy": lambda i: p[:, i, 3],
    }
    found: dict[Key, list[Any]] = {}
    for i, label in enumerate(labels if single else ()):
        for name in of_single(label):
            found.setdefault((name, (label,)), []).append(i)
    for i, j in combinations(range(len(labels)), 2) if pairs is None else pairs:
        classes = tuple(sorted((labels[i], labels[j])))
        for name in pairs_of(len(labels)):
            found.setdefault((name, classes), []).append((i, j))
    return {
        key: columns[key[0]](at) if key[0] in SINGLE else pair_observable(key[0], p, at)
        for key, at in found.items()
        if wanted is None or key in wanted
    }


def pair_observable(name: str, p: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Observable (events, k) of k pairs of the particles (events, n, 4)."""
    i, j = ([pair[k] for pair in pairs] for k in (0, 1))
    if name == "mass":
        return invariant_mass(p[:, i] + p[:, j])
    if name == "pt_pair":
        return transverse_momentum(p[:, i] + p[:, j])
    if name == "pt_hat":
        return massless_pt(p[:, i], p[:, j])
    eta, phi = pseudorapidity(p), azimuth(p)
    return torch.hypot(eta[:, i] - eta[:, j], wrap(phi[:, i] - phi[:, j]))


def made_observables(
    p: Tensor, made: Sequence[Made], wanted: Collection[Key]
) -> dict[Key, Tensor]:
    """Observables that a cut may bound of particles that decay.

    Parameters
    ----------
    p : (events, n, 4) tensor
        Final states.
    made : sequence of Made
        All that the collision makes.
    wanted : collection of Key
        Compute these only.

    Returns
    -------
    dict
        As from `particle_observables`.
    """
    decays = [one.decays for one in made]
    found: dict[Key, list[Any]] = {}
    if any(decays):
        for i in (i for i, one in enumerate(made) if one.decays):
            found.setdefault(("pt", (made[i].label,)), []).append(i)
        for i, j in pairs_to_cut(decays):
            classes = tuple(sorted((made[i].label, made[j].label)))
            found.setdefault(("mass", classes), []).append((i, j))
    found = {key: at for key, at in found.items() if key in wanted}
    if not found:
        return {}
    q = momenta_made(p, [one.places for one in made])
    return {
        key: transverse_momentum(q[:, at]) if key[0] == "pt" else pair_observable(key[0], q, at)
        for key, at in found.items()
    }


def of_whole(observable: str, classes: Sequence[str]) -> bool:
    """Whether an observable is one of whole collisions."""
    return observable == "ht" or ALL in classes


def of_any_origin(observable: str, classes: Sequence[str]) -> bool:
    """Whether an observable counts particles of any origin together."""
    return observable in LEADING or of_whole(observable, classes)


def sum_of_transverse(q: Tensor) -> Tensor:
    """Sum (events,) of the transverse masses of particles (events, k, 4), of jets their pT."""
    return torch.sqrt(((q[..., 3] - q[..., 2]) * (q[..., 3] + q[..., 2])).clamp_min(0.0)).sum(1)


def jets_among(made: Sequence[Made]) -> list[int]:
    """Numbers of the particles made that are partons and do not decay."""
    return [i for i, one in enumerate(made) if not one.decays and base_class(one.label) in JETS]


def whole_observables(
    p: Tensor, labels: Sequence[str], made: Sequence[Made], wanted: Collection[Key]
) -> dict[Key, Tensor]:
    """Observables (events, 1) of whole final states that a cut may bound.

    Parameters
    ----------
    p : (events, n, 4) tensor
    labels : sequence of n str
        Flavour classes.
    made : sequence of Made
        What the collision makes; the final particles if there are none.
    wanted : collection of Key
        Compute these only.
    """
    found: dict[Key, Tensor] = {}
    if ("mass", (ALL,)) in wanted:
        found["mass", (ALL,)] = invariant_mass(p.sum(1))[:, None]
    if ("ht", (ALL,)) in wanted or ("ht", ("j",)) in wanted:
        made = made or [Made(label, (i,)) for i, label in enumerate(labels)]
        q = momenta_made(p, [one.places for one in made])
        jets = jets_among(made)
        if ("ht", (ALL,)) in wanted:
            found["ht", (ALL,)] = sum_of_transverse(q)[:, None]
        if ("ht", ("j",)) in wanted:
            found["ht", ("j",)] = transverse_momentum(q[:, jets]).sum(1, keepdim=True)
    return found
