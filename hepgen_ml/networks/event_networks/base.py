"""Common base of all networks of events: their call and their standardised inputs."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hepgen_ml.networks.elementwise import SiLU

N_FEATURES = 7
"""Number of features of a momentum for networks without a symmetry, see `momentum_features`."""

_LIMIT = 10.0
"""Bound of standardised inputs of the network."""

_SMALLEST_PT = 1e-3
"""Transverse momenta in units of a typical energy: those of beams are zero, up to rounding."""


class EventShape(NamedTuple):
    """Numbers of inputs and outputs of a network of events.

    Attributes
    ----------
    n_scalars : int
        Scalars s of each particle, such as its type as one-hot numbers.
    n_out : int
        Numbers that the network gives for each event.
    n_particles : int
        Largest number k of particles, where the architecture depends on it.
    n_globals : int
        Numbers g that describe a whole event.
    """

    n_scalars: int
    n_out: int
    n_particles: int = 0
    n_globals: int = 0


class EventNetwork(nn.Module, ABC):
    """Network from a set of particles to numbers.

    ``forward(momenta, scalars, mask=None, globals_=None)`` takes

    - momenta (n, k, 4) as (px, py, pz, E) in GeV, in single or double precision,
    - scalars (n, k, s) of each particle, such as its type as one-hot numbers,
    - mask (n, k) of bool, False where there is no particle; its momentum and scalars are ignored,
    - ``globals_`` (n, g), numbers that describe the whole event,

    and gives (n, n_out). Before the first use, `fit_standardization` sees typical events.

    Parameters
    ----------
    shape : EventShape

    Attributes
    ----------
    settings : dict
        Plain values with which `hepgen_ml.networks.event_networks.build` makes it again.
    symmetry : str
        Transformations of the momenta that leave the outputs as they are: "none", "rotation" or
        "lorentz" (without reflections). References break it to the subgroup that
        leaves them invariant.
    permutations : bool
        Whether the order of the particles does not matter.
    """

    symmetry = "none"
    permutations = True
    settings: dict[str, Any]

    def __init__(self, shape: EventShape) -> None:
        super().__init__()
        self.n_scalars, self.n_out = shape.n_scalars, shape.n_out
        self.n_particles, self.n_globals = shape.n_particles, shape.n_globals
        self.unit: Tensor
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))
        self.scalar_scale = Standardization(shape.n_scalars)
        self.global_scale = Standardization(shape.n_globals)

    @classmethod
    def sizes(cls) -> dict[str, Any]:
        """Names and defaults of its sizes."""
        parameters = inspect.signature(cls).parameters
        return {name: p.default for name, p in parameters.items() if name != "shape"}

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    def forward(
        self,
        momenta: Tensor,
        scalars: Tensor,
        mask: Tensor | None = None,
        globals_: Tensor | None = None,
    ) -> Tensor:
        """Outputs (n, n_out) of events."""
        if globals_ is None:
            globals_ = momenta.new_zeros(len(momenta), self.n_globals)
        p = momenta / self.unit.to(momenta.dtype)
        scalars, globals_ = self.scalar_scale(scalars), self.global_scale(globals_)
        if mask is not None:
            # rows of missing particles may have any value, including nan
            p = torch.where(mask.unsqueeze(-1), p, torch.zeros_like(p))
            scalars = torch.where(mask.unsqueeze(-1), scalars, torch.zeros_like(scalars))
        return self.outputs(p, scalars.to(self.dtype), mask, globals_.to(self.dtype))

    @abstractmethod
    def outputs(
        self, p: Tensor, scalars: Tensor, mask: Tensor | None, globals_: Tensor
    ) -> Tensor:
        """Outputs (n, n_out) of momenta in units of a typical energy and standardised numbers."""

    @torch.no_grad()
    def fit_standardization(
        self,
        momenta: Tensor,
        scalars: Tensor,
        mask: Tensor | None = None,
        globals_: Tensor | None = None,
    ) -> None:
        """Take means and widths of inputs from some events, as `forward` takes them."""
        there = torch.ones(momenta.shape[:2], dtype=torch.bool, device=momenta.device)
        if mask is not None:
            there = mask
        energy = momenta[..., 3][there].abs().mean()
        self.unit.copy_(energy if energy > 0 else torch.ones_like(energy))
        self.scalar_scale.fit(scalars[there])
        if globals_ is not None:
            self.global_scale.fit(globals_)
        p = torch.where(there.unsqueeze(-1), momenta, torch.zeros_like(momenta))
        self.fit_features(p / self.unit.to(momenta.dtype), there)

    def fit_features(self, p: Tensor, there: Tensor) -> None:
        """Take means and widths of the features of momenta, if the network needs them."""


class Standardization(nn.Module):
    """Numbers minus their mean over their width, within limits.

    Numbers that are zero or one, and numbers that hardly vary, are not changed.

    Parameters
    ----------
    *shape : int
        Of the numbers of one event; means are taken over all dimensions before.
    """

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("std", torch.ones(shape, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised numbers of the same shape."""
        return ((x - self.mean.to(x.dtype)) / self.std.to(x.dtype)).clamp(-_LIMIT, _LIMIT)

    def fit(self, x: Tensor, there: Tensor | None = None) -> None:
        """Take means and widths from numbers (n, *shape), masked by (n, *shape)."""
        if not len(x):
            return
        x = x.double()
        there = torch.ones_like(x, dtype=torch.bool) if there is None else there
        n = there.sum(0).clamp_min(1)
        mean = torch.where(there, x, 0.0).sum(0) / n
        std = torch.sqrt(torch.where(there, (x - mean) ** 2, 0.0).sum(0) / n)
        plain = (torch.where(there, (x == 0) | (x == 1), True)).all(0)
        plain |= std <= 1e-4 * mean.abs().clamp_min(1e-2)
        self.mean.copy_(torch.where(plain & (std > 0), 0.0, mean) if x.ndim else mean)
        self.std.copy_(torch.where(plain, 1.0, std))


