"""Transverse momenta of the leading particles of a class, the first, the second and so on.

Generators cut on these apart from all particles of the class (``ptj1min`` of MadGraph, photons
above 40 and 30 GeV), as triggers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import transverse_momentum
from hepgen_ml.phase_space.made import base_class

MOST = 4
"""Largest rank at which cuts are searched."""

LEADING = tuple(f"pt{rank}" for rank in range(1, 10))
"""Observables of the particle of each rank in its class, by falling transverse momentum."""

LEPTON = "l"
"""In place of a class: all charged leptons."""

SEARCHED = ("j", "Jet", "22", "11", "13", "15", "4", "5", LEPTON)
"""Classes in which cuts on the leading ones are searched."""

_CHARGED = frozenset(["11", "13", "15"])
_RANKED = re.compile(r"\s*(.*?)\s*(?:(?<=[A-Za-z])|:)\s*([1-9])\s*")


def members(label: str) -> frozenset[str]:
    """Classes that are ordered together, without origins."""
    return _CHARGED if label == LEPTON else frozenset([label])


def class_and_rank(text: str) -> tuple[str, int] | None:
    """Class and rank of ``j1`` or ``22:1``; None for a class alone."""
    match = _RANKED.fullmatch(text)
    return (match[1], int(match[2])) if match else None


def in_words(observable: str, label: str) -> str:
    """Text such as ``pt(j1)`` or ``pt(22:1)``, as the user writes it."""
    between = "" if label[-1:].isalpha() else ":"
    return f"pt({label}{between}{LEADING.index(observable) + 1})"


def places(labels: Sequence[str], label: str) -> list[int]:
    """Places of the particles, of any origin, among which the leading ones are."""
    some = members(label)
    return [i for i, own in enumerate(labels) if base_class(own) in some]


def leading_observables(
    p: Tensor, labels: Sequence[str], wanted: Collection[tuple[str, tuple[str, ...]]]
) -> dict[tuple[str, tuple[str, ...]], Tensor]:
    """Those observables (events, 1) of final states (events, n, 4) that are wanted."""
    found = {}
    for key in wanted:
        if key[0] not in LEADING:
            continue
        at, rank = places(labels, key[1][0]), LEADING.index(key[0]) + 1
        if rank <= len(at):
            pt = transverse_momentum(p[:, at])
            found[key] = torch.kthvalue(pt, len(at) - rank + 1, dim=1).values[:, None]
    return found


def smallest_by_rank(
    low: Callable[..., float], labels: Sequence[str], kinds: Sequence[Hashable]
) -> list[float]:
    """Smallest transverse momentum of each particle, by the cuts on its class and on its rank.

    Parameters
    ----------
    low : callable
        Smallest value of an observable of a class, see `Acceptance.low`.
    labels : sequence of str
        Flavour classes of particles.
    kinds : sequence
        Those of equal kind are ordered by falling transverse momentum. Where other kinds are of
        the same class, the ranks are not known.
    """
    found = [low("pt", label) for label in labels]
    for label in {base_class(label) for label in labels}:
        own = places(labels, label)
        if len({kinds[i] for i in own}) == 1:
            bound = 0.0
            for i, name in reversed(list(zip(own, LEADING, strict=False))):
                bound = max(bound, low(name, label))
                found[i] = max(found[i], bound)
    return found


def ordered(pt: Tensor, inside: npt.NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """The largest transverse momenta (events, k + 1) of particles inside a class, and places.

    Zero where there is none, for k the largest number of particles and at most `MOST`.
    """
    most = int(inside.sum(1).max())
    k = min(most, MOST) + 1
    own = torch.where(torch.from_numpy(inside), pt, -1.0)
    if k > own.shape[1]:
        own = torch.cat([own, -torch.ones_like(own[:, :1])], dim=1)
    top = own.topk(k, dim=1)
    return top.values.clamp_min(0.0), top.indices.clamp_max(pt.shape[1] - 1)
