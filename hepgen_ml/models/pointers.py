"""Looking at the objects before: densities of a jet's direction that know where the others are.

Radiation is collinear: photons follow leptons, and jets come near jets, down to the radius at which
they merge. A mixture that has to find these directions by itself, as a function of all earlier
coordinates, blurs them. Here every earlier object adds components of its own to the mixtures of
pseudorapidity and azimuth, placed relative to it, and tells all components of a jet how far away it
is. What is learned about one object holds for each of its kind, in any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.phase_space.coordinates import (
    azimuth,
    pseudorapidity,
    transverse_momentum,
    wrap,
)

ANCHORS = 3
"""Components that an object adds to a mixture."""

_HIDDEN = 48
_RANGES = (0.8, 0.3, 0.1, 0.03)
"""Distances, in eta, phi and Delta R, on whose scales neighbours are felt."""

_N_FEATURES = 6 + 4 * len(_RANGES) + 4


@dataclass
class Surroundings:
    """Objects before the one whose density is asked for.

    Attributes
    ----------
    log_pt, eta, phi : (m, R) float32 tensors
        Azimuths relative to that of the chart.
    kind : (R,) int64 tensor
        What kinds of objects they are.
    present : (m, R) bool tensor
        Which of them come before.
    """

    log_pt: Tensor
    eta: Tensor
    phi: Tensor
    kind: Tensor
    present: Tensor

    @classmethod
    def of(cls, p: Tensor, kind: Tensor, present: Tensor) -> Surroundings:
        """From momenta (m, R, 4); those that are not present (m, R) may be anything."""
        p = torch.where(present.unsqueeze(-1), p, p.new_tensor([1.0, 0.0, 0.0, 1.0]))
        log_pt = torch.log(transverse_momentum(p).clamp_min(1e-3))
        eta = pseudorapidity(p).clamp(-12.0, 12.0)
        return cls(log_pt.float(), eta.float(), azimuth(p).float(), kind, present)

    @classmethod
    def join(cls, parts: Sequence[Surroundings]) -> Surroundings:
        """One after another, with the same kinds of objects."""
        columns = ("log_pt", "eta", "phi", "present")
        log_pt, eta, phi, present = (torch.cat([getattr(p, c) for p in parts]) for c in columns)
        return cls(log_pt, eta, phi, parts[0].kind, present)

    def __getitem__(self, rows: Tensor) -> Surroundings:
        return Surroundings(
            self.log_pt[rows], self.eta[rows], self.phi[rows], self.kind, self.present[rows]
        )


class Pointers(nn.Module):
    """What earlier objects add to the density of each component of an object.

    Parameters
    ----------
    names : sequence of str
        Of all components, such as ``eta:Jet``.
    n_kinds : int
        Of the objects that are looked at.
    width : int
        Of the tokens and hidden states.
    """

    def __init__(self, names: Sequence[str], n_kinds: int, width: int) -> None:
        super().__init__()
        self.what = [name.split(":")[0] for name in names]
        n_inputs = _N_FEATURES + n_kinds
        self.look = nn.ModuleList(
            nn.Sequential(nn.Linear(n_inputs, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, _HIDDEN))
            for _ in names
        )
        self.tell = nn.ModuleList(nn.Linear(_HIDDEN, width) for _ in names)
        self.mix = nn.ModuleList(nn.Linear(width, _HIDDEN) for _ in names)
        self.place = nn.ModuleList(nn.Linear(_HIDDEN, 3 * ANCHORS) for _ in names)
        self.n_kinds = n_kinds
        with torch.no_grad():
            for what, tell, place in zip(self.what, self.tell, self.place, strict=True):
                assert isinstance(tell, nn.Linear)
                assert isinstance(place, nn.Linear)
                tell.weight.mul_(0.1)
                place.weight.mul_(0.1)
                place.bias.zero_()
                place.bias[:ANCHORS] = -4.0
                widths = torch.tensor([0.6, 0.2, 0.06])
                log = torch.log(widths) if what == "eta" else -2 * torch.log(widths)
                place.bias[2 * ANCHORS :] = log

    def anchored(self, number: int) -> bool:
        """Whether the density of a component gets components at the objects."""
        return self.what[number] in ("eta", "phi")

    def notice(
        self, number: int, around: Surroundings, own: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What component `number` sees of each object, (m, R, hidden), and adds to its token.

        Parameters
        ----------
        number : int
        around : Surroundings
        own : dict of str to (m,) tensor
            Components that are known already: ``eta`` and ``phi`` as they are, others standardised.
        """
        m, r = around.eta.shape
        zero = around.eta.new_zeros(m, r)
        deta = dphi = zero
        if "eta" in own:
            deta = own["eta"].unsqueeze(-1) - around.eta
        if "phi" in own:
            dphi = wrap(own["phi"].unsqueeze(-1) - around.phi)
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
                torch.exp(-distance / scale) if {"eta", "phi"} <= own.keys() else zero,
                deta / (deta.abs() + scale),
            ]
        pt = next((own[k] for k in ("log_pt", "logit_pt") if k in own), None)
        columns += [
            torch.cos(dphi) if "phi" in own else zero,
            torch.sin(dphi) if "phi" in own else zero,
            zero if pt is None else pt.unsqueeze(-1).expand(m, r),
            around.present.float(),
        ]
        kinds = F.one_hot(around.kind, self.n_kinds).float().expand(m, r, -1)
        seen = self.look[number](torch.cat([torch.stack(columns, -1), kinds], -1))
        shown = F.silu(seen) * around.present.unsqueeze(-1)
        told: Tensor = self.tell[number](shown.sum(1))
        return seen, told

    def anchors(
        self, number: int, around: Surroundings, seen: Tensor, hidden: Tensor,
        mean: float, std: float,
    ) -> Tensor:  # fmt: skip
        """Parameters (m, 3, R * ANCHORS) of further components: logits, locations, log widths.

        Locations are in the standardised coordinate, whose mean and width are given.
        """
        h = F.silu(seen + self.mix[number](hidden).unsqueeze(1))
        logits, shift, width = self.place[number](h).chunk(3, dim=-1)
        logits = torch.where(around.present.unsqueeze(-1), logits, -torch.inf)
        if self.what[number] == "eta":
            location = (around.eta.unsqueeze(-1) + shift - mean) / std
            width = width - torch.log(torch.as_tensor(std, device=width.device, dtype=width.dtype))
        else:
            location = around.phi.unsqueeze(-1) + shift
        return torch.stack([t.flatten(1) for t in (logits, location, width)], dim=1)


def joined(parameters: Tensor, further: Tensor) -> Tensor:
    """Parameters (m, 3(K + A)) of a mixture (m, 3K) with further components (m, 3, A)."""
    k = parameters.shape[-1] // 3
    both = torch.cat([parameters.view(len(parameters), 3, k), further], dim=-1)
    return both.flatten(1)
