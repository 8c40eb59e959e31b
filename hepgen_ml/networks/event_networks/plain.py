"""Networks of events without a symmetry of momenta: perceptron, deep sets, transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.event_networks.base import (
    N_FEATURES,
    EventNetwork,
    EventShape,
    Perceptron,
    Standardization,
    momentum_features,
    pair_products,
)
from hepgen_ml.networks.transformer import Transformer


class MLP(EventNetwork):
    """Perceptron on the momenta of all particles, in their order.

    Parameters
    ----------
    shape : EventShape
    width, layers : int
    """

    permutations = False

    def __init__(
        self,
        shape: EventShape,
        *,
        width: int = 128,
        layers: int = 5,
    ) -> None:
        super().__init__(shape)
        require_particles(shape)
        self.features = Standardization(shape.n_particles, N_FEATURES)
        n_in = shape.n_particles * (N_FEATURES + shape.n_scalars + 1) + shape.n_globals
        self.network = Perceptron(n_in, width, layers, shape.n_out)

    def fit_features(self, p: Tensor, there: Tensor) -> None:
        p, there = padded(p, self.n_particles), padded(there.unsqueeze(-1), self.n_particles)
        self.features.fit(momentum_features(p), there.expand(-1, -1, N_FEATURES))

    def outputs(
        self, p: Tensor, scalars: Tensor, mask: Tensor | None, globals_: Tensor
    ) -> Tensor:
        k = self.n_particles
        there = _there(p, mask, scalars.dtype)
        p, scalars, there = padded(p, k), padded(scalars, k), padded(there, k)
        features = self.features(momentum_features(p.to(scalars.dtype))) * there
        tokens = torch.cat([features, scalars, there], dim=-1)
        return self.network(torch.cat([tokens.flatten(1), globals_], dim=-1))


class DeepSets(EventNetwork):
    """Perceptron of each particle, summed over particles, and a perceptron of the sum.

    With `invariants`, the latter also sees log(p_i · p_j) of all pairs of particles, in their order
    (thesis of J. Spinner, appendix A.3, where it is called DSI): the best network for amplitudes
    with few particles, but then the order of the particles matters.

    Parameters
    ----------
    shape : EventShape
    width, layers : int
        Of the perceptron of the event; that of a particle has the same width and half the layers.
    latent : int
        Numbers that are summed.
    invariants : bool
    """

    def __init__(
        self,
        shape: EventShape,
        *,
        width: int = 128,
        layers: int = 4,
        latent: int = 64,
        invariants: bool = False,
    ) -> None:
        super().__init__(shape)
        self.permutations = not invariants
        self.features = Standardization(N_FEATURES)
        self.particle = Perceptron(N_FEATURES + shape.n_scalars, width, max(layers // 2, 1), latent)
        self.count: Tensor
        self.register_buffer("count", torch.ones(()))
        n_pairs = 0
        if invariants:
            require_particles(shape)
            n_pairs = shape.n_particles * (shape.n_particles + 1) // 2
        self.pairs = Standardization(n_pairs)
        self.invariants = invariants
        self.network = Perceptron(latent + n_pairs + shape.n_globals, width, layers, shape.n_out)

    def fit_features(self, p: Tensor, there: Tensor) -> None:
        self.features.fit(momentum_features(p)[there])
        self.count.copy_(there.sum(1).float().mean().clamp_min(1.0))
        if self.invariants:
            p, there = padded(p, self.n_particles), padded(there.unsqueeze(-1), self.n_particles)
            self.pairs.fit(pair_products(p), _of_pairs(there.squeeze(-1)))

    def outputs(
        self, p: Tensor, scalars: Tensor, mask: Tensor | None, globals_: Tensor
    ) -> Tensor:
        features = self.features(momentum_features(p.to(scalars.dtype)))
        there = _there(p, mask, scalars.dtype)
        each = self.particle(torch.cat([features, scalars], dim=-1))
        parts = [(each * there).sum(1) / self.count.to(each.dtype), globals_]
        if self.invariants:
            k = self.n_particles
            pairs = self.pairs(pair_products(padded(p, k))).to(each.dtype)
            parts.append(pairs * _of_pairs(padded(there, k).squeeze(-1)))
        return self.network(torch.cat(parts, dim=-1))


class TransformerNetwork(EventNetwork):
    """Attention between all particles; a token of the whole event is read out.

    Parameters
    ----------
    shape : EventShape
    width, blocks, heads, mlp_ratio : int
    dropout : float
    """

    def __init__(
        self,
        shape: EventShape,
        *,
        width: int = 128,
        blocks: int = 4,
        heads: int = 8,
        mlp_ratio: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(shape)
        self.features = Standardization(N_FEATURES)
        self.particle = nn.Linear(N_FEATURES + shape.n_scalars, width)
        self.event = nn.Linear(shape.n_globals, width) if shape.n_globals else None
        self.readout = nn.Parameter(torch.randn(width) * 0.2)
        self.network = Transformer(width, blocks, heads, mlp_ratio, dropout=dropout)
        self.last = nn.Linear(width, shape.n_out)

    def fit_features(self, p: Tensor, there: Tensor) -> None:
        self.features.fit(momentum_features(p)[there])

    def outputs(
        self, p: Tensor, scalars: Tensor, mask: Tensor | None, globals_: Tensor
    ) -> Tensor:
        features = self.features(momentum_features(p.to(scalars.dtype)))
        tokens = self.particle(torch.cat([features, scalars], dim=-1))
        first = self.readout.expand(len(p), -1)
        if self.event is not None:
            first = first + self.event(globals_)
        tokens = torch.cat([first.unsqueeze(1), tokens], dim=1)
        if mask is not None:
            mask = F.pad(mask, (1, 0), value=True)
        return self.last(self.network(tokens, mask=mask)[:, 0])


def padded(x: Tensor, k: int) -> Tensor:
    """Rows (n, k, ...) of at most k particles, filled up with zeros."""
    missing = k - x.shape[1]
    if missing < 0:
        raise ValueError(f"{x.shape[1]} particles, the network is for {k} at most")
    return x if missing == 0 else F.pad(x, (0, 0, 0, missing))


def _there(p: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Mask (n, k, 1), one if there is a particle, else zero."""
    there = torch.ones(p.shape[:2], device=p.device) if mask is None else mask
    return there.to(dtype).unsqueeze(-1)


def _of_pairs(there: Tensor) -> Tensor:
    """The same for all pairs (n, k (k + 1) / 2)."""
    i, j = torch.triu_indices(there.shape[1], there.shape[1], device=there.device)
    return there[:, i] * there[:, j]


def require_particles(shape: EventShape) -> None:
    """Refuse a shape without the largest number of particles."""
    if shape.n_particles < 1:
        raise ValueError("the largest number of particles is needed")