class Perceptron(nn.Module):
    """Layers of one width; layers of equal input and output width are residual.

    Parameters
    ----------
    n_in, width, layers, n_out : int
    """

    compiles = True

    def __init__(self, n_in: int, width: int, layers: int, n_out: int) -> None:
        super().__init__()
        if layers < 1 or width < 1:
            raise ValueError("at least one layer of one channel is needed")
        self.first = nn.Linear(n_in, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.last = nn.Linear(width, n_out)
        self.act = SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Inputs (..., n_in) -> outputs (..., n_out)."""
        h = self.act(self.first(x))
        for layer in self.hidden:
            h = h + self.act(layer(h))
        return self.last(h)


def momentum_features(p: Tensor) -> Tensor:
    """Features (n, k, 7) of momenta in units of a typical energy: components and logarithms."""
    pt = torch.hypot(p[..., 0], p[..., 1]).clamp_min(_SMALLEST_PT)
    energy = p[..., 3].clamp_min(_SMALLEST_PT)
    more = [torch.log(energy), torch.log(pt), torch.asinh(p[..., 2] / pt)]
    return torch.cat([p, torch.stack(more, dim=-1)], dim=-1)


def pair_products(p: Tensor) -> Tensor:
    """Logarithms (n, k (k + 1) / 2) of p_i · p_j of all pairs, i = j among them.

    Computed in double precision: the product of nearly parallel momenta is a small difference.
    """
    p = p.double()
    i, j = torch.triu_indices(p.shape[1], p.shape[1], device=p.device)
    a, b = p[:, i], p[:, j]
    product = a[..., 3] * b[..., 3] - (a[..., :3] * b[..., :3]).sum(-1)
    return torch.log(product.clamp_min(1e-9))
