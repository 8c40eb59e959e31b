"""Scale choices of generators as functions of the momenta.

A choice has a name, which models store:

===================  =========================================================================
``constant``         1 GeV
``ht``               sum of transverse masses
``sqrt_shat``        energy of the collision
``geometric_mean_mt``  geometric mean of transverse masses
``min_mt``           smallest transverse mass (Pythia's factorisation scale of two particles)
``max_pt, min_pt``   largest and smallest transverse momentum
``pair_mt``          transverse mass of the two heaviest particles together
``massless_pt``      transverse momentum that two particles would have without their masses, at
                     equal angle and energy of the collision (Pythia, where matrix elements are
                     massless)
``mass:i,j,...``     mass of some particles together
``mt:i,j,...``       their transverse mass
``kt:i,j``           transverse momentum of the softer of two particles to the other, in the rest
                     frame of the collision (POWHEG, emissions off the final state)
``core_mt:i,...``    geometric mean of the transverse masses of the two heaviest particles in
                     their rest frame, to the axis of the first incoming parton less particles
                     i, ...: the scale after clustering all others into the beams, where these
                     went to the first (MadGraph)
``mean:p:terms``     ``(sum c T^(p/2))^(1/p)``, for p = 0 ``prod T^(c/2)``; see `Mean`
===================  =========================================================================

Particles are counted from 0 among those made in the collision, resonances rather than what
they decay to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import (
    boost,
    invariant_mass_squared,
    massless_pt,
    reverse,
    transverse_momentum,
)

_MAX_EMISSIONS = 4
MAX_PAIRED = 5
"""Largest number of particles of which pairs are tried."""


@dataclass(frozen=True)
class Mean:
    """A mean of squared scales: arithmetic of any power, or geometric.

    Attributes
    ----------
    power : int
        Of the scales that are added: 1 or 2; 0 for the geometric mean.
    terms : tuple of (float, str, int, float)
        Coefficient c, and the squared scale T in GeV²: ``mt2``, the squared transverse mass of
        particle i, with its own mass or (where it is not nan) with the mass given; ``s``, the
        squared energy of the collision; ``one``, 1 GeV².
    """

    power: int
    terms: tuple[tuple[float, str, int, float], ...]

    def __str__(self) -> str:
        parts = []
        for c, kind, i, mass in self.terms:
            at = "" if kind != "mt2" else f".{i}" + ("" if math.isnan(mass) else f"@{mass:.12g}")
            parts.append(f"{c:.12g}*{kind}{at}")
        return f"mean:{self.power}:{' '.join(parts)}"

    @classmethod
    def parse(cls, name: str) -> Mean:
        """Inverse of `str`; raises ValueError for anything else."""
        _, power, text = name.split(":")
        if power not in ("0", "1", "2"):
            raise ValueError(f"unknown scale {name!r}")
        terms = []
        for part in text.split(" "):
            match = _TERM.fullmatch(part)
            if match is None:
                raise ValueError(f"unknown scale {name!r}")
            mass = float(match[4]) if match[4] else math.nan
            terms.append((float(match[1]), match[2], int(match[3] or 0), mass))
        return cls(int(power), tuple(terms))

    def __call__(self, final: Tensor) -> Tensor:
        """Scale (events,) of momenta (events, n, 4), in GeV."""
        total = torch.zeros_like(final[:, 0, 0])
        for c, kind, i, mass in self.terms:
            total = total + c * powered(squared_scale(final, kind, i, mass), self.power)
        if self.power == 0:
            return torch.exp(total / 2)
        return total.clamp_min(0.0) ** (1 / self.power)


_TERM = re.compile(r"([-+.0-9e]{1,30})\*(mt2|s|one)(?:\.(\d{1,3})(?:@([-+.0-9e]{1,30}))?)?")


def squared_scale(final: Tensor, kind: str, i: int, mass: float) -> Tensor:
    """Squared scale of one term of a `Mean`, in GeV²."""
    if kind == "one":
        return torch.ones_like(final[:, 0, 0])
    if kind == "s":
        return invariant_mass_squared(final.sum(1)).clamp_min(1e-12)
    p = final[:, i]
    own = invariant_mass_squared(p).clamp_min(0.0) if math.isnan(mass) else mass**2
    return (transverse_momentum(p) ** 2 + own).clamp_min(1e-12)


def powered(squared: Tensor, power: int) -> Tensor:
    """A scale to this power, its logarithm twice for 0, from its square."""
    return torch.log(squared) if power == 0 else squared ** (power / 2)


def formula(name: str, incoming: Tensor, final: Tensor) -> Tensor:
    """A scale choice by its name, see the module.

    Parameters
    ----------
    name : str
    incoming : (events, 2, 4) tensor
    final : (events, n, 4) tensor
        Momenta in GeV of what is made in the collision.

    Returns
    -------
    (events,) tensor, GeV

    Raises
    ------
    ValueError
        An unknown name.
    """
    kind, _, argument = name.partition(":")
    if kind == "mean":
        return Mean.parse(name)(final)
    if kind in _WITHOUT_ARGUMENT:
        return _WITHOUT_ARGUMENT[kind](final)
    if kind not in ("mass", "mt", "kt", "core_mt"):
        raise ValueError(f"unknown scale {name!r}")
    rows = [int(text) for text in argument.split(",") if text]
    if kind == "core_mt":
        return _core_mt(rows, incoming, final)
    if kind == "kt":
        return _relative_pt(rows, final)
    p = final[:, rows].sum(1)
    squared = invariant_mass_squared(p)
    if kind == "mt":
        squared = squared + transverse_momentum(p) ** 2
    return torch.sqrt(squared.clamp_min(1e-12))


def mass_squared(final: Tensor) -> Tensor:
    """Squared masses of momenta (..., 4), not below zero."""
    return invariant_mass_squared(final).clamp_min(0.0)


def _mt(final: Tensor) -> Tensor:
    return torch.sqrt(transverse_momentum(final) ** 2 + mass_squared(final))


def _pair_mt(final: Tensor) -> Tensor:
    pair = final[:, _heaviest(mass_squared(final))].sum(1)
    return torch.sqrt(
        invariant_mass_squared(pair).clamp_min(1e-12) + transverse_momentum(pair) ** 2
    )


def _massless_pt(final: Tensor) -> Tensor:
    return massless_pt(final[:, 0], final[:, 1])


def _relative_pt(rows: Sequence[int], final: Tensor) -> Tensor:
    total = final.sum(1)
    mass = torch.sqrt(invariant_mass_squared(total).clamp_min(1e-12))
    i, j = (boost(final[:, r], reverse(total), mass) for r in rows)
    sizes = [torch.sqrt((p[:, :3] ** 2).sum(1)).clamp_min(1e-9) for p in (i, j)]
    cos = (i[:, :3] * j[:, :3]).sum(1) / (sizes[0] * sizes[1])
    softer = torch.minimum(i[:, 3], j[:, 3])
    return torch.sqrt((2 * softer**2 * (1 - cos)).clamp_min(1e-12))


def _core_mt(emitted: Sequence[int], incoming: Tensor, final: Tensor) -> Tensor:
    mass2 = mass_squared(final)
    heavy = _heaviest(mass2)
    pair = final[:, heavy].sum(1)
    axis = incoming[:, 0]
    for i in emitted:
        axis = axis - final[:, i]
    pair_mass = torch.sqrt(invariant_mass_squared(pair).clamp_min(1e-12))
    inside = boost(final[:, heavy[0]], reverse(pair), pair_mass)[:, :3]
    axis = boost(axis, reverse(pair), pair_mass)[:, :3]
    along = (inside * axis).sum(1) ** 2 / (axis**2).sum(1).clamp_min(1e-12)
    pt2 = ((inside**2).sum(1) - along).clamp_min(0.0)
    return torch.exp(0.25 * torch.log((pt2.unsqueeze(1) + mass2[:, heavy]).clamp_min(1e-12)).sum(1))


def _heaviest(mass2: Tensor) -> list[int]:
    """Columns of the two heaviest particles, in the order of the event."""
    order = mass2.mean(0).argsort(descending=True, stable=True)[:2]
    return sorted(order.tolist())


_WITHOUT_ARGUMENT: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": lambda p: torch.ones_like(p[:, 0, 0]),
    "ht": lambda p: _mt(p).sum(1),
    "sqrt_shat": lambda p: torch.sqrt(invariant_mass_squared(p.sum(1)).clamp_min(1e-12)),
    "geometric_mean_mt": lambda p: torch.exp(torch.log(_mt(p).clamp_min(1e-6)).mean(1)),
    "min_mt": lambda p: _mt(p).amin(1),
    "max_pt": lambda p: transverse_momentum(p).amax(1),
    "min_pt": lambda p: transverse_momentum(p).amin(1),
    "pair_mt": _pair_mt,
    "massless_pt": _massless_pt,
}


def formula_names(final: Tensor) -> list[str]:
    """Scale choices to be tried for momenta (events, n, 4), simple ones first."""
    n = final.shape[1]
    names = ["constant", "ht", "sqrt_shat", "geometric_mean_mt", "min_mt"]
    if n == 1:
        return names
    mass2 = mass_squared(final)
    heavy = _heaviest(mass2)
    others = [i for i in range(n) if i not in heavy]
    names += ["pair_mt", "max_pt", "min_pt"]
    if n == 2:
        names.append("massless_pt")
    if len(others) <= _MAX_EMISSIONS:
        for size in range(len(others) + 1):
            names += [f"core_mt:{','.join(map(str, s))}" for s in combinations(others, size)]
    if 2 < n <= MAX_PAIRED:
        pairs = [",".join(map(str, pair)) for pair in combinations(range(n), 2)]
        names += [f"{kind}:{pair}" for kind in ("mass", "mt", "kt") for pair in pairs]
        names += [f"mt:{i}" for i in range(n)]
    return names


_WORDS = {
    "ht": "H_T, the sum of transverse masses", "sqrt_shat": "√ŝ",
    "geometric_mean_mt": "geometric mean of the transverse masses",
    "min_mt": "smallest transverse mass", "max_pt": "largest pT", "min_pt": "smallest pT",
    "pair_mt": "transverse mass of the two heaviest particles together",
    "massless_pt": "pT of massless particles at the same angle and √ŝ",
}  # fmt: skip

_WORDS_OF = {"mass": "mass of {}", "mt": "transverse mass of {}", "kt": "relative pT of {}"}


def in_words(name: str, factor: float = 1.0, labels: Sequence[str] = ()) -> str:
    """Description of a scale choice.

    Parameters
    ----------
    name : str
    factor : float
        That it is multiplied by.
    labels : sequence of str
        Names of the particles made in the collision; counted from 1 without them.
    """
    kind, _, argument = name.partition(":")

    def particle(i: int) -> str:
        return labels[i] if i < len(labels) else f"particle {i + 1}"

    if kind == "constant":
        return f"{factor:.6g} GeV"
    if kind == "mean":
        text = _mean_in_words(Mean.parse(name), particle)
    elif kind == "core_mt":
        text = "mean transverse mass of the two heaviest particles in their rest frame"
        if rows := [particle(int(i)) for i in argument.split(",") if i]:
            text += f", {' and '.join(rows)} radiated off the first beam"
    elif kind in _WORDS:
        text = _WORDS[kind]
    else:
        rows = [particle(int(i)) for i in argument.split(",") if i]
        text = _WORDS_OF.get(kind, kind + " {}").format(" + ".join(rows))
    return text if abs(factor - 1) < 1e-9 else f"{factor:.6g} × {text}"


def _mean_in_words(mean: Mean, particle: Callable[[int], str]) -> str:
    def scale(kind: str, i: int, mass: float) -> str:
        if kind != "mt2":
            return "√ŝ" if kind == "s" else "GeV"
        if math.isnan(mass):
            return f"mT({particle(i)})"
        return f"√(pT({particle(i)})² + ({mass:.6g} GeV)²)"

    if mean.power == 0:
        return " · ".join(f"{scale(*t[1:])}^{t[0]:.3g}" for t in mean.terms)
    power = "²" if mean.power == 2 else ""
    text = ""
    for factor, kind, i, mass in mean.terms:
        size = "" if abs(abs(factor) - 1) < 1e-9 and kind != "one" else f"{abs(factor):.3g} "
        sign = (" - " if factor < 0 else " + ") if text else ("-" if factor < 0 else "")
        text += f"{sign}{size}{scale(kind, i, mass)}{power}"
    return f"√({text})" if mean.power == 2 else text
