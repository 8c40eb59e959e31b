"""Chart of events with resonances: their production, and a chain of two-body decays for each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.beams import BeamsChart
from hepgen_ml.phase_space.chart import Chart, filled
from hepgen_ml.phase_space.charts import BalancedChart, FixedEnergyChart
from hepgen_ml.phase_space.coordinates import (
    Coordinate,
    azimuth,
    invariant_mass,
    on_shell,
    transverse_momentum,
    two_body_momentum,
    wrap,
)
from hepgen_ml.phase_space.formation import FormationChart
from hepgen_ml.phase_space.frames import from_helicity, from_rest, to_helicity, to_rest
from hepgen_ml.phase_space.masses import (
    MassSpec,
    at_conditions,
    decode_mass,
    encode_mass,
    mass_config,
    mass_spec,
    moves,
)
from hepgen_ml.phase_space.pair import PairChart
from hepgen_ml.phase_space.radiative_return import RadiativeReturnChart

PRODUCTIONS: dict[str, Callable[..., Chart]] = {
    c.kind: c
    for c in (
        BalancedChart,
        FixedEnergyChart,
        BeamsChart,
        RadiativeReturnChart,
        PairChart,
        FormationChart,
    )
}
"""Charts of the particles produced in a collision, by their kind."""


@dataclass(frozen=True)
class Node:
    """A particle of the decay chain.

    Attributes
    ----------
    label : str
    mass : MassSpec
        Mass of the particle, or the largest range of the mass of a particle that decays.
    children : tuple of int
        Nodes that it decays to, two or none; they come after it.
    """

    label: str
    mass: MassSpec
    children: tuple[int, ...] = ()


class DecayChart(Chart):
    r"""Resonances with mass peaks that are right by construction.

    The particles made in the collision have the coordinates of a `BalancedChart` or
    `FixedEnergyChart`, the masses of resonances among them through the Breit-Wigner map
    (`hepgen_ml.phase_space.masses`). Each decay adds the mass of every product whose mass
    varies, between the sum of what that decays to and what its mother leaves,
    and the direction of the first product in the mother's rest frame, as artanh of
    the polar angle's cosine and the azimuth. A decay into more than two is a chain of decays
    into two, through systems without a row in the record.

    Rest frames are those of `hepgen_ml.phase_space.frames`. Where both products of a decay
    decay themselves, as in H -> ZZ* -> four leptons, the amplitude depends on the angle between
    the planes of these decays, which is the sum of their azimuths in their helicity frames. With
    `planes` this angle replaces the second azimuth.

    Measure: that of the production's chart, with :math:`\prod dm` over the other
    masses that vary and :math:`\prod d\cos\theta\, d\phi` over the decays.

    Parameters
    ----------
    nodes : sequence of Node or mapping of its attributes
        Particles made in the collision first, mothers before their products.
    n_made : int
        Number of particles produced in the collision, in the order of the production's chart.
    production : mapping
        Further arguments of the chart of the production: its kind, and
        ``pt_min``, ``total``, or the energies of the beams.
    planes : bool
        Whether the angle between the planes of two decays is a coordinate.

    Attributes
    ----------
    made_by : dict
        Arguments of the chart of the production.
    """

    kind = "decay"

    def __init__(
        self,
        nodes: Sequence[Node | dict[str, Any]],
        n_made: int,
        production: dict[str, Any],
        planes: bool = False,
    ) -> None:
        self.planes = planes
        self.nodes = tuple(
            n if isinstance(n, Node)
            else Node(str(n["label"]), mass_spec(n["mass"]), tuple(int(c) for c in n["children"]))
            for n in nodes
        )  # fmt: skip
        children = tuple(tuple(n.children) for n in self.nodes)
        self.leaves = _leaves(children, n_made)
        super().__init__([self.nodes[i].label for i in self.leaves],
                         [self.nodes[i].mass for i in self.leaves])  # fmt: skip
        self.n_made, self.made_by = n_made, dict(production)
        made = self.nodes[:n_made]
        rest = dict(production)
        self.production = PRODUCTIONS[rest.pop("kind")](
            [n.label for n in made], [n.mass for n in made], **rest
        )
        parts = tuple((n.label, isinstance(n.mass, tuple)) for n in self.nodes)
        arranged = _arranged(parts, children, n_made, planes, self.production.coordinates)
        self._other, self._below, self.coordinates = arranged
        if not self.follows_conditions:
            self._find_least()

    def _find_least(self) -> None:
        """The smallest mass of each node that leaves room for its products."""
        self.least: list[Any] = [0.0] * len(self.nodes)
        for i in reversed(range(len(self.nodes))):
            node = self.nodes[i]
            own = node.mass[0] if isinstance(node.mass, tuple) else node.mass
            products = sum(self.least[c] for c in node.children)
            self.least[i] = _larger(products, own) if node.children else own

    @property
    def follows_conditions(self) -> bool:
        return any(moves(node.mass) for node in self.nodes)

    def with_masses(self, masses: Sequence[Any]) -> Chart:
        """The chart with other masses of its nodes, see `Chart.with_masses`."""
        chart = copy.copy(self)
        chart.nodes = tuple(replace(n, mass=m) for n, m in zip(self.nodes, masses, strict=True))
        chart.masses = tuple(masses[i] for i in self.leaves)
        chart.production = self.production.with_masses(masses[: self.n_made])
        chart._find_least()
        return chart

    def _take(self, values: Tensor) -> None:
        super()._take(values)
        self.nodes = tuple(replace(n, mass=at_conditions(n.mass, values)) for n in self.nodes)
        self.production = self.production.given(values)
        self._find_least()

    def leaves_of(self, i: int) -> list[int]:
        """Final particles, by their place, that a node ends in."""
        return self._below[i]

    def continued(self) -> Chart:
        chart = super().continued()
        assert isinstance(chart, DecayChart)
        chart.production = self.production.continued()
        return chart

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "nodes": [
                {"label": n.label, "mass": mass_config(n.mass), "children": list(n.children)}
                for n in self.nodes
            ],
            "n_made": self.n_made,
            "production": self.made_by,
            **({"planes": True} if self._other else {}),
        }

    def _bounds(self, children: Sequence[int], k: int, mass: Tensor, taken: Tensor) -> Any:
        """Range of the mass of product k of a particle, masses of earlier ones taken."""
        child = self.nodes[children[k]]
        assert isinstance(child.mass, tuple)
        later = sum(self.least[c] for c in children[k + 1 :])
        room = mass - taken - later
        low = filled(room, self.least[children[k]])
        # Never empty: if the mother is too light, the product has its smallest mass.
        return low, torch.maximum(
            torch.minimum(room, filled(room, child.mass[1])), low * (1 + 1e-9) + 1e-9
        )

    def made(self, p: Tensor) -> Tensor:
        return torch.stack([p[..., rows, :].sum(-2) for rows in self._below[: self.n_made]], dim=-2)

    @property
    def made_labels(self) -> tuple[str, ...]:
        return self.production.labels

    def forward(self, p: Tensor) -> Tensor:
        momenta = [p[..., rows, :].sum(-2) for rows in self._below]
        masses: list[Tensor] = []
        for momentum, node in zip(momenta, self.nodes, strict=True):
            if isinstance(node.mass, tuple):
                masses.append(invariant_mass(momentum))
            else:
                masses.append(filled(momentum[..., 0], node.mass))
        made = torch.stack(momenta[: self.n_made], dim=-2)
        columns = list(self.production.forward(made).unbind(-1))
        local = dict(enumerate(momenta[: self.n_made]))
        for i, node in enumerate(self.nodes):
            if not node.children:
                continue
            taken = torch.zeros_like(masses[i])
            for k, child in enumerate(node.children):
                spec = self.nodes[child].mass
                if isinstance(spec, tuple):
                    bounds = self._bounds(node.children, k, masses[i], taken)
                    columns.append(encode_mass(masses[child], spec, *bounds))
                taken = taken + masses[child]
            # What stands in the mother's frame so far, of all that descends from it.
            inside = [q for c in node.children for q in self._descendants(c)]
            frame, mass = local[i].unsqueeze(-2), masses[i].unsqueeze(-1)
            together = torch.stack([(momenta if i < self.n_made else local)[q] for q in inside], -2)
            if i < self.n_made:
                together = to_rest(together, frame, mass, transverse=self.n_made > 1)
            else:
                together = to_helicity(together, frame, mass)
            local |= dict(zip(inside, together.unbind(-2), strict=True))
            first = local[node.children[0]]
            phi = azimuth(first)
            if i in self._other:
                phi = wrap(phi + azimuth(local[self.nodes[self._other[i]].children[0]]))
            columns += [torch.asinh(first[..., 2] / transverse_momentum(first)), phi]
        return torch.stack(columns, dim=-1)

    def _descendants(self, i: int) -> list[int]:
        return [i, *(d for c in self.nodes[i].children for d in self._descendants(c))]

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p, _ = self._walk(x)
        return p, p.sum(-2)

    def log_det(self, x: Tensor) -> Tensor:
        return self._walk(x)[1]

    def _walk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        column = self.production.n_coordinates
        made, _ = self.production.inverse(x[..., :column])
        log_det = self.production.log_det(x[..., :column])
        masses: list[Tensor] = [x.new_zeros(0)] * len(self.nodes)
        local: list[Tensor] = [x.new_zeros(0)] * len(self.nodes)
        azimuths: dict[int, Tensor] = {}
        own, _ = self.production._decode_masses(x)
        for i in range(self.n_made):
            local[i], masses[i] = made[..., i, :], own[..., i]
        for i, node in enumerate(self.nodes):
            if not node.children:
                continue
            taken = torch.zeros_like(masses[i])
            for k, child in enumerate(node.children):
                spec = self.nodes[child].mass
                if isinstance(spec, tuple):
                    low, high = self._bounds(node.children, k, masses[i], taken)
                    masses[child], slope = decode_mass(x[..., column], spec, low, high)
                    log_det = log_det + slope
                    column += 1
                else:
                    masses[child] = filled(taken, spec)
                taken = taken + masses[child]
            a, phi = x[..., column], x[..., column + 1]
            column += 2
            if i in self._other:
                phi = phi - azimuths[self._other[i]]
            azimuths[i] = phi
            sin = 1 / torch.cosh(a)
            log_det = log_det + 2 * torch.log(sin)
            direction = torch.stack([sin * torch.cos(phi), sin * torch.sin(phi), torch.tanh(a)], -1)
            first, second = node.children
            size = two_body_momentum(masses[i], masses[first], masses[second], self.margin)
            for sign, child in ((1, first), (-1, second)):
                local[child] = on_shell(sign * size.unsqueeze(-1) * direction, masses[child])
        return self._in_laboratory(local, masses), log_det

    def _in_laboratory(self, local: list[Tensor], masses: list[Tensor]) -> Tensor:
        """Momenta (..., n, 4) of the leaves, from frame to frame outwards."""
        # Those of all leaves below a node, in the frame in which its own is given.
        seen = [q.unsqueeze(-2) for q in local]
        for i in reversed(range(len(self.nodes))):
            if not self.nodes[i].children:
                continue
            p = torch.cat([seen[c] for c in self.nodes[i].children], dim=-2)
            frame, mass = local[i].unsqueeze(-2), masses[i].unsqueeze(-1)
            if i < self.n_made:
                seen[i] = from_rest(p, frame, mass, transverse=self.n_made > 1)
            else:
                seen[i] = from_helicity(p, frame, mass)
        below = [leaf for rows in self._below[: self.n_made] for leaf in rows]
        place = torch.tensor(below, device=local[0].device).argsort()
        p = torch.cat(seen[: self.n_made], dim=-2)[..., place, :]
        return on_shell(p[..., :3], torch.stack([masses[i] for i in self.leaves], dim=-1))


def _larger(a: Any, b: Any) -> Any:
    """The larger of two masses, numbers or tensors (m,)."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return max(a, b)
    like = a if isinstance(a, Tensor) else b
    return torch.maximum(filled(like, a), filled(like, b))


