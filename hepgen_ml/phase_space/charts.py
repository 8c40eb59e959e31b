"""Charts: four-momenta of the final state <-> unconstrained coordinates.

A chart holds the physics constraints. For any values of the coordinates, the momenta are on their
mass shells and balance the incoming partons up to rounding. Charts do not depend on networks or
file columns.

The Jacobian is taken to the measure of `Chart.measure`'s description, in GeV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.phase_space.chart import Chart, filled
from hepgen_ml.phase_space.coordinates import (
    Coordinate,
    azimuth,
    boost,
    expit_between,
    from_pt_rapidity_phi,
    invariant_mass,
    invariant_mass_squared,
    log_above,
    logit_between,
    on_shell,
    rapidity,
    reverse,
    rotate_about_beam,
    transverse_momentum,
    two_body_momentum,
    wrap,
)
from hepgen_ml.phase_space.masses import MassSpec, mass_config, mass_slope


class BalancedChart(Chart):
    r"""Hadron-collider events: transverse momentum balances, the beams' fractions are free.

    Coordinates: varying masses first, then :math:`\log(p_T - p_T^{min})`,
    rapidity and azimuth of the first n-1 particles and the rapidity of the
    last, whose transverse momentum balances the others; 3n-2 in all for fixed
    masses. The first azimuth is that of the whole event, the others are
    relative to it. Rapidity rather than pseudorapidity, because it stays
    regular for a massive particle along the beam.

    Jets come close to one another, down to a cut R in :math:`\Delta R`. Where this is given, the
    rapidity y' of the particle before replaces that of a particle by
    :math:`\mathrm{arsinh}((y - y')/R)`, and the azimuth is relative to that particle too: both
    resolve the neighbourhood of the cut.

    Where the last two particles recoil together against the others, as top quarks against a jet, a
    share s of this recoil is added to the transverse momentum of the first of the two:
    :math:`q = p_{n-1} + s \sum_{i<n-1} p_i` replaces it in the coordinates. This is what it would
    have if the pair had no transverse momentum, so that it hardly depends on the other particles.

    Measure: :math:`\prod_{i<n} d^3p_i \; dp_{z,n} \prod dm`.

    Parameters
    ----------
    labels, masses
        See `Chart`. The last particle should be one without a cut.
    pt_min : sequence of float
        Smallest transverse momentum in GeV of each of the first n-1 particles.
    close : sequence of float, optional
        Smallest distance of each of these to the particle before; 0 where it is not described
        relative to that. By default none is.
    share : float
        Part of the recoil against all others that the last but one of the particles takes, below
        1; it has no cut, and is one of three or more. 0 if its own momentum is described.
    """

    kind = "balanced"

    def __init__(
        self,
        labels: Sequence[str],
        masses: Sequence[MassSpec],
        pt_min: Sequence[float],
        close: Sequence[float] = (),
        share: float = 0.0,
    ) -> None:
        super().__init__(labels, masses)
        n = len(self.labels)
        self.close = tuple(float(r) for r in close) or (0.0,) * (n - 1)
        if len(self.close) != n - 1 or any(self.close[:1]):
            raise ValueError(f"close needs {n - 1} values, the first of them zero")
        self.pt_min = tuple(float(v) for v in pt_min)
        if len(self.pt_min) != n - 1:
            raise ValueError(f"pt_min needs {n - 1} values, got {len(self.pt_min)}")
        self.share = float(share)
        if not 0 <= self.share < 1 or (
            self.share and (n < 3 or self.pt_min[-1] or self.close[-1])
        ):
            raise ValueError("a recoil is shared by two of three particles or more, without cuts")
        self._mass_names = self._mass_coordinates()
        free: list[Coordinate] = []
        for i, label in enumerate(self.labels[:-1]):
            free += [
                Coordinate(f"log_pt:{label}", particle=i, logarithmic=True),
                Coordinate(
                    f"{'close_rapidity' if self.close[i] else 'rapidity'}:{label}", particle=i
                ),
                Coordinate(f"phi:{label}", periodic=True, cyclic=i == 0, particle=i),
            ]
        last = Coordinate(f"balancing_rapidity:{self.labels[-1]}", particle=n - 1)
        self.coordinates = (*self._mass_names, *free, last)

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "masses": [mass_config(m) for m in self.masses],
            "pt_min": list(self.pt_min),
            **({"close": list(self.close)} if any(self.close) else {}),
            **({"share": self.share} if self.share else {}),
        }

    def _described(self, vt: Tensor) -> Tensor:
        """Transverse vectors (..., n, 2) that coordinates describe, from those of the particles."""
        if not self.share:
            return vt
        others = vt[..., :-2, :].sum(-2, keepdim=True)
        own = vt[..., -2:-1, :] + self.share * others
        return torch.cat([vt[..., :-2, :], own, vt[..., -1:, :]], dim=-2)

    def forward(self, p: Tensor) -> Tensor:
        columns, masses = self._encode_masses(p)
        n = len(self.labels)
        q = self._described(p[..., :2])
        phi = azimuth(q)
        y = [rapidity(p[..., i, :], masses[..., i]) for i in range(n)]
        for i in range(n - 1):
            near = self.close[i]
            columns += [
                log_above(transverse_momentum(q[..., i, :]), self.pt_min[i]),
                torch.asinh((y[i] - y[i - 1]) / near) if near else y[i],
                phi[..., i] if i == 0 else wrap(phi[..., i] - phi[..., i - 1 if near else 0]),
            ]
        columns.append(y[-1])
        return torch.stack(columns, dim=-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        n, first = len(self.labels), len(self._mass_names)
        masses, _ = self._decode_masses(x)
        momenta: list[Tensor] = []
        y_before = phi_before = torch.zeros_like(x[..., 0])
        for i in range(n - 1):
            log_pt, y, phi = x[..., first + 3 * i : first + 3 * i + 3].unbind(-1)
            near = self.close[i]
            if near:
                furthest = math.asinh(_FURTHEST / near)
                y = y_before + near * torch.sinh(y.clamp(-furthest, furthest))
            if i > 0:
                phi = phi + (phi_before if near else x[..., first + 2])
            y_before, phi_before = y, phi
            pt = self.pt_min[i] + torch.exp(log_pt)
            if self.share and i == n - 2:
                q = torch.stack([pt * torch.cos(phi), pt * torch.sin(phi)], dim=-1)
                q = q - self.share * torch.stack(momenta)[..., :2].sum(0)
                momenta.append(_at_rapidity(q, y, masses[..., i]))
                continue
            momenta.append(from_pt_rapidity_phi(pt, y, phi, masses[..., i]))
        y = x[..., -1]
        if momenta:
            recoil = -torch.stack([q[..., :2] for q in momenta]).sum(0)
        else:
            recoil = torch.zeros_like(x[..., :1]).expand(*x.shape[:-1], 2)
        momenta.append(_at_rapidity(recoil, y, masses[..., -1]))
        p = torch.stack(momenta, dim=-2)
        return p, p.sum(-2)

    def push_forward(self, p: Tensor, v: Tensor) -> Tensor:
        # Written out: no term is a difference of large numbers, none divides by pT - pT_min
        # but the one that has to. The last particle takes the recoil of the others.
        recoil = -v[..., :-1, :2].sum(-2, keepdim=True)
        vt = torch.cat([v[..., :-1, :2], recoil], dim=-2)
        pt2 = (p[..., :2] ** 2).sum(-1)
        radial = (p[..., :2] * vt).sum(-1)
        masses: list[Any] = list(self.masses)
        m2 = torch.stack(
            [invariant_mass_squared(p[..., i, :]) if isinstance(m, tuple)
             else filled(pt2[..., i], m**2) for i, m in enumerate(masses)], -1
        )  # fmt: skip
        m_dm = p[..., 3] * v[..., 3] - radial - p[..., 2] * v[..., 2]
        columns = []
        for i, mass in enumerate(self.masses):
            if isinstance(mass, tuple):
                m = torch.sqrt(m2[..., i])
                columns.append(m_dm[..., i] * _finite(mass_slope(m, mass) / m))
        fixed = m2.new_tensor([0.0 if isinstance(m, tuple) else 1.0 for m in self.masses])
        mt_dmt = radial + (1 - fixed) * m_dm
        dy = (v[..., 2] - p[..., 2] * mt_dmt / (pt2 + m2)) / p[..., 3]
        q, qv = self._described(p[..., :2]), self._described(vt)
        radial, q2 = (q * qv).sum(-1), (q**2).sum(-1)
        dphi = (q[..., 0] * qv[..., 1] - q[..., 1] * qv[..., 0]) / q2
        pt = torch.sqrt(q2)
        y = rapidity(p, torch.sqrt(m2.clamp_min(0.0))).unbind(-1)
        for i in range(len(self.labels) - 1):
            log_pt = radial[..., i] * _finite(1 / (pt[..., i] * (pt[..., i] - self.pt_min[i])))
            near, slope = self.close[i], dy[..., i]
            phi = dphi[..., 0] if i == 0 else dphi[..., i] - dphi[..., i - 1 if near else 0]
            if near:
                distance = torch.hypot(y[i] - y[i - 1], filled(y[i], near))
                slope = (slope - dy[..., i - 1]) / distance
            columns += [log_pt, slope, phi]
        return torch.stack([*columns, dy[..., -1]], dim=-1)

    def log_det(self, x: Tensor) -> Tensor:
        p, _ = self.inverse(x)
        _, total = self._decode_masses(x)
        first = len(self._mass_names)
        for i in range(len(self.labels) - 1):
            log_pt = x[..., first + 3 * i]
            pt = self.pt_min[i] + torch.exp(log_pt)
            total = total + log_pt + torch.log(pt) + torch.log(p[..., i, 3])
            if near := self.close[i]:
                total = total + torch.log(near * torch.cosh(x[..., first + 3 * i + 1]))
        return total + torch.log(p[..., -1, 3])


def _at_rapidity(pt: Tensor, y: Tensor, mass: Tensor) -> Tensor:
    """Momenta (..., 4) from transverse ones (..., 2), rapidity and mass."""
    mt = torch.sqrt((pt**2).sum(-1) + mass**2)
    return on_shell(torch.cat([pt, (mt * torch.sinh(y)).unsqueeze(-1)], dim=-1), mass)


_FURTHEST = 100.0
"""Distance in rapidity that no particles of a collision have, so that no momentum is infinite."""


def _finite(slope: Tensor) -> Tensor:
    """Zero if a slope has no bound; such coordinates are moved directly instead."""
    return torch.where(torch.isfinite(slope), slope, 0.0)


class FixedEnergyChart(Chart):
    r"""Events of fixed total momentum (lepton colliders): a chain of two-body decays.

    Particle k recoils against the system of all later ones. Coordinates of step
    k: logit of the mass of that system between its kinematic bounds (absent in
    the last step), artanh of the polar angle's cosine and the azimuth in the
    rest frame of the remaining system; 3n-4 in all for fixed masses.

    Measure: :math:`\prod_{i\le n-2} d^3p_i \; d\cos\theta\, d\phi \prod dm`,
    the angles being those of the last pair in its rest frame.

    Parameters
    ----------
    labels, masses
        See `Chart`; at least two particles.
    total : sequence of 4 float
        Total momentum (px, py, pz, E) in GeV, along the beam.
    """

    kind = "fixed_energy"
    n_beams = 0
    """Beams whose energies are coordinates."""

    def __init__(
        self, labels: Sequence[str], masses: Sequence[MassSpec], total: Sequence[float]
    ) -> None:
        super().__init__(labels, masses)
        self.total = tuple(float(v) for v in total)
        self._set_coordinates([])

    def _set_coordinates(self, beams: Sequence[Coordinate]) -> None:
        if len(self.labels) < 2:
            raise ValueError("a fixed total momentum leaves a single particle no freedom")
        self._mass_names = self._mass_coordinates()
        free = list(beams)
        n = len(self.labels)
        for i, label in enumerate(self.labels[:-1]):
            if i < n - 2:
                free.append(Coordinate(f"logit_recoil_mass:{label}", particle=i, logarithmic=True))
            free += [
                Coordinate(f"artanh_cos_theta:{label}", particle=i),
                Coordinate(f"phi:{label}", periodic=True, cyclic=i == 0, particle=i),
            ]
        self.coordinates = (*self._mass_names, *free)

    def to_config(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "labels": list(self.labels),
            "masses": [mass_config(m) for m in self.masses],
            "total": list(self.total),
        }

    def _total_of(self, p: Tensor) -> Tensor:
        """Total momentum (..., 4) of events with momenta (..., n, 4)."""
        return p.new_tensor(self.total).expand(*p.shape[:-2], 4)

    def _total_at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Total momentum (..., 4) at coordinates (..., D), and its part of the log-determinant."""
        return x.new_tensor(self.total).expand(*x.shape[:-1], 4), torch.zeros_like(x[..., 0])

    def _columns_of_beams(self, total: Tensor, p: Tensor) -> list[Tensor]:
        """Coordinates of the beams' energies, none if they are fixed."""
        return []

    def _angle_of(self, angle: Tensor, total: Tensor, mass: Tensor, masses: Tensor) -> Tensor:
        """Coordinate of the first particle's polar angle, given as artanh of its cosine."""
        return angle

    def _angle_at(
        self, t: Tensor, total: Tensor, mass: Tensor, masses: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Artanh of that cosine at a coordinate, and the logarithm of its derivative."""
        return t, torch.zeros_like(t)

    def forward(self, p: Tensor) -> Tensor:
        columns, masses = self._encode_masses(p)
        n = len(self.labels)
        reference = azimuth(p[..., 0, :])
        p = rotate_about_beam(p, -reference.unsqueeze(-1))
        frame = self._total_of(p)
        columns += self._columns_of_beams(frame, p)
        frame_mass = torch.sqrt(invariant_mass_squared(frame))
        for k in range(n - 1):
            rest = p[..., k + 1 :, :].sum(-2)
            recoil_mass = invariant_mass(rest)
            if k < n - 2:
                low = masses[..., k + 1 :].sum(-1)
                columns.append(logit_between(recoil_mass, low, frame_mass - masses[..., k]))
            local = boost(p[..., k, :], reverse(frame), frame_mass)
            angle = torch.asinh(local[..., 2] / transverse_momentum(local))
            columns.append(angle if k else self._angle_of(angle, frame, frame_mass, masses))
            columns.append(reference if k == 0 else azimuth(local))
            frame, frame_mass = rest, recoil_mass
        return torch.stack(columns, dim=-1)

    def _walk(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Momenta (..., n, 4) and log-determinant of the momenta in the coordinates."""
        n, column = len(self.labels), len(self._mass_names) + self.n_beams
        masses, log_det = self._decode_masses(x)
        frame, slope_of_beams = self._total_at(x)
        log_det = log_det + slope_of_beams
        frame_mass = torch.sqrt(invariant_mass_squared(frame))
        least = masses.sum(-1)
        if self.margin:
            more = ((1 + self.margin) * least / frame_mass).clamp_min(1.0)
            frame, frame_mass = frame * more.unsqueeze(-1), frame_mass * more
        else:  # nan where the collision has too little energy for the particles
            frame_mass = torch.where(frame_mass > least, frame_mass, torch.nan)
        momenta: list[Tensor] = []
        reference = None
        for k in range(n - 1):
            mass, low = masses[..., k], masses[..., k + 1 :].sum(-1)
            recoil_mass = low
            if k < n - 2:
                t = x[..., column]
                recoil_mass = expit_between(t, low, frame_mass - mass)
                slope = torch.nn.functional.logsigmoid(t) + torch.nn.functional.logsigmoid(-t)
                log_det = log_det + torch.log(frame_mass - mass - low) + slope
                column += 1
            a, phi = x[..., column], x[..., column + 1]
            column += 2
            if reference is None:
                reference, phi = phi, torch.zeros_like(phi)
                a, slope_of_angle = self._angle_at(a, frame, frame_mass, masses)
                log_det = log_det + slope_of_angle
            size = two_body_momentum(frame_mass, mass, recoil_mass)
            sin = 1 / torch.cosh(a)
            direction = torch.stack([sin * torch.cos(phi), sin * torch.sin(phi), torch.tanh(a)], -1)
            local = on_shell(size.unsqueeze(-1) * direction, mass)
            momentum = boost(local, frame, frame_mass)
            # d cos(theta) = da / cosh^2 a; d^3p = (E_lab / E) p^2 dp dOmega, p dp = E dE,
            # dE = -(M_k / M_(k-1)) dM_k
            log_det = log_det + 2 * torch.log(sin)
            if k < n - 2:
                log_det = log_det + torch.log(size * momentum[..., 3] * recoil_mass / frame_mass)
            momenta.append(momentum)
            recoil = on_shell(-size.unsqueeze(-1) * direction, recoil_mass)
            frame, frame_mass = boost(recoil, frame, frame_mass), recoil_mass
        momenta.append(frame)
        assert reference is not None
        p = torch.stack(momenta, dim=-2)
        return rotate_about_beam(p, reference.unsqueeze(-1)), log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        p, _ = self._walk(x)
        return p, self._total_at(x)[0]

    def log_det(self, x: Tensor) -> Tensor:
        return self._walk(x)[1]
