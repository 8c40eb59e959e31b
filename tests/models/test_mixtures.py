"""Mixture densities: normalised, and sampled from as they say."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from hepgen_ml.models.mixtures import (
    LOG_KAPPA,
    gaussian_log_prob,
    log_i0e,
    sample_gaussian,
    sample_von_mises,
    von_mises_log_prob,
)


def parameters(kind: str, log_width: float) -> torch.Tensor:
    torch.manual_seed(0)
    k = 3
    return torch.cat(
        [torch.randn(k), torch.linspace(-2.0, 2.5, k), log_width + 0.3 * torch.randn(k)]
    )


@pytest.mark.parametrize("log_sigma", [-3.0, -1.0, 0.5])
def test_gaussian_integrates_to_one(log_sigma: float) -> None:
    x = torch.linspace(-40, 40, 400_001, dtype=torch.float64)
    log_p = gaussian_log_prob(x, parameters("gaussian", log_sigma).double())
    assert torch.trapezoid(log_p.exp(), x).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("log_kappa", [-5.0, 0.0, 3.0, 5.0, 8.0, 11.0])
def test_von_mises_integrates_to_one(log_kappa: float) -> None:
    x = torch.linspace(-math.pi, math.pi, 1_000_001, dtype=torch.float64)
    log_p = von_mises_log_prob(x, parameters("angle", log_kappa).double())
    assert torch.trapezoid(log_p.exp(), x).item() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("log_kappa", [-6.0, -1.0, 1.0, 4.0, 8.0, 12.0])
def test_von_mises_against_scipy(log_kappa: float) -> None:
    kappa, mean = math.exp(log_kappa), 1.0
    x = mean + torch.linspace(-3, 3, 41, dtype=torch.float64) / math.sqrt(1 + kappa)
    one = torch.tensor([0.0, mean, log_kappa], dtype=torch.float64)
    ours = von_mises_log_prob(x, one)
    assert torch.allclose(
        ours, torch.from_numpy(stats.vonmises(kappa, loc=mean).logpdf(x)), atol=2e-6
    )


def test_bessel_gradient() -> None:
    kappa = torch.logspace(-3, 5, 60, dtype=torch.float64, requires_grad=True)
    log_i0e(kappa).sum().backward()
    expected = torch.special.i1e(kappa) / torch.special.i0e(kappa) - 1
    assert torch.allclose(kappa.grad, expected.detach(), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("log_kappa", [-6.0, -2.0, 0.0, 2.0, 6.0, LOG_KAPPA[1]])
def test_von_mises_samples(log_kappa: float) -> None:
    n = 20_000
    generator = torch.Generator().manual_seed(3)
    rows = torch.tensor([0.0, 2.0, log_kappa]).expand(n, 3)
    x = sample_von_mises(rows, generator)
    assert x.min() >= -math.pi
    assert x.max() < math.pi
    deviation = torch.remainder(x.double() - 2.0 + math.pi, 2 * math.pi) - math.pi
    p = stats.kstest(deviation.numpy(), stats.vonmises(math.exp(log_kappa)).cdf).pvalue
    assert p > 1e-4


def test_gaussian_samples_follow_the_density() -> None:
    n = 50_000
    one = parameters("gaussian", -1.0)
    x = sample_gaussian(one.expand(n, -1), torch.Generator().manual_seed(4)).double()
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    density = gaussian_log_prob(grid, one.double()).exp()
    cdf = torch.cumulative_trapezoid(density, grid)

    def distribution(v: object) -> object:
        import numpy as np

        return np.interp(v, grid[1:].numpy(), cdf.numpy())

    assert stats.kstest(x.numpy(), distribution).pvalue > 1e-4


def test_back_to_back_peak_is_resolved() -> None:
    """A peak of 0.01 rad is beyond the published range of concentrations (0.082 rad)."""
    x = math.pi + 0.01 * torch.randn(5000)
    kappa_limit = von_mises_log_prob(x, torch.tensor([0.0, math.pi, 5.0])).mean()
    ours = von_mises_log_prob(x, torch.tensor([0.0, math.pi, math.log(1 / 0.01**2)])).mean()
    assert ours - kappa_limit > 1.5
