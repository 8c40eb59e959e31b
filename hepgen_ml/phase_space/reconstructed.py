"""Chart of reconstructed objects: leptons, photons and jets without the partons behind them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hepgen_ml.phase_space.chart import Chart, filled
from hepgen_ml.phase_space.coordinates import (
    Coordinate,
    azimuth,
    expit_between,
    from_pt_rapidity_phi,
    invariant_mass,
    log_above,
    logit_between,
    on_shell,
    pseudorapidity,
    transverse_momentum,
    two_body_momentum,
    wrap,
)
from hepgen_ml.phase_space.frames import from_helicity, from_rest, to_helicity, to_rest
from hepgen_ml.phase_space.free_masses import decode_free_mass, encode_free_mass, free_mass
from hepgen_ml.phase_space.masses import (
    Bound,
    Peak,
    at_conditions,
    decode_mass,
    encode_mass,
    moves,
)
from hepgen_ml.phase_space.resonance import Resonance


class ReconstructedChart(Chart):
    r"""Reconstructed objects of a detector or an analysis, without momentum balance.

    Every object has :math:`\log(p_T - p_T^{min})`, pseudorapidity, azimuth and, if its mass is
    free, :math:`\log(m + 0.02 GeV)`. Azimuths are relative to the first object, whose own
    is cyclic. An object that follows one of its kind has the logit of
    :math:`p_T - p_T^{min}` as a fraction of its predecessor's instead: transverse momenta are
    ordered by construction. (The reference papers have absolute azimuths, unordered momenta, and
    :math:`\log m^2`: arXiv:2305.10475, equation 26.)

    The objects of a resonance have coordinates of their own, and go first: their free masses, its
    mass through the Breit-Wigner map, its :math:`\log p_T`, rapidity and azimuth (the first
    one's is then cyclic), and for a chain of two-body decays, each of one object and the system of
    those after it: the mass of that system between its bounds (not of the last object), and
    the direction of the object in the rest frame (`hepgen_ml.phase_space.frames`), as
    artanh of the polar angle's cosine and the azimuth. In this way the peak is a feature of one
    coordinate and not a correlation of many.

    The map is one-to-one between the events with ordered transverse momenta and those coordinates
    that lead to them. Coordinates of a resonance may put its objects out of order, among
    themselves or with others of their kind: `allows` tells, and such draws are to be rejected,
    like those outside cuts. An object between two of its kind that are placed already has the
    logit of its place between their transverse momenta, one before such an object the logarithm
    of what it has more.

    Free masses below 0.2 MeV are zero, a smeared atom, see
    `hepgen_ml.phase_space.free_masses`.

    Measure: :math:`\prod d^3p_i \prod dm` over the free masses; for a mass of zero the Gaussian
    stands for it.

    Parameters
    ----------
    labels : sequence of str
    masses : sequence of float or None
        In GeV; None where free.
    pt_min : sequence of float
        Smallest transverse momentum in GeV of each object; not used for those of resonances.
    ordered : sequence of bool
        Whether the transverse momentum of an object is at most that of the one before it.
    resonances : sequence of Resonance or mapping of its attributes
        No object belongs to two of them.
    """

    kind = "reconstructed"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[float | None],
        pt_min: Sequence[float],
        ordered: Sequence[bool],
        resonances: Sequence[Resonance | dict[str, Any]] = (),
    ) -> None:
        super().__init__(labels, [m or 0.0 for m in masses])
        if not len(masses) == len(pt_min) == len(ordered):
            raise ValueError("a chart needs one mass, pT and order per object")
        self.free = tuple(m is None for m in masses)
        self.pt_min = tuple(float(v) for v in pt_min)
        self.ordered = tuple(bool(v) for v in ordered)
        if self.ordered[0]:
            raise ValueError("an ordered object needs one before it")
        self.resonances = tuple(
            r if isinstance(r, Resonance) else Resonance.from_config(r) for r in resonances
        )
        n = len(self.labels)
        inside = [i for r in self.resonances for i in r.objects]
        if not set(inside) <= set(range(n)) or len(set(inside)) != len(inside) or any(
            len(r.objects) < 2 for r in self.resonances
        ):  # fmt: skip
            raise ValueError("a resonance needs two or more objects of its own")
        self.single = tuple(i for i in range(n) if i not in inside)
        self._following = [self._next_placed(i) for i in range(n)]
        self.coordinates = tuple(self._names())

    @property
    def follows_conditions(self) -> bool:
        return any(moves(r.mass) for r in self.resonances)

    def _take(self, values: Tensor) -> None:
        self.resonances = tuple(
            replace(r, mass=at_conditions(r.mass, values)) for r in self.resonances
        )

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Objects in the order of their coordinates, those of a resonance together."""
        return (*(r.objects for r in self.resonances), *((i,) for i in self.single))

    def _next_placed(self, i: int) -> int | None:
        """The next object of the kind of object i that is placed before it."""
        for j in range(i + 1, len(self.labels)):
            if not self.ordered[j]:
                return None
            if j not in self.single:
                return j
        return None

    def _names(self) -> list[Coordinate]:
        names: list[Coordinate] = []
        for number, r in enumerate(self.resonances):
            for k, i in enumerate(r.objects):
                if self.free[i]:
                    name = f"log_mass:{r.label}>{k + 1}"
                    names.append(Coordinate(name, particle=i, logarithmic=True))
            i = r.objects[0]
            names += [
                Coordinate(f"logit_mass:{r.label}", particle=i, logarithmic=True),
                Coordinate(f"log_pt:{r.label}", particle=i, logarithmic=True),
                Coordinate(f"rapidity:{r.label}", particle=i),
                Coordinate(f"phi:{r.label}", periodic=True, cyclic=number == 0, particle=i),
            ]
            for k, i in enumerate(r.objects[:-1]):
                label = f"{r.label}>{k + 1}" if k else r.label
                if k < len(r.objects) - 2:
                    names.append(
                        Coordinate(f"logit_mass:{r.label}>{k + 2}", particle=r.objects[k + 1],
                                   logarithmic=True)
                    )  # fmt: skip
                names += [
                    Coordinate(f"artanh_cos_theta:{label}", particle=i),
                    Coordinate(f"decay_phi:{label}", periodic=True, particle=i),
                ]
        for i in self.single:
            label, first = self.labels[i], not names
            kind = "logit_pt" if self.ordered[i] else "log_pt"
            names += [
                Coordinate(f"{kind}:{label}", particle=i, logarithmic=True),
                Coordinate(f"eta:{label}", particle=i),
                Coordinate(f"phi:{label}", periodic=True, cyclic=first, particle=i),
            ]
            if self.free[i]:
                names.append(Coordinate(f"log_mass:{label}", particle=i, logarithmic=True))
        return names

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "masses": [None if f else m for f, m in zip(self.free, self.masses, strict=True)],
            "pt_min": list(self.pt_min),
            "ordered": list(self.ordered),
            "resonances": [r.to_config() for r in self.resonances],
        }

    def fixed_mass(self, i: int) -> float | None:
        return None if self.free[i] else super().fixed_mass(i)

    def allows(self, p: Tensor) -> Tensor:
        pt = transverse_momentum(p)
        good = torch.ones_like(pt[..., 0], dtype=torch.bool)
        for i, ordered in enumerate(self.ordered):
            if ordered and not {i - 1, i} <= set(self.single):
                good &= pt[..., i] <= pt[..., i - 1]
        return good

    def forward(self, p: Tensor) -> Tensor:
        columns: list[Tensor] = []
        phi = azimuth(p)
        pt = dict(enumerate(transverse_momentum(p).unbind(-1)))
        reference: Tensor | None = None
        for r in self.resonances:
            q = p[..., r.objects, :].sum(-2)
            turn = azimuth(q)
            relative = turn if reference is None else wrap(turn - reference)
            columns += self._encode_resonance(r, p, q, relative)
            reference = turn if reference is None else reference
        for i in self.single:
            low = self._least(i, pt)
            if self.ordered[i]:
                position = logit_between(pt[i], low, self._most(i, pt, low))
            else:
                position = log_above(pt[i], low)
            turn = phi[..., i] if reference is None else wrap(phi[..., i] - reference)
            reference = phi[..., i] if reference is None else reference
            columns += [position, pseudorapidity(p[..., i, :]), turn]
            if self.free[i]:
                columns.append(encode_free_mass(p[..., i, :], pt[i]))
        return torch.stack(columns, dim=-1)

    def _least(self, i: int, pt: Mapping[int, Tensor]) -> Bound:
        """Smallest transverse momentum that object i may have, given those placed before it."""
        j = self._following[i]
        return self.pt_min[i] if j is None else pt[j].clamp_min(self.pt_min[i])

    def _most(self, i: int, pt: Mapping[int, Tensor], low: Bound) -> Tensor:
        """Largest one of an object that follows another."""
        most = pt[i - 1]
        return most if i - 1 in self.single else _above(most, low)

    def _range(self, r: Resonance, masses: Sequence[Tensor]) -> tuple[Bound, Bound]:
        """Bounds of the mass of a resonance whose objects have these masses."""
        assert isinstance(r.mass, Peak)
        first: Any = r.mass.low
        if isinstance(first, Tensor):  # of a peak at conditions
            low = torch.maximum(torch.stack(tuple(masses)).sum(0), first)
            return low, _above(filled(low, r.mass.high), low)
        if not any(self.free[i] for i in r.objects):
            return max(r.mass.low, sum(self._mass(i) for i in r.objects)), r.mass.high
        low = torch.stack(tuple(masses)).sum(0).clamp_min(r.mass.low)
        if math.isinf(r.mass.high):
            return low, r.mass.high
        # Never empty: heavy objects get their smallest invariant mass.
        return low, _above(torch.full_like(low, r.mass.high), low)

    def _mass(self, i: int) -> float:
        mass = self.masses[i]
        assert isinstance(mass, float)
        return mass

    def _encode_resonance(self, r: Resonance, p: Tensor, q: Tensor, phi: Tensor) -> list[Tensor]:
        """Coordinates of the objects of a resonance of momentum q, phi among them."""
        columns, masses, n = [], [], len(r.objects)
        for i in r.objects:
            if self.free[i]:
                columns.append(encode_free_mass(p[..., i, :], transverse_momentum(p[..., i, :])))
                masses.append(free_mass(p[..., i, :]))
            else:
                masses.append(torch.full_like(phi, self._mass(i)))
        systems = [p[..., r.objects[k:], :].sum(-2) for k in range(n - 1)]
        m = [invariant_mass(s) for s in systems]
        mt = torch.sqrt(q[..., 0] ** 2 + q[..., 1] ** 2 + m[0] ** 2)
        columns += [
            encode_mass(m[0], r.mass, *self._range(r, masses)),
            log_above(transverse_momentum(q), 0.0),
            torch.asinh(q[..., 2] / mt),
            phi,
        ]
        local = [to_rest(p[..., i, :], q, m[0]) for i in r.objects]
        for k in range(n - 1):
            if k > 0:
                frame = torch.stack(local[k:]).sum(0)
                local[k:] = [to_helicity(v, frame, m[k]) for v in local[k:]]
            if k < n - 2:
                columns.append(logit_between(m[k + 1], *_room(m[k], masses[k:])))
            first = local[k]
            columns += [torch.asinh(first[..., 2] / transverse_momentum(first)), azimuth(first)]
        return columns

    def _decode_resonance(
        self, r: Resonance, columns: Iterator[Tensor], reference: Tensor | None
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Momenta of the objects of a resonance, its azimuth, and log-determinant."""
        n_free = sum(self.free[i] for i in r.objects)
        values = list(islice(columns, 3 * len(r.objects) + n_free))
        masses, log_det, take = [], torch.zeros_like(values[0]), iter(values)
        for i in r.objects:
            if self.free[i]:
                mass, slope = decode_free_mass(next(take))
                log_det = log_det + slope
            else:
                mass = torch.full_like(values[0], self._mass(i))
            masses.append(mass)
        mass, slope = decode_mass(next(take), r.mass, *self._range(r, masses))
        log_pt, y, phi = next(take), next(take), next(take)
        if reference is not None:
            phi = phi + reference
        # d3p1 d3p2 = E1 E2 (p*/m) d4q dOmega for each decay; d4q = m dm pT dpT dphi dy, and
        # dcos = sin^2 da.
        log_det = log_det + slope + 2 * log_pt
        frames = [(from_pt_rapidity_phi(torch.exp(log_pt), y, phi, mass), mass)]
        momenta: list[Tensor] = []
        for k in range(len(r.objects) - 1):
            rest = masses[-1]
            if k < len(r.objects) - 2:
                t, (low, high) = next(take), _room(mass, masses[k:])
                rest = expit_between(t, low, high)
                log_det = log_det + torch.log(high - low) + logsigmoid(t) + logsigmoid(-t)
            a, psi = next(take), next(take)
            size, sin = two_body_momentum(mass, masses[k], rest, self.margin), 1 / torch.cosh(a)
            direction = torch.stack([sin * torch.cos(psi), sin * torch.sin(psi), torch.tanh(a)], -1)
            one, other = (s * size.unsqueeze(-1) * direction for s in (1, -1))
            momenta.append(_in_laboratory(on_shell(one, masses[k]), frames, masses[k]))
            frames.append((on_shell(other, rest), rest))
            log_det = log_det + torch.log(size) + 2 * torch.log(sin)
            mass = rest
        momenta.append(_in_laboratory(frames[-1][0], frames[:-1], masses[-1]))
        for p in momenta:
            log_det = log_det + torch.log(p[..., 3])
        return momenta, phi, log_det

    def _walk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (..., n, 4) and log-determinant."""
        momenta: list[Tensor] = [x.new_zeros(0)] * len(self.labels)
        reference: Tensor | None = None
        log_det = torch.zeros_like(x[..., 0])
        columns = iter(x.unbind(-1))
        for r in self.resonances:
            found, phi, slope = self._decode_resonance(r, columns, reference)
            log_det = log_det + slope
            reference = phi if reference is None else reference
            for i, p in zip(r.objects, found, strict=True):
                momenta[i] = p
        pt = {i: transverse_momentum(momenta[i]) for r in self.resonances for i in r.objects}
        for i in self.single:
            t, eta, phi, low = next(columns), next(columns), next(columns), self._least(i, pt)
            if self.ordered[i]:
                high = self._most(i, pt, low)
                pt[i] = expit_between(t, low, high)
                log_det = log_det + torch.log(high - low) + logsigmoid(t) + logsigmoid(-t)
            else:
                pt[i] = low + torch.exp(t)
                log_det = log_det + t
            if reference is None:
                reference = phi
            else:
                phi = phi + reference
            mass = torch.full_like(t, self._mass(i))
            if self.free[i]:
                mass, slope = decode_free_mass(next(columns))
                log_det = log_det + slope
            p3 = [pt[i] * torch.cos(phi), pt[i] * torch.sin(phi), pt[i] * torch.sinh(eta)]
            momenta[i] = on_shell(torch.stack(p3, -1), mass)
            log_det = log_det + 2 * torch.log(pt[i]) + torch.log(torch.cosh(eta))
        return torch.stack(momenta, dim=-2), log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p, _ = self._walk(x)
        return p, p.sum(-2)

    def log_det(self, x: Tensor) -> Tensor:
        return self._walk(x)[1]


def _in_laboratory(p: Tensor, frames: Sequence[tuple[Tensor, Tensor]], mass: Tensor) -> Tensor:
    """Momentum given in the last of a chain of rest frames, from frame to frame outwards."""
    for q, m in reversed(frames[1:]):
        p = from_helicity(p, q, m)
    return on_shell(from_rest(p, *frames[0])[..., :3], mass)


def _room(mass: Tensor, masses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Bounds of the mass of all objects but the first of a system with this mass."""
    low = torch.stack(tuple(masses[1:])).sum(0)
    return low, _above(mass - masses[0], low)


def _above(value: Tensor, low: Bound) -> Tensor:
    """An upper bound that is above the lower one."""
    least = low * (1 + 1e-9) + 1e-9
    return torch.maximum(value, least) if isinstance(least, Tensor) else value.clamp_min(least)
