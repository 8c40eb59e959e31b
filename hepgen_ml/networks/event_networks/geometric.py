"""Equivariant networks of events: the outputs are invariant."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.event_networks.base import EventNetwork, EventShape
from hepgen_ml.networks.event_networks.plain import padded, require_particles
from hepgen_ml.networks.lgatr import LGATr, Multivectors, Symmetry
from hepgen_ml.networks.lgatr.algebra import embed_vectors
from hepgen_ml.networks.lgatr.embedding import (
    append_channels,
    append_tokens,
    embed_components,
    embed_momenta,
    reference_components,
)
from hepgen_ml.networks.lgatr.inference import Prepared
from hepgen_ml.networks.lgatr.layers import EquiLinear, EquiNorm, GeometricMLP
from hepgen_ml.networks.names import REFERENCES

_FOR_SIZE = 2000
"""Number of events to determine the scale of momenta."""


class _Geometric(EventNetwork):
    """Networks without references see invariants alone, and measure momenta in the size of these.

    They do not depend on the frame: in units of a typical energy the products of momenta would be
    small numbers of very different size.
    """

    references: Tensor

    def fit_features(self, p: Tensor, there: Tensor) -> None:
        if self.symmetry == "lorentz" and not len(self.references):
            self.unit.mul_(_invariant_size(p, there))


class LGATrNetwork(_Geometric):
    """Lorentz-equivariant geometric-algebra transformer; a token of the whole event is read out.

    Parameters
    ----------
    shape : EventShape
    channels, scalars : int
        Multivectors and plain scalars of the hidden states.
    blocks, heads : int
    references : str
        Directions that break the symmetry: "none", or "beams" (a light-like vector along each) or
        "plane" (transverse to the beams), each also with "+time", or "time" alone.
    reference_tokens : bool
        References are tokens of their own, or else more channels of every token.
    """

    symmetry: Symmetry = "lorentz"

    def __init__(
        self,
        shape: EventShape,
        *,
        channels: int = 16,
        scalars: int = 32,
        blocks: int = 4,
        heads: int = 8,
        references: str = "none",
        reference_tokens: bool = True,
    ) -> None:
        super().__init__(shape)
        directions = _directions(references)
        self.register_buffer("references", directions, persistent=False)
        as_tokens = reference_tokens and len(directions) > 0
        self.as_channels = len(directions) > 0 and not reference_tokens
        self.particle = nn.Linear(shape.n_scalars, scalars) if shape.n_scalars else None
        self.event = nn.Linear(shape.n_globals, scalars) if shape.n_globals else None
        # the token of the event, then those of the references
        n_more = 1 + (len(directions) if as_tokens else 0)
        self.more = nn.Parameter(torch.randn(n_more, scalars) * 0.5)
        more = torch.cat([torch.zeros(1, 16), directions])[:n_more]
        self.register_buffer("more_components", more, persistent=False)
        self.more_components: Tensor
        self.network = LGATr(
            blocks=blocks,
            in_channels=1 + (len(directions) if self.as_channels else 0),
            channels=channels,
            in_scalars=scalars,
            out_scalars=shape.n_out,
            scalars=scalars,
            heads=heads,
            symmetry=self.symmetry,
        )
        self._prepared = Prepared(self.network)

    def outputs(
        self, p: Tensor, scalars: Tensor, mask: Tensor | None, globals_: Tensor
    ) -> Tensor:
        n, k = p.shape[:2]
        if self.particle is None:
            plain = scalars.new_zeros(n, k, self.more.shape[1])
        else:
            plain = self.particle(scalars)
        x = embed_momenta(p.to(scalars.dtype), plain, self.symmetry)
        more = self.more.expand(n, -1, -1)
        if self.event is not None:
            more = more + self.event(globals_).unsqueeze(1)
        components = embed_components(self.more_components.unsqueeze(-2), self.symmetry)
        x = append_tokens(x, components, more)
        if self.as_channels:
            fixed = embed_components(self.references.unsqueeze(0), self.symmetry)
            x = append_channels(x, fixed)
        if mask is not None:
            mask = F.pad(mask, (0, more.shape[1]), value=True)
        return self._prepared()(x, mask).scalars[:, k, 2:]


class GATrNetwork(LGATrNetwork):
    """The same, equivariant under rotations alone; the time direction is that of the momenta."""

    symmetry: Symmetry = "rotation"


class GAP(_Geometric):
    """Geometric-algebra perceptron: L-GATr without attention, all particles as channels.

    Equivariant under Lorentz transformations, but not under permutations.

    Parameters
    ----------
    shape : EventShape
    channels, scalars : int
        Multivectors and plain scalars of the hidden states.
    blocks : int
    references : str
        See `LGATrNetwork`; further channels.
    """

    symmetry: Symmetry = "lorentz"
    permutations = False

    def __init__(
        self,
        shape: EventShape,
        *,
        channels: int = 32,
        scalars: int = 64,
        blocks: int = 4,
        references: str = "none",
    ) -> None:
        super().__init__(shape)
        require_particles(shape)
        directions = _directions(references)
        self.register_buffer("references", directions, persistent=False)
        n_particles = shape.n_particles
        n_in = n_particles * (shape.n_scalars + 1) + shape.n_globals
        self.network = _Stack(
            n_particles + len(directions), n_in, shape.n_out, channels, scalars, blocks
        )

    def outputs(
        self, p: Tensor, scalars: Tensor, mask: Tensor | None, globals_: Tensor
    ) -> Tensor:
        there = torch.ones(p.shape[:2], device=p.device) if mask is None else mask
        plain = torch.cat([scalars, there.to(scalars.dtype).unsqueeze(-1)], dim=-1)
        plain = padded(plain, self.n_particles).flatten(1)
        plain = torch.cat([plain, globals_], dim=-1).unsqueeze(1)
        momenta = padded(p, self.n_particles).to(plain.dtype)
        # one token, whose channels are the particles
        x = embed_vectors(momenta.unsqueeze(1), plain)
        if len(self.references):
            fixed = embed_components(self.references.unsqueeze(0), self.symmetry)
            x = append_channels(x, fixed)
        return self.network(x).scalars[:, 0, 2:]


class _Stack(nn.Module):
    """Residual blocks of norms and products."""

    compiles = True

    def __init__(
        self, n_in: int, n_plain: int, n_out: int, channels: int, scalars: int, blocks: int
    ) -> None:
        super().__init__()
        self.first = EquiLinear(n_in, channels, n_plain, scalars)
        self.norms = nn.ModuleList(EquiNorm(channels, scalars) for _ in range(blocks))
        self.blocks = nn.ModuleList(GeometricMLP(channels, scalars, 1) for _ in range(blocks))
        self.last = EquiLinear(channels, 1, scalars, n_out)

    def forward(self, x: Multivectors) -> Multivectors:
        """Output channel and scalars of tokens."""
        x = self.first(x)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x.plus(block(norm(x)))
        return self.last(x)


def _invariant_size(p: Tensor, there: Tensor) -> Tensor:
    """Geometric mean of sqrt(2 p_i · p_j) of all pairs of particles; 1 without pairs."""
    p, there = p[:_FOR_SIZE].double(), there[:_FOR_SIZE]
    i, j = torch.triu_indices(p.shape[1], p.shape[1], 1, device=p.device)
    product = p[:, i, 3] * p[:, j, 3] - (p[:, i, :3] * p[:, j, :3]).sum(-1)
    some = product[there[:, i] & there[:, j] & (product > 0)]
    return torch.exp(0.5 * torch.log(2 * some).mean()) if len(some) else p.new_ones(())


def _directions(references: str) -> Tensor:
    if references not in REFERENCES:
        raise ValueError(
            f"references {references[:50]!r} are not known; there are {', '.join(REFERENCES)}"
        )
    where = references.removesuffix("time").removesuffix("+") or "none"
    return reference_components(where, references.endswith("time"))
