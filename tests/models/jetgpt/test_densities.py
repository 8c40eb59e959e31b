"""One-dimensional densities: normalised, sampled from as they say, chosen by name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from hepgen_ml.config import load_config
from hepgen_ml.errors import UsageError
from hepgen_ml.models.jetgpt.densities import (
    CircleBins,
    Density1D,
    GaussianMixture,
    LineBins,
    VonMisesMixture,
    choose_densities,
    order_of,
)

NAMES = {"log_pt:j1": False, "eta:j1": False, "phi:j1": True, "log_pt:j2": False}


def skewed(n: int = 20_000) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).gamma(1.5, 1.0, n)).float()


def make(kind: str) -> tuple[Density1D, torch.Tensor, float, float]:
    """A density, parameters, and the range outside of which nothing is left."""
    torch.manual_seed(1)
    density: Density1D
    if kind == "circle":
        density, low, high = CircleBins(12), -math.pi, math.pi
    elif kind == "line":
        density, low, high = LineBins(16), -30.0, 60.0
        density.fit(skewed())
    elif kind == "gaussian":
        density, low, high = GaussianMixture(4), -40.0, 40.0
    else:
        density, low, high = VonMisesMixture(4), -math.pi, math.pi
    return density, density.bias() + 0.5 * torch.randn(density.n_parameters), low, high


@pytest.mark.parametrize("kind", ["circle", "line", "gaussian", "von_mises"])
def test_densities_integrate_to_one_and_are_sampled(kind: str) -> None:
    density, parameters, low, high = make(kind)
    assert parameters.shape == (density.n_parameters,)
    n = 900_000
    grid = low + (high - low) * (torch.arange(n) + 0.5) / n
    p = density.log_prob(grid, parameters.expand(n, -1)).double().exp()
    assert p.sum().item() * (high - low) / n == pytest.approx(1.0, abs=2e-4)
    x = density.sample(parameters.expand(40_000, -1), torch.Generator().manual_seed(2))
    cdf = np.cumsum(p.numpy()) * (high - low) / n
    edges = np.linspace(low, high, n + 1)[1:]
    assert stats.kstest(x.double().numpy(), lambda v: np.interp(v, edges, cdf)).pvalue > 1e-4


def test_bins_are_finite_everywhere_and_follow_the_sample() -> None:
    density = LineBins(64)
    x = skewed()
    density.fit(x)
    edges = density.edges
    assert (edges.diff() > 0).all()
    # narrower where the sample is dense, nowhere wider than two equal bins
    equal = (edges[-1] - edges[0]) / 62
    assert edges.diff().max() < 2.01 * equal
    assert edges[:5].diff().mean() < 0.5 * edges[-5:].diff().mean()
    far = torch.tensor([-1e4, -1.0, 0.0, 1e4])
    assert torch.isfinite(density.log_prob(far, density.bias().expand(4, -1))).all()
    # the starting parameters are the marginal density: no worse than the best Gaussian
    own = density.log_prob(x, density.bias().expand(len(x), -1)).mean()
    gauss = -0.5 - math.log(float(x.std()) * math.sqrt(2 * math.pi))
    assert own > gauss + 0.1
    # both tails hold what lies beyond the edges, with its mean excess
    above = x[x > edges[-1]] - edges[-1]
    assert density.tails[1].item() == pytest.approx(float(above.mean()), rel=1e-3)


def test_bins_of_a_constant_or_discrete_coordinate() -> None:
    rare = torch.cat([torch.zeros(9999), torch.ones(1)])
    for x in (torch.zeros(100), torch.tensor([0.0, 1.0] * 50), rare):
        density = LineBins(8)
        density.fit(x)
        assert (density.edges.diff() > 0).all()
        assert torch.isfinite(density.log_prob(x, density.bias().expand(len(x), -1))).all()


def test_default_and_choice_by_name() -> None:
    default = choose_densities(NAMES, load_config())
    assert [type(d) for d in default] == [
        GaussianMixture, GaussianMixture, VonMisesMixture, GaussianMixture]  # fmt: skip
    chosen = choose_densities(
        NAMES, load_config(None, ["jetgpt.densities.log_pt:*=bins", "jetgpt.bins=10"])
    )
    assert [type(d) for d in chosen] == [LineBins, GaussianMixture, VonMisesMixture, LineBins]
    assert chosen[0] is not chosen[3]
    assert chosen[0].n_parameters == 10
    every = choose_densities(
        NAMES, load_config(None, ["jetgpt.density=bins", "jetgpt.densities.phi:*=von_mises"])
    )
    assert [type(d) for d in every] == [LineBins, LineBins, VonMisesMixture, LineBins]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("jetgpt.densities.log_pt:j1=von_mises", "von_mises does not suit 'log_pt:j1'"),
        ("jetgpt.densities.phi:*=gaussian", "gaussian does not suit 'phi:j1'"),
        ("jetgpt.densities.mass:*=bins", "no coordinate fits 'mass:"),
    ],
)
def test_nonsense_is_refused(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("*", r"\*")):
        choose_densities(NAMES, load_config(None, [override]))


def test_order() -> None:
    names = list(NAMES)
    assert order_of(names, []) == [0, 1, 2, 3]
    assert order_of(names, ["phi:*", "eta:*"]) == [2, 1, 0, 3]
    assert order_of(names, ["*:j2", "log_*"]) == [3, 0, 1, 2]
