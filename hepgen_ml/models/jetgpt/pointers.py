"""Pointers: densities of a jet that depend on the positions of earlier objects.

Radiation is collinear: photons follow leptons, and jets come near jets, down to the radius at which
they merge. Transverse momenta balance: a jet is likely in the direction of missing pT, and a photon
restores the resonance mass of a lepton pair. A network that must find these positions as a function
of all earlier coordinates blurs them. Here every earlier object adds rings
(`hepgen_ml.models.jetgpt.rings`) to the density of an object's direction, and components to that of
its azimuth; two further ones stand for the lepton pair and for missing pT, and add components to
that of its transverse momentum. The distances to other objects are inputs of all components. The
parameters are shared by all objects of a kind, for any number of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.models.jetgpt import rings
from hepgen_ml.networks.elementwise import SiLU, silu
from hepgen_ml.phase_space import Chart, Peak, ReconstructedChart
from hepgen_ml.phase_space.chart import filled
from hepgen_ml.phase_space.coordinates import (
    azimuth,
    invariant_mass_squared,
    pseudorapidity,
    transverse_momentum,
    wrap,
)

ANCHORS = 3
"""Components that an object adds to a mixture."""

IDEAL = 2
"""Kinds beside those of objects, in this order: the lepton pair, and missing pT."""

_HIDDEN = 48
_RANGES = (0.8, 0.3, 0.1, 0.03)
"""Distances, in eta, phi and Delta R, on whose scales neighbours are felt."""

_N_FEATURES = 6 + 4 * len(_RANGES) + 4 + 4 + 4

_IMBALANCE = 5.0
"""Scale in GeV of the transverse momentum imbalance of jets."""


@dataclass
class Surroundings:
    """Objects before the one whose density is asked for, the pair, and missing pT.

    Attributes
    ----------
    log_pt, eta, phi : (m, R + 2) float32 tensors
        Azimuths relative to that of the chart, of the last two rapidities.
    present : (m, R + 2) bool tensor
        Mask of the objects that come before.
    pair : (m, 4) float64 tensor
        Momentum of the first resonance, the lepton pair.
    low, high : (m,) float32 tensors
        Range of the object's transverse momentum in GeV; `high` may be infinite.
    peak : (m, 2) float64 tensor
        Mass and width of the resonance in GeV.
    kind : (R + 2,) int64 tensor
        Kinds of the objects.
    """

    log_pt: Tensor
    eta: Tensor
    phi: Tensor
    present: Tensor
    pair: Tensor
    low: Tensor
    high: Tensor
    peak: Tensor
    kind: Tensor

    @classmethod
    def of(
        cls, p: Tensor, kind: Tensor, present: Tensor, chart: Chart, n_kinds: int,
        particle: int,
    ) -> Surroundings:  # fmt: skip
        """Surroundings of a chart's object, from momenta (m, R, 4), arbitrary for absent ones."""
        p = torch.where(present.unsqueeze(-1), p, torch.zeros_like(p))
        total = p.sum(1)
        missing = torch.cat([-total[:, :3], total[:, 3:]], dim=-1)
        pair, peak = torch.zeros_like(total), total.new_tensor([0.0, 1.0]).expand(len(total), 2)
        objects = chart if isinstance(chart, ReconstructedChart) else None
        if objects is not None and objects.resonances:
            resonance = objects.resonances[0]
            pair = p[:, list(resonance.objects)].sum(1)
            spec = resonance.mass
            assert isinstance(spec, Peak)  # at the events' conditions
            peak = torch.stack([filled(total[:, 0], v) for v in (spec.mass, spec.width)], dim=-1)
        extra = torch.stack([pair, missing], dim=1)
        seen = torch.cat([present, extra[..., 3] > 0], dim=1)
        safe = p.new_tensor([1.0, 0.0, 0.0, 1.5])
        p, extra = (
            torch.where(seen[:, i].unsqueeze(-1), q, safe)
            for i, q in ((slice(p.shape[1]), p), (slice(p.shape[1], None), extra))
        )
        # Of the pair and of missing pT the rapidity, that of the latter is the event's.
        y = torch.atanh((extra[..., 2] / extra[..., 3]).clamp(-1 + 1e-9, 1 - 1e-9))
        eta = torch.cat([pseudorapidity(p), y * y.new_tensor([1.0, -1.0])], dim=1)
        every = torch.cat([p, extra], dim=1)
        log_pt = torch.log(transverse_momentum(every).clamp_min(1e-3))
        # partons are in no order, and where their coordinate begins does not matter
        low = torch.full_like(total[:, 0], 0.0 if objects is None else objects.pt_min[particle])
        high = torch.full_like(low, math.inf)
        if objects is not None and objects.ordered[particle]:
            high = transverse_momentum(p[:, particle - 1])
        return cls(
            log_pt.float(), eta.clamp(-12.0, 12.0).float(), azimuth(every).float(), seen, pair,
            low.float(), torch.maximum(high, low + 1e-3).float(), peak,
            torch.cat([kind, torch.arange(n_kinds, n_kinds + IDEAL, device=kind.device)]),
        )  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence[Surroundings]) -> Surroundings:
        """One after another, with the same kinds of objects."""
        rows = [f.name for f in fields(cls)][:-1]
        columns: dict[str, Any] = {n: torch.cat([getattr(p, n) for p in parts]) for n in rows}
        return replace(parts[0], **columns)

    def __getitem__(self, rows: Tensor) -> Surroundings:
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)[:-1]})

    def aims(self, eta: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Coordinates (m, 2) of a transverse momentum in this direction (m,), and their widths.

        One brings the pair to its resonance, with the width of that; the other balances the event.
        """
        q, (mass, width) = self.pair, self.peak.unbind(-1)
        eta, phi = eta.double(), phi.double()
        # (q + p)^2 = m^2 + 2 pT D for a massless p.
        d = q[:, 3] * torch.cosh(eta) - q[:, 2] * torch.sinh(eta)
        d = (d - q[:, 0] * torch.cos(phi) - q[:, 1] * torch.sin(phi)).clamp_min(1e-3)
        radiated = (mass**2 - invariant_mass_squared(q)) / (2 * d)
        missing = torch.exp(self.log_pt[:, -1]) * torch.cos(phi - self.phi[:, -1])
        aim = torch.stack([radiated, missing], dim=-1)
        spread = torch.stack([mass * width / d, torch.full_like(d, _IMBALANCE)], dim=-1)
        low, high = (v.double().unsqueeze(-1) for v in (self.low, self.high))
        above = (aim - low).clamp_min(0.2)
        bounded = torch.isfinite(high)
        range_ = torch.where(bounded, high - low, 1.0)
        x = ((aim - low) / range_).clamp(0.01, 0.99)
        t = torch.where(bounded, torch.logit(x), torch.log(above))
        slope = torch.where(bounded, 1 / (range_ * x * (1 - x)), 1 / above)
        return t.float(), (spread * slope).clamp(0.02, 2.0).float()


class Pointers(nn.Module):
    """Contributions of earlier objects to the density of each component of an object.

    Parameters
    ----------
    names : sequence of str
        Of all components, such as ``eta:Jet``.
    n_kinds : int
        Number of kinds of earlier objects.
    width : int
        Of the tokens and hidden states.
    """

    def __init__(self, names: Sequence[str], n_kinds: int, width: int) -> None:
        super().__init__()
        self.what = [name.split(":")[0] for name in names]
        n_inputs = _N_FEATURES + n_kinds + IDEAL
        self.look = nn.ModuleList(
            nn.Sequential(nn.Linear(n_inputs, _HIDDEN), SiLU(), nn.Linear(_HIDDEN, _HIDDEN))
            for _ in names
        )
        self.tell = nn.ModuleList(nn.Linear(_HIDDEN, width) for _ in names)
        self.mix = nn.ModuleList(nn.Linear(width, _HIDDEN) for _ in names)
        self.place = nn.ModuleList(nn.Linear(_HIDDEN, 3 * ANCHORS) for _ in names)
        self.ring = nn.ModuleList(
            nn.Linear(_HIDDEN, rings.N_PARAMETERS * rings.RINGS) for _ in names
        )
        self.n_kinds = n_kinds + IDEAL
        self.edge: Tensor
        self.register_buffer("edge", torch.zeros(len(names), self.n_kinds))
        with torch.no_grad():
            for what, tell, place, ring in zip(
                self.what, self.tell, self.place, self.ring, strict=True
            ):
                assert isinstance(tell, nn.Linear)
                assert isinstance(place, nn.Linear)
                assert isinstance(ring, nn.Linear)
                for layer in (tell, place, ring):
                    layer.weight.mul_(0.1)
                place.bias.zero_()
                place.bias[:ANCHORS] = -4.0
                if what == "phi":
                    place.bias[2 * ANCHORS :] = -2 * torch.log(torch.tensor([0.6, 0.2, 0.06]))
                else:
                    place.bias[2 * ANCHORS :] = torch.tensor([0.0, 1.0, -0.7])
                ring.bias.copy_(rings.start())

    @property
    def outputs(self) -> tuple[nn.Module, ...]:
        """The last layers."""
        return self.place, self.ring

    def anchored(self, number: int, own: dict[str, Tensor]) -> bool:
        """Whether the density of a component, given the others, has components at objects."""
        aimed = self.what[number] in ("log_pt", "logit_pt") and {"eta", "phi"} <= own.keys()
        return self.what[number] == "phi" or aimed

    def notice(
        self, number: int, around: Surroundings, own: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Input of component `number` from all objects, (m, R + 2, hidden), and term of its token.

        Parameters
        ----------
        number : int
        around : Surroundings
        own : dict of str to (m,) tensor
            Components that are known already.
        """
        m, r = around.eta.shape
        zero = around.eta.new_zeros(m, r)
        deta = dphi = zero
        if "eta" in own:
            deta = own["eta"].unsqueeze(-1) - around.eta
        if "phi" in own:
            dphi = wrap(own["phi"].unsqueeze(-1) - around.phi)
        directed = {"eta", "phi"} <= own.keys()
        distance = torch.hypot(deta, dphi)
        columns = [
            around.log_pt - 3.5,
            around.eta / 3,
            torch.cos(around.phi),
            torch.sin(around.phi),
            deta / 3,
            distance / 3,
        ]
        for scale in _RANGES:
            columns += [
                torch.exp(-deta.abs() / scale) if "eta" in own else zero,
                torch.exp(-dphi.abs() / scale) if "phi" in own else zero,
                torch.exp(-distance / scale) if directed else zero,
                deta / (deta.abs() + scale),
            ]
        what = next((k for k in ("log_pt", "logit_pt") if k in own), self.what[number])
        columns += [
            torch.cos(dphi) if "phi" in own else zero,
            torch.sin(dphi) if "phi" in own else zero,
            own[what].unsqueeze(-1).expand(m, r) if what in own else zero,
            around.present.float(),
        ]
        for column in self._aimed(around, own, what) if directed else [None] * 4:
            columns.append(zero if column is None else F.pad(column, (r - IDEAL, 0)))
        columns += self._balancing(around)
        kinds = F.one_hot(around.kind, self.n_kinds).float().expand(m, r, -1)
        seen = self.look[number](torch.cat([torch.stack(columns, -1), kinds], -1))
        shown = silu(seen) * around.present.unsqueeze(-1)
        told: Tensor = self.tell[number](shown.sum(1))
        return seen, told

    @staticmethod
    def _balancing(around: Surroundings) -> list[Tensor]:
        """Four features (m, R + 2): the direction of missing pT, seen from each object.

        If two jets are close to each other, it points along the first until the second is placed.
        """
        turn = wrap(around.phi - around.phi[:, -1:])
        along, across = torch.cos(turn), torch.sin(turn)
        parts = [torch.exp(around.log_pt[:, -1:]) * x for x in (along, across)]
        return [along, across, *(p / (p.abs() + 4 * _IMBALANCE) for p in parts)]

    @staticmethod
    def _aimed(around: Surroundings, own: dict[str, Tensor], what: str) -> list[Tensor]:
        """Four features (m, 2) of the preferred transverse momenta."""
        t, width = around.aims(own["eta"], own["phi"])
        off = torch.zeros_like(t)
        if what in own:
            off = (own[what].unsqueeze(-1) - t) / width
        return [t / 3, torch.log(width), off / (1 + off.abs()), torch.exp(-off.abs())]

    def anchors(
        self, number: int, around: Surroundings, seen: Tensor, hidden: Tensor,
        own: dict[str, Tensor], mean: float, std: float,
    ) -> Tensor:  # fmt: skip
        """Parameters (m, 3, A) of further components: logits, locations, log widths.

        Locations are in the standardised coordinate, whose mean and width are given.
        """
        what, present = self.what[number], around.present
        if what != "phi":
            seen, present = seen[:, -IDEAL:], present[:, -IDEAL:]
        h = silu(seen + self.mix[number](hidden).unsqueeze(1))
        logits, shift, width = self.place[number](h).chunk(3, dim=-1)
        logits = torch.where(present.unsqueeze(-1), logits, -torch.inf)
        if what == "phi":
            location = around.phi.unsqueeze(-1) + shift
        else:
            t, unit = around.aims(own["eta"], own["phi"])
            location = ((t.unsqueeze(-1) + shift * unit.unsqueeze(-1)) - mean) / std
            width = width + torch.log(unit / std).unsqueeze(-1)
        return torch.stack([v.flatten(1) for v in (logits, location, width)], dim=1)

    def rings(self, number: int, around: Surroundings, seen: Tensor, hidden: Tensor) -> Rings:
        """Rings about all objects, from what the first component of a direction sees."""
        h = silu(seen + self.mix[number](hidden).unsqueeze(1))[:, :-IDEAL]
        out = self.ring[number](h).unflatten(-1, (rings.N_PARAMETERS, rings.RINGS))
        logits = torch.where(around.present[:, :-IDEAL, None], out[:, :, 0], -torch.inf)
        out = torch.cat([logits.unsqueeze(2), out[:, :, 1:]], dim=2)
        each = rings.RINGS
        return Rings(
            out.transpose(1, 2).flatten(2),
            around.eta[:, :-IDEAL].repeat_interleave(each, 1),
            around.phi[:, :-IDEAL].repeat_interleave(each, 1),
            self.edge[number, around.kind[:-IDEAL]].repeat_interleave(each),
        )

    @torch.no_grad()
    def fit_edge(self, number: int, around: Surroundings, eta: Tensor, phi: Tensor) -> None:
        """Take the smallest distances to objects from a sample of directions (m,)."""
        distance = torch.hypot(eta.unsqueeze(-1) - around.eta, wrap(phi.unsqueeze(-1) - around.phi))
        distance = torch.where(around.present, distance, torch.inf).amin(0)
        for kind, least in zip(around.kind.tolist(), distance.tolist(), strict=True):
            before = float(self.edge[number, kind])
            if math.isinf(least):
                continue
            least = min(0.999 * least, 1.0)
            self.edge[number, kind] = least if before == 0 else min(before, least)


@dataclass
class Rings:
    """Rings about the objects before: parameters (m, 5, K), centres (m, K) and edges (K,)."""

    parameters: Tensor
    eta: Tensor
    phi: Tensor
    edge: Tensor

    def join(self, plain: Tensor, eta: Tensor, phi: Tensor) -> Tensor:
        """Log density (m,) of a direction: of rings, and of a plain log density (m,)."""
        deta, dphi = eta.unsqueeze(-1) - self.eta, wrap(phi.unsqueeze(-1) - self.phi)
        each = rings.log_prob(self.parameters, deta, dphi, self.edge)
        log_p = rings.weights(self.parameters)
        return torch.logsumexp(log_p + torch.cat([plain.unsqueeze(-1), each], dim=-1), dim=-1)

    def draw(self, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows whose direction is drawn from a ring, with its pseudorapidity and azimuth."""
        share = rings.weights(self.parameters).exp()
        k = torch.multinomial(share, 1, generator=generator).squeeze(-1)
        rows = torch.nonzero(k > 0).squeeze(-1)
        k = k[rows] - 1
        deta, dphi = rings.sample(self.parameters[rows, :, k], self.edge[k], generator)
        return rows, self.eta[rows, k] + deta, wrap(self.phi[rows, k] + dphi)


def joined(parameters: Tensor, further: Tensor) -> Tensor:
    """Parameters (m, 3(K + A)) of a mixture (m, 3K) with further components (m, 3, A)."""
    k = parameters.shape[-1] // 3
    both = torch.cat([parameters.view(len(parameters), 3, k), further], dim=-1)
    return both.flatten(1)
