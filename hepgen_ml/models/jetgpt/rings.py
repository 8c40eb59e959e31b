r"""Rings: densities of a direction in the plane of pseudorapidity and azimuth, about other objects.

Radiation is collinear, :math:`dR / R`, down to the distance at which jets merge: a density in both
coordinates at once, which a product of one-dimensional mixtures blurs. A ring about an object is
Gaussian in :math:`u = \log(R - R_0)`, where :math:`R_0` is the smallest distance in the training
sample, and von Mises in the angle :math:`\alpha` around it, with the measure :math:`R\, dR\,
d\alpha`. It ends at R = 3.1, before it would meet itself on the other side of the cylinder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hepgen_ml.models.mixtures import LOG_KAPPA, log_i0e, sample_von_mises
from hepgen_ml.phase_space.coordinates import wrap

RINGS = 3
"""Rings about each object."""

N_PARAMETERS = 5
"""Logit, location and log width in u, mean and log concentration of the angle."""

FARTHEST = 3.1

_LOG_SIGMA = (-4.0, 1.5)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_OUTSIDE = -1e4


def start() -> Tensor:
    """Parameters (5 RINGS,) to begin a training with."""
    return torch.cat(
        [
            torch.full((RINGS,), -4.0),
            torch.tensor([-3.5, -1.5, 0.0]),
            torch.zeros(RINGS),
            torch.zeros(RINGS),
            torch.full((RINGS,), -2.0),
        ]
    )


def weights(parameters: Tensor) -> Tensor:
    """Log probabilities (m, 1 + K): of no ring, and of each of K with parameters (m, 5, K)."""
    logits = parameters[:, 0]
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).log_softmax(-1)


def log_prob(parameters: Tensor, deta: Tensor, dphi: Tensor, edge: Tensor) -> Tensor:
    """Log densities (m, K) in pseudorapidity and azimuth, without the weights.

    Parameters
    ----------
    parameters : (m, 5, K) tensor
    deta, dphi : (m, K) tensors
        From the object that a ring is about.
    edge : (K,) tensor
        Smallest distances.
    """
    u_mean, u_log_sigma, end = _radial(parameters, edge)
    distance = torch.hypot(deta, dphi)
    beyond = (distance - edge).clamp_min(1e-6)
    pull = (torch.log(beyond) - u_mean) * torch.exp(-u_log_sigma)
    log_p = -0.5 * pull**2 - u_log_sigma - _HALF_LOG_2PI - torch.special.log_ndtr(end)
    log_p = log_p - torch.log(beyond) - torch.log(distance.clamp_min(1e-6))
    kappa = torch.exp(parameters[:, 4].clamp(*LOG_KAPPA))
    half = 0.5 * (torch.atan2(dphi, deta) - parameters[:, 3])
    log_p = log_p - 2 * kappa * torch.sin(half) ** 2 - log_i0e(kappa) - math.log(2 * math.pi)
    return torch.where((distance > edge) & (distance < FARTHEST), log_p, _OUTSIDE)


def sample(
    parameters: Tensor, edge: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Distances (m,) in pseudorapidity and azimuth for one ring each, (m, 5) with edges (m,)."""
    u_mean, u_log_sigma, end = _radial(parameters.unsqueeze(-1), edge.unsqueeze(-1))
    v = torch.rand(len(edge), generator=generator, device=edge.device, dtype=torch.float64)
    v = (v * torch.special.ndtr(end[:, 0].double())).clamp_min(1e-12)
    u = u_mean[:, 0] + torch.exp(u_log_sigma[:, 0]) * torch.special.ndtri(v)
    distance = (edge + torch.exp(u)).clamp_max(FARTHEST)
    one = torch.stack([torch.zeros_like(edge), parameters[:, 3], parameters[:, 4]], dim=-1)
    angle = sample_von_mises(one, generator)
    deta, dphi = distance * torch.cos(angle), distance * torch.sin(angle)
    return deta.to(edge.dtype), wrap(dphi).to(edge.dtype)


def _radial(parameters: Tensor, edge: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Location and log width (m, K) of u, and where it ends in units of the width."""
    end = torch.log(FARTHEST - edge)
    mean = torch.minimum(parameters[:, 1], end)
    log_sigma = parameters[:, 2].clamp(*_LOG_SIGMA)
    return mean, log_sigma, (end - mean) * torch.exp(-log_sigma)
