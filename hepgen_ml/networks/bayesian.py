r"""Variational weights: networks with a Gaussian posterior instead of numbers (arXiv:2412.12074).

The posterior q of every weight is an independent Gaussian, the prior p one of
width :math:`\sigma_p`. Training minimises, per event,

.. math:: -\langle\log p(x|\theta)\rangle_{\theta\sim q} + \mathrm{KL}(q, p) / N ,

equations 3.6 and 3.7 of the thesis of J. Spinner (Heidelberg 2025), with N
training events. Noise is drawn on activations instead of weights (local
reparametrisation, arXiv:1506.02557): each event has independent noise, which reduces the variance
of gradients. Biases have a posterior too, unlike in published codes: otherwise a network moves the
uncertainty into them, and the density of a first coordinate consists of biases only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.principal_axes import LOG_VARIANCE, PrincipalAxes, Watch, with_noise

INITIAL_LOG_VARIANCE = -9.0
LEAST_STORED = -11.0
"""Its lower end when models were stored that do not say which one they have."""


class Variational(nn.Module):
    """Weights with a Gaussian posterior.

    While training, products with them carry noise; otherwise the weights are
    their means, or one posterior draw (`posterior_draw`).

    Parameters
    ----------
    mean : tensor
        Initial means.
    prior_std : float
        Width of the Gaussian prior around zero.
    used : bool tensor, optional
        Broadcast against the weights: those that the model uses. The others are left out of the
        divergence.
    weight : Variational, optional
        Weights of the linear map whose biases these are.

    Attributes
    ----------
    seed : int64 tensor
        Stored with the weights; draw k is a function of it and k alone, the
        same on every machine.
    axes : PrincipalAxes or None
        Posterior of weights and biases of a map together, if it was found after the training.
        Draws and noise are of it.
    watch : Watch or None
        Follows what the map does, to find the axes.
    of : tuple of Variational
        The weights of the map, if these are biases.
    """

    def __init__(
        self,
        mean: Tensor,
        prior_std: float = 1.0,
        used: Tensor | None = None,
        weight: Variational | None = None,
    ) -> None:
        super().__init__()
        self.mean = nn.Parameter(mean.detach().clone())
        self.log_variance = nn.Parameter(torch.full_like(self.mean, INITIAL_LOG_VARIANCE))
        self.prior_std = prior_std
        self.seed: Tensor
        self.used: Tensor | None
        self.register_buffer("seed", torch.randint(1 << 62, ()))
        self.register_buffer("used", used, persistent=False)
        self._drawn: Tensor | None = None
        self.axes: PrincipalAxes | None = None
        self.watch: Watch | None = None
        self.of = () if weight is None else (weight,)  # a tuple: no module inside this one

    @property
    def matrices(self) -> tuple[int, int, int]:
        """Number of matrices of weights, and their inputs, with that of the biases, and outputs."""
        n, width, *outputs = self.mean.shape
        return n, width + 1, outputs[0] if outputs else 1

    @property
    def variance(self) -> Tensor:
        """Posterior variances, in the shape of the weights."""
        return torch.exp(self.log_variance.clamp(*LOG_VARIANCE))

    @property
    def weight(self) -> Tensor:
        """Weights to use without noise: the draw that is set, or else the means."""
        return self.mean if self._drawn is None else self._drawn

    @property
    def noisy(self) -> bool:
        """Whether linear maps currently add the noise of the posterior."""
        return self.training and self._drawn is None

    def einsum(self, equation: str, x: Tensor, rows: list[int] | Tensor | None = None) -> Tensor:
        """Product of inputs with the weights (or some rows of them), with noise while training."""

        def chosen(w: Tensor) -> Tensor:
            return w if rows is None else w[rows]

        out = torch.einsum(equation, x, chosen(self.weight))
        if not self.noisy:
            return out
        return with_noise(out, torch.einsum(equation, x * x, chosen(self.variance)))

    def kl(self) -> Tensor:
        """Divergence KL(q, p) of the posterior from the prior, equation 3.7, in nats."""
        log_ratio = self.log_variance.clamp(*LOG_VARIANCE) - 2 * math.log(self.prior_std)
        each = 0.5 * ((self.mean / self.prior_std) ** 2 + torch.exp(log_ratio) - 1 - log_ratio)
        return (each if self.used is None else each * self.used).sum()

    @torch.no_grad()
    def draw(self, k: int) -> Tensor:
        """Weights of posterior draw k = 0, 1, ..."""
        if self.axes is not None:
            return self.mean + self._deviation(k)[:, :-1].reshape(self.mean.shape)
        if self.of and self.of[0].axes is not None:
            return self.mean + self.of[0]._deviation(k)[:, -1].reshape(self.mean.shape)
        return self.mean + torch.sqrt(self.variance) * self._noise(k, self.mean.shape)

    def _noise(self, k: int, shape: tuple[int, ...]) -> Tensor:
        rng = np.random.default_rng(np.random.SeedSequence(int(self.seed), spawn_key=(k,)))
        noise = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=np.float32))
        return noise.to(self.mean)

    def _deviation(self, k: int) -> Tensor:
        """Deviation of weights and, in the last row, biases from their means in draw k."""
        assert self.axes is not None
        return self.axes.deviation(self._noise(k, self.matrices))

    def set_draw(self, k: int | None) -> None:
        """Use posterior draw k, or the means (None)."""
        # Likelihoods of flows differentiate, which tensors of inference mode do not allow.
        with torch.inference_mode(False):
            self._drawn = None if k is None else self.draw(k)


class BayesianLinear(Variational):
    """Linear map with a Gaussian posterior, in place of `torch.nn.Linear`.

    Parameters
    ----------
    linear : nn.Linear
        Gives initial means of weights and biases.
    prior_std : float
    """

    def __init__(self, linear: nn.Linear, prior_std: float = 1.0) -> None:
        super().__init__(linear.weight, prior_std)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        bias: Tensor | None = linear.bias
        self.offset = None if bias is None else Variational(bias, prior_std)

    @property
    def bias(self) -> Tensor:
        """Biases to use without noise, as `weight`; zeros for a map without."""
        if self.offset is None:
            return self.mean.new_zeros(self.out_features)
        return self.offset.weight

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (..., in_features) -> outputs (..., out_features)."""
        out = F.linear(x, self.weight, self.bias)
        if not self.noisy:
            return out
        spread = None if self.offset is None else self.offset.variance
        return with_noise(out, F.linear(x * x, self.variance, spread))


