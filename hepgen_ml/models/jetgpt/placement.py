"""An object whose components are drawn, or given a density, with regard to the objects around."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hepgen_ml.models.jetgpt.pointers import Pointers, Rings, Surroundings, joined


def direction_of(what: Sequence[str]) -> tuple[int, ...]:
    """Which components are pseudorapidity and azimuth; none if not both are there."""
    return tuple(map(what.index, ("eta", "phi"))) if {"eta", "phi"} <= set(what) else ()


class Placement:
    """Components of an object in the order of their factors, each looking at the objects around.

    Parameters
    ----------
    pointers : Pointers
    numbers : sequence of int
        Of the components.
    around : Surroundings
    scales : sequence of (float, float)
        Mean and width with which each is standardised.
    mixtures : sequence of bool
        Which have a density that further components can join.
    """

    def __init__(
        self,
        pointers: Pointers,
        numbers: Sequence[int],
        around: Surroundings,
        scales: Sequence[tuple[float, float]],
        mixtures: Sequence[bool],
    ) -> None:
        self.pointers, self.numbers, self.around = pointers, numbers, around
        self.scales, self.mixtures = scales, mixtures
        self.what = [pointers.what[number] for number in numbers]
        self.direction = direction_of(self.what)
        self._known: list[dict[str, Tensor]] = [{}]  # before each component
        self._seen: list[Tensor] = []
        self._drawn: tuple[Tensor, ...] = ()

    def notice(self, t: int) -> Tensor:
        """Term (m, width) of the token of component t, when those before it are placed."""
        seen, told = self.pointers.notice(self.numbers[t], self.around, self._known[t])
        self._seen.append(seen)
        return told

    def place(self, t: int, z: Tensor) -> None:
        """Component t has these standardised values (m,)."""
        mean, std = self.scales[t]
        self._known.append({**self._known[t], self.what[t]: z * std + mean})

    def notice_all(self, z: Tensor) -> Tensor:
        """Terms (m, T, width) of the tokens of an object with standardised components (m, T)."""
        told = []
        for t in range(len(self.numbers)):
            told.append(self.notice(t))
            self.place(t, z[:, t])
        return torch.stack(told, dim=1)

    def parameters(self, t: int, plain: Tensor, hidden: Tensor) -> Tensor:
        """Parameters of the density of component t, from those without regard to other objects."""
        number, own = self.numbers[t], self._known[t]
        if not self.mixtures[t] or not self.pointers.anchored(number, own):
            return plain
        seen, scale = self._seen[t], self.scales[t]
        return joined(
            plain, self.pointers.anchors(number, self.around, seen, hidden, own, *scale)
        )

    def _rings(self, hidden: Tensor) -> Rings:
        t = min(self.direction)
        return self.pointers.rings(self.numbers[t], self.around, self._seen[t], hidden)

    def log_prob(self, each: Sequence[Tensor], hidden: Tensor) -> Tensor:
        """Log density (m,) of an object, from those of its components (m,) without rings."""
        total = each[0].new_zeros(len(each[0]))
        if self.direction:
            first, second = self.direction
            slope = math.log(self.scales[first][1])
            eta, phi = (self._known[-1][name] for name in ("eta", "phi"))
            plain = each[first] + each[second] - slope
            about = self._rings(hidden[:, min(self.direction)])
            total = total + about.join(plain, eta, phi) + slope
        return total + sum(p for t, p in enumerate(each) if t not in self.direction)

    def draw_rings(self, t: int, hidden: Tensor, generator: torch.Generator | None) -> None:
        """Draw which objects get their direction from a ring, before the first part of it."""
        if self.direction and t == min(self.direction):
            self._drawn = self._rings(hidden).draw(generator)

    def redirect(self, t: int, z: Tensor) -> None:
        """Replace standardised values (m,) of component t by those that rings gave, in place."""
        if t in self.direction:
            (mean, std), (rows, *drawn) = self.scales[t], self._drawn
            z[rows] = (drawn[self.direction.index(t)] - mean) / std