_Children = tuple[tuple[int, ...], ...]


@lru_cache(10_000)
def _leaves(children: _Children, n_made: int) -> tuple[int, ...]:
    """Nodes that do not decay; ValueError unless decays are into two each, of a tree."""
    seen = [c for i, products in enumerate(children) for c in products if c > i]
    if sorted(seen) != list(range(n_made, len(children))) or any(
        len(products) not in (0, 2) for products in children
    ):
        raise ValueError("decays need two products each, every one of a single mother")
    return tuple(i for i, products in enumerate(children) if not products)


@lru_cache(10_000)
def _arranged(
    parts: tuple[tuple[str, bool], ...],
    children: _Children,
    n_made: int,
    planes: bool,
    production: tuple[Coordinate, ...],
) -> tuple[dict[int, int], list[list[int]], tuple[Coordinate, ...]]:
    """What charts of the same decays share, whatever the masses are.

    Parameters
    ----------
    parts : tuple of (str, bool)
        Label of each node, and whether its mass varies.
    children : tuple of tuple of int
        Products of each node.
    n_made, planes
        As of a `DecayChart`.
    production : tuple of Coordinate
        Of the chart of the production.

    Returns
    -------
    other : dict of int to int
        The decay whose azimuth a decay's own is added to.
    below : list of list of int
        Places of the leaves below each node.
    coordinates : tuple of Coordinate
    """
    other: dict[int, int] = {}
    for products in children:
        if planes and products and all(children[c] for c in products):
            first, second = products
            other[second] = first
    below: list[list[int]] = [[] for _ in children]
    leaves = _leaves(children, n_made)
    for i in reversed(range(len(children))):  # children come after their mother
        products = children[i]
        below[i] = [leaf for c in products for leaf in below[c]] or [leaves.index(i)]
    # Coordinates of a resonance count as its first product's.
    names = [
        Coordinate(c.name, c.periodic, c.cyclic, below[c.particle][0], c.logarithmic)
        for c in production
    ]
    cyclic = any(c.cyclic for c in production)
    for i, products in enumerate(children):
        for child in products:
            label, varies = parts[child]
            if varies:
                name, leaf = f"logit_mass:{label}", below[child][0]
                names.append(Coordinate(name, particle=leaf, logarithmic=True))
        if products:
            label, leaf = parts[products[0]][0], below[products[0]][0]
            angle = "decay_plane" if i in other else "decay_phi"
            names += [
                Coordinate(f"artanh_cos_theta:{label}", particle=leaf),
                # The azimuth of an event that nothing balances is that of its first decay.
                Coordinate(f"{angle}:{label}", periodic=True, cyclic=not cyclic, particle=leaf),
            ]
            cyclic = True
    return other, below, tuple(names)