class Members:
    """A model with several members, one of which is a draw."""

    drawn: int | None = None

    @property
    def n_members(self) -> int:
        """Draw k is of member k modulo this, and of the posterior of that, if it has one."""
        raise NotImplementedError


def without_noise(weights: nn.Parameter | Variational) -> Tensor:
    """Weights to use without noise, whether they have a posterior or not."""
    return weights.weight if isinstance(weights, Variational) else weights


def perturbed(
    weights: nn.Parameter | Variational,
    hidden: Tensor,
    out: Tensor,
    rows: list[int],
    variance: Callable[[], Tensor],
) -> Tensor:
    """Outputs of a linear map with the noise of the posterior, while training.

    Parameters
    ----------
    weights : nn.Parameter or Variational
        Of n matrices.
    hidden : tensor
        Inputs (m, w) of all matrices, or (m, d, w) of each.
    out : tensor
        Outputs (m, d, k), or (m, d) of matrices with one.
    rows : list of int
        Numbers (d,) of the matrices.
    variance : callable
        Gives the variances of the outputs if all weights are independent.
    """
    if not isinstance(weights, Variational):
        return out
    if weights.watch is not None:
        weights.watch(hidden, out, rows)
    if not weights.noisy:
        return out
    if weights.axes is None:
        return with_noise(out, variance())
    return out + weights.axes.noise(hidden, rows).view_as(out)


def make_bayesian(module: nn.Module, prior_std: float = 1.0) -> None:
    """Replace every `nn.Linear` inside a module by a `BayesianLinear` around the same weights."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, BayesianLinear(child, prior_std))
        else:
            make_bayesian(child, prior_std)


def variational_layers(module: nn.Module) -> list[Variational]:
    """All variational weights inside a module."""
    return [m for m in module.modules() if isinstance(m, Variational)]


def expect_axes(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make room for those axes of posteriors that are among stored tensors of a module.

    Only where shapes are those of the weights: other tensors are left to be refused, before they
    take any memory.
    """
    for name, layer in module.named_modules():
        if not isinstance(layer, Variational) or layer.mean.ndim < 2:
            continue
        n, w, k = layer.matrices
        found = {key.removeprefix(f"{name}.axes."): tuple(t.shape) for key, t in tensors.items()
                 if key.startswith(f"{name}.axes.")}  # fmt: skip
        for m in {1, n}:
            if found == {"inputs": (m, w, w), "outputs": (n, k, k), "log_variance": (n, w, k)}:
                layer.axes = PrincipalAxes(n, w, k, m)


def check_axes(module: nn.Module) -> None:
    """Refuse axes of posteriors that are no rotations.

    Raises
    ------
    ValueError
    """
    for layer in variational_layers(module):
        if layer.axes is not None:
            layer.axes.check()


def kl_divergence(module: nn.Module) -> Tensor | float:
    """Sum of the divergences of all variational weights inside a module; 0 without any."""
    return sum((layer.kl() for layer in variational_layers(module)), 0.0)


@contextmanager
def posterior_draw(module: nn.Module, k: int | None) -> Iterator[None]:
    """Use posterior draw k in all variational weights of a module, or their means (None).

    Of an ensemble, the draws are its members, and all of them together for None.
    The previous state is restored afterwards.
    """
    layers = variational_layers(module)
    before = [layer._drawn for layer in layers]
    ensemble = next((m for m in module.modules() if isinstance(m, Members)), None)
    n, chosen = (1, None) if ensemble is None else (ensemble.n_members, ensemble.drawn)
    try:
        for layer in layers:
            layer.set_draw(None if k is None else k // n)
        if ensemble is not None:
            ensemble.drawn = None if k is None else k % n
        yield
    finally:
        if ensemble is not None:
            ensemble.drawn = chosen
        for layer, drawn in zip(layers, before, strict=True):
            layer._drawn = drawn
