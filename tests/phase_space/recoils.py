"""Jets, and the boson that recoils against them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import from_pt_rapidity_phi


def jets_and_boson(
    n: int, n_jets: int, rng: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Momenta (n, n_jets, 4) of jets above 20 GeV; pT, rapidity and azimuth (n,) of the boson."""

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=rng, dtype=torch.float64)

    pt = 20 * uniform(n, n_jets) ** -0.7
    y = torch.randn(n, n_jets + 1, generator=rng, dtype=torch.float64) * 1.2
    jets = from_pt_rapidity_phi(pt, y[:, :-1], 2 * math.pi * uniform(n, n_jets), 0 * pt)
    recoil = -jets[..., :2].sum(1)
    return jets, recoil.norm(dim=1), y[:, -1], torch.atan2(recoil[:, 1], recoil[:, 0])
