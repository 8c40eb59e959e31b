"""Chart of reconstructed objects: leptons, photons and jets without the partons behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.chart import Chart
from hepgen_ml.phase_space.coordinates import (
    Coordinate,
    azimuth,
    boost,
    boost_along_beam,
    expit_between,
    invariant_mass_squared,
    log_above,
    logit_between,
    on_shell,
    pseudorapidity,
    reverse,
    rotate_about_beam,
    transverse_momentum,
    two_body_momentum,
    wrap,
)
from hepgen_ml.phase_space.masses import Peak, decode_mass, encode_mass

MASSLESS = 2e-4
"""Free masses below this, in GeV, are taken as zero: a jet of a single photon, and rounding."""

_MASS_OFFSET = 0.02
_ATOM = (-0.5, 0.1)


@dataclass(frozen=True)
class Pair:
    """Two objects of fixed mass that come from a resonance.

    Attributes
    ----------
    first, second : int
        Which objects of the chart.
    mass, width : float
        Position and width of the peak in GeV; they shape the coordinate and need not be exact.
    low, high : float
        Range of the pair's mass in GeV; `high` may be infinite.
    """

    first: int
    second: int
    mass: float
    width: float
    low: float
    high: float = math.inf

    @property
    def peak(self) -> Peak:
        """The same as the specification of a mass."""
        return Peak(self.low, self.high, self.mass, self.width)


class ReconstructedChart(Chart):
    r"""Objects as a detector or an analysis sees them; nothing balances.

    Every object has :math:`\log(p_T - p_T^{min})`, pseudorapidity, azimuth and, if its mass is
    free, :math:`\log(m + 0.02 GeV)`. Azimuths are relative to the first object, whose own
    is cyclic. An object that follows one of its kind has the logit of
    :math:`p_T - p_T^{min}` as a fraction of its predecessor's instead: transverse momenta
    are ordered whatever a network does. (The reference papers have absolute azimuths, unordered
    momenta, and :math:`\log m^2`: arXiv:2305.10475, equation 26.)

    The pair of a resonance has coordinates of its own, and goes first: its mass through the
    Breit-Wigner map, its :math:`\log p_T`, rapidity and azimuth (then the cyclic one), and the
    direction of its first object in its rest frame, reached by a boost along the beam
    and one along the transverse momentum, as artanh of the polar angle's cosine and the
    azimuth. A peak that all other coordinates would have to conspire for is so the density
    of one.

    Masses below 0.2 MeV are zero. They are an atom in the distribution, which a density can
    only hold if it is spread: such a mass is given a coordinate about a Gaussian far below
    all others, its place taken from the last digits of the transverse momentum.

    Measure: :math:`\prod d^3p_i \prod dm` over the free masses; for a mass of zero the Gaussian
    stands for it.

    Parameters
    ----------
    labels : sequence of str
    masses : sequence of float or None
        In GeV; None where free.
    pt_min : sequence of float
        Smallest transverse momentum in GeV of each object; not used for the pair's.
    ordered : sequence of bool
        Whether an object has no more transverse momentum than the one before it.
    pair : Pair or mapping of its attributes, optional
    """

    kind = "reconstructed"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[float | None],
        pt_min: Sequence[float],
        ordered: Sequence[bool],
        pair: Pair | dict[str, Any] | None = None,
    ) -> None:
        super().__init__(labels, [m or 0.0 for m in masses])
        if not len(masses) == len(pt_min) == len(ordered):
            raise ValueError("a chart needs one mass, pT and order per object")
        self.free = tuple(m is None for m in masses)
        self.pt_min = tuple(float(v) for v in pt_min)
        self.ordered = tuple(bool(v) for v in ordered)
        if isinstance(pair, dict):
            ends = (-math.inf if pair["low"] is None else pair["low"], pair["high"])
            high = math.inf if ends[1] is None else float(ends[1])
            pair = Pair(int(pair["first"]), int(pair["second"]), float(pair["mass"]),
                        float(pair["width"]), float(ends[0]), high)  # fmt: skip
        self.pair = pair
        paired = () if pair is None else (pair.first, pair.second)
        n = len(self.labels)
        if any(not 0 <= i < n or self.free[i] for i in paired) or len(set(paired)) != len(paired):
            raise ValueError("a pair needs two different objects of fixed mass")
        self.single = tuple(i for i in range(n) if i not in paired)
        if any(self.ordered[i] and (i == 0 or i - 1 not in self.single) for i in range(n)):
            raise ValueError("an ordered object needs one before it")
        self.coordinates = tuple(self._names())

    def _names(self) -> list[Coordinate]:
        names: list[Coordinate] = []
        if self.pair is not None:
            i = self.pair.first
            label = self.labels[i] + "," + self.labels[self.pair.second]
            names += [
                Coordinate(f"logit_mass:{label}", particle=i, logarithmic=True),
                Coordinate(f"log_pt:{label}", particle=i, logarithmic=True),
                Coordinate(f"rapidity:{label}", particle=i),
                Coordinate(f"phi:{label}", periodic=True, cyclic=True, particle=i),
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
        pair = None if self.pair is None else asdict(self.pair)
        if pair is not None and math.isinf(pair["high"]):
            pair["high"] = None
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "masses": [None if f else m for f, m in zip(self.free, self.masses, strict=True)],
            "pt_min": list(self.pt_min),
            "ordered": list(self.ordered),
            "pair": pair,
        }

    def fixed_mass(self, i: int) -> float | None:
        return None if self.free[i] else super().fixed_mass(i)

    def forward(self, p: Tensor) -> Tensor:
        columns: list[Tensor] = []
        reference = azimuth(p[..., 0, :])
        if self.pair is not None:
            q = p[..., self.pair.first, :] + p[..., self.pair.second, :]
            m2 = invariant_mass_squared(q)
            reference = azimuth(q)
            local = self._rest_frame(p[..., self.pair.first, :], q, m2, reference)
            columns += [
                encode_mass(torch.sqrt(m2), self.pair.peak, self.pair.low, self.pair.high),
                log_above(transverse_momentum(q), 0.0),
                torch.asinh(q[..., 2] / _transverse_mass(q, m2)),
                reference,
                torch.asinh(local[..., 2] / transverse_momentum(local)),
                azimuth(local),
            ]
        bound = None
        for i in self.single:
            here = p[..., i, :]
            pt = transverse_momentum(here)
            if self.ordered[i]:
                assert bound is not None
                position = logit_between(pt, self.pt_min[i], bound)
            else:
                position = log_above(pt, self.pt_min[i])
            phi = azimuth(here)
            phi = wrap(phi - reference) if columns else phi
            columns += [position, pseudorapidity(here), phi]
            if self.free[i]:
                columns.append(_encode_mass(here, pt))
            bound = pt
        return torch.stack(columns, dim=-1)

    @staticmethod
    def _rest_frame(p: Tensor, q: Tensor, m2: Tensor, phi: Tensor) -> Tensor:
        """Momentum of the pair's first object in the rest frame of the pair q."""
        mt = _transverse_mass(q, m2)
        local = rotate_about_beam(boost_along_beam(p, -q[..., 2] / mt), -phi)
        zero = torch.zeros_like(mt)
        across = torch.stack([transverse_momentum(q), zero, zero, mt], dim=-1)
        return boost(local, reverse(across), torch.sqrt(m2))

    def _walk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (..., n, 4) and log-determinant."""
        momenta: list[Tensor] = [x.new_zeros(0)] * len(self.labels)
        column, reference, bound = 0, torch.zeros_like(x[..., 0]), x.new_zeros(())
        log_det = torch.zeros_like(x[..., 0])
        if self.pair is not None:
            t, log_pt, y, reference, a, psi = x[..., :6].unbind(-1)
            column = 6
            m, slope = decode_mass(t, self.pair.peak, self.pair.low, self.pair.high)
            pt = torch.exp(log_pt)
            m1, m2 = (
                torch.full_like(m, self.masses[i])  # type: ignore[arg-type]
                for i in (self.pair.first, self.pair.second)
            )
            size = two_body_momentum(m, m1, m2)
            sin = 1 / torch.cosh(a)
            direction = torch.stack([sin * torch.cos(psi), sin * torch.sin(psi), torch.tanh(a)], -1)
            mt = torch.hypot(m, pt)
            zero = torch.zeros_like(mt)
            across = torch.stack([pt, zero, zero, mt], dim=-1)
            for sign, mass, i in ((1, m1, self.pair.first), (-1, m2, self.pair.second)):
                p = boost(on_shell(sign * size.unsqueeze(-1) * direction, mass), across, m)
                p = boost_along_beam(rotate_about_beam(p, reference), torch.sinh(y))
                momenta[i] = on_shell(p[..., :3], mass)
                log_det = log_det + torch.log(momenta[i][..., 3])
            # d3p1 d3p2 = E1 E2 (p*/m) d4q dOmega, d4q = m dm pT dpT dphi dy, dcos = sin^2 da
            log_det = log_det + torch.log(size) + slope + 2 * log_pt + 2 * torch.log(sin)
        for i in self.single:
            t, eta, phi = x[..., column : column + 3].unbind(-1)
            low = self.pt_min[i]
            if self.ordered[i]:
                pt = expit_between(t, low, bound)
                slope = torch.nn.functional.logsigmoid(t) + torch.nn.functional.logsigmoid(-t)
                log_det = log_det + torch.log(bound - low) + slope
            else:
                pt = low + torch.exp(t)
                log_det = log_det + t
            if column == 0:
                reference = phi
            else:
                phi = phi + reference
            mass = torch.full_like(t, self.masses[i])  # type: ignore[arg-type]
            column += 3
            if self.free[i]:
                mass, slope = _decode_mass(x[..., column])
                log_det = log_det + slope
                column += 1
            p3 = torch.stack([pt * torch.cos(phi), pt * torch.sin(phi), pt * torch.sinh(eta)], -1)
            momenta[i] = on_shell(p3, mass)
            log_det = log_det + 2 * torch.log(pt) + torch.log(torch.cosh(eta))
            bound = pt
        return torch.stack(momenta, dim=-2), log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p, _ = self._walk(x)
        return p, p.sum(-2)

    def log_det(self, x: Tensor) -> Tensor:
        return self._walk(x)[1]


def _transverse_mass(q: Tensor, m2: Tensor) -> Tensor:
    return torch.sqrt(q[..., 0] ** 2 + q[..., 1] ** 2 + m2)


def _encode_mass(p: Tensor, pt: Tensor) -> Tensor:
    mass = torch.sqrt(invariant_mass_squared(p).clamp_min(0.0))
    digits = torch.remainder(pt * 1e6, 1.0).clamp(1e-3, 1 - 1e-3)
    atom = _ATOM[0] + _ATOM[1] * torch.special.ndtri(digits)
    return math.log(_MASS_OFFSET) + torch.where(
        mass < MASSLESS, atom, torch.log1p(mass / _MASS_OFFSET)
    )


def _decode_mass(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mass in GeV and log dm/dx; zero where it is the atom."""
    above = x - math.log(_MASS_OFFSET)
    mass = _MASS_OFFSET * torch.expm1(above.clamp_min(0.0))
    zero = mass < MASSLESS
    return torch.where(zero, 0.0, mass), torch.where(zero, 0.0, x)
