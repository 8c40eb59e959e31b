"""One-dimensional mixture densities: Gaussian on the line, von Mises on the circle.

Parameters of K components come as one tensor (..., 3K): logits of the weights,
locations, and logarithms of the width sigma (Gaussian) or the concentration
kappa (von Mises).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LOG_SIGMA = (-8.0, 3.0)
"""Range of log sigma, in units of a standardised coordinate."""

LOG_KAPPA = (-6.0, 12.0)
"""Range of log kappa. The upper end is a width of 0.0025 rad; the published code stops at
kappa = exp(5), 0.08 rad, which cannot resolve back-to-back particles."""

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def gaussian_log_prob(x: Tensor, parameters: Tensor) -> Tensor:
    """Log density (...) of a Gaussian mixture at x (...); parameters (..., 3K)."""
    logits, mean, log_sigma = parameters.chunk(3, dim=-1)
    log_sigma = log_sigma.clamp(*LOG_SIGMA)
    pull = (x.unsqueeze(-1) - mean) * torch.exp(-log_sigma)
    each = F.log_softmax(logits, -1) - 0.5 * pull**2 - log_sigma
    return torch.logsumexp(each, -1) - _HALF_LOG_2PI


def von_mises_log_prob(x: Tensor, parameters: Tensor) -> Tensor:
    """Log density (...) on the circle of a von Mises mixture at x (...); parameters (..., 3K).

    Written with kappa (cos - 1) = -2 kappa sin^2(half the distance) and the
    scaled Bessel function, so that large concentrations neither overflow nor cancel.
    """
    logits, mean, log_kappa = parameters.chunk(3, dim=-1)
    log_kappa = log_kappa.clamp(*LOG_KAPPA)
    kappa = torch.exp(log_kappa)
    pull = -2.0 * kappa * torch.sin(0.5 * (x.unsqueeze(-1) - mean)) ** 2
    each = F.log_softmax(logits, -1) + pull - log_i0e(kappa)
    return torch.logsumexp(each, -1) - math.log(2 * math.pi)


def log_i0e(kappa: Tensor) -> Tensor:
    """log(exp(-kappa) I_0(kappa)), with a gradient that does not cancel at large kappa."""
    large = kappa > 50.0
    inverse = 1.0 / kappa.clamp_min(50.0)
    # Asymptotic series of I_0 (Abramowitz and Stegun 9.7.1); the next term is below 2e-8.
    series = torch.log1p(
        inverse * (1 / 8 + inverse * (9 / 128 + inverse * (225 / 3072 + inverse * 11025 / 98304)))
    )
    asymptotic = series + 0.5 * torch.log(inverse) - _HALF_LOG_2PI
    small = torch.log(torch.special.i0e(kappa.clamp_max(50.0)))
    return torch.where(large, asymptotic, small)


def _choose(parameters: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Location and log width (batch,) of a component drawn for each row (batch, 3K)."""
    logits, location, log_width = parameters.chunk(3, dim=-1)
    cumulative = logits.softmax(-1).cumsum(-1)
    u = torch.rand(len(logits), 1, generator=generator, device=logits.device) * cumulative[:, -1:]
    k = (cumulative <= u).sum(-1, keepdim=True).clamp_max_(logits.shape[-1] - 1)
    return location.gather(-1, k).squeeze(-1), log_width.gather(-1, k).squeeze(-1)


def sample_gaussian(parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws (batch,) from Gaussian mixtures with parameters (batch, 3K)."""
    mean, log_sigma = _choose(parameters, generator)
    noise = torch.randn(len(mean), generator=generator, device=mean.device)
    return mean + torch.exp(log_sigma.clamp(*LOG_SIGMA)) * noise


def sample_von_mises(parameters: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draws (batch,) in [-pi, pi) from von Mises mixtures with parameters (batch, 3K).

    Rejection from a wrapped Cauchy envelope (Best and Fisher, Appl. Stat. 28
    (1979) 152), in double precision; where the concentration is so large that
    the envelope's constants cancel, the limiting Gaussian is exact to rounding.
    """
    mean, log_kappa = _choose(parameters, generator)
    kappa = torch.exp(log_kappa.clamp(*LOG_KAPPA)).double()
    deviation = torch.empty_like(kappa)
    tau = 1 + torch.sqrt(1 + 4 * kappa**2)
    rho = (tau - torch.sqrt(2 * tau)) / (2 * kappa)
    r = (1 + rho**2) / (2 * rho)
    # For small kappa rho cancels; its limit is kappa.
    r = torch.where(kappa < 1e-4, 1 / kappa, r)
    todo = torch.arange(len(kappa), device=kappa.device)
    while len(todo):
        kap, rr = kappa[todo], r[todo]
        u = torch.rand(3, len(todo), generator=generator, device=kappa.device, dtype=torch.float64)
        z = torch.cos(math.pi * u[0])
        f = ((1 + rr * z) / (rr + z)).clamp(-1.0, 1.0)
        c = kap * (rr - f)
        good = torch.log(c / u[1].clamp_min(1e-300)) + 1 - c >= 0
        angle = torch.arccos(f) * torch.where(u[2] < 0.5, -1.0, 1.0)
        deviation[todo[good]] = angle[good]
        todo = todo[~good]
    x = mean.double() + deviation
    x = torch.remainder(x + math.pi, 2 * math.pi) - math.pi
    return x.to(parameters.dtype)
