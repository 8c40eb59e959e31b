"""L-GATr for sampling on a CPU: weights prepared once, buffers that stay in the cache.

The same kernels as in training, but events go through in small batches whose
intermediate results are written into the same memory again and again, and residual
connections are added by the matrix products themselves.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hepgen_ml.networks.lgatr import fused
from hepgen_ml.networks.lgatr.algebra import Multivectors
from hepgen_ml.networks.lgatr.layers import Block, EquiLinear
from hepgen_ml.networks.lgatr.network import LGATr

TOKENS = 1024
"""Tokens that go through the network together."""


class Inference:
    """Forward pass of a network whose weights stay as they are.

    Parameters
    ----------
    network : LGATr
        Its outputs are those of this object to rounding. On other devices than a CPU,
        in other precisions or with the rotation symmetry the network itself is called.
    """

    def __init__(self, network: LGATr) -> None:
        self.network = network
        self.fused = network.symmetry != "rotation" and fused.available(network.first.bivectors)
        if self.fused:
            self.first, self.last = _Linear(network.first), _Linear(network.last)
            self.blocks = [_Block(block) for block in network.blocks if isinstance(block, Block)]
        self._work: dict[tuple[int, int], list[_Work]] = {}

    @torch.no_grad()
    def __call__(self, x: Multivectors, mask: Tensor | None = None) -> Multivectors:
        """Compute `LGATr.forward` without gradients."""
        if not (self.fused and fused.applies(x)):
            return self.network(x, mask)
        batch, tokens = x.scalars.shape[:2]
        if mask is None:
            mask = torch.ones((batch, tokens), dtype=torch.bool)
        channels = self.last.channels
        out = fused.empty(x, channels, self.last.scalars.shape[0] - 2 * channels)
        step = max(1, TOKENS // tokens)
        for i in range(0, batch, step):
            part = slice(i, min(i + step, batch))
            events = len(mask[part])
            some = Multivectors(*(_flat(t[..., part, :, :]) for t in x))
            done = self._forward(some, mask[part].contiguous(), self._buffers(events, tokens))
            for whole, piece in zip(out, done, strict=True):
                whole[..., part, :, :] = piece.view(*piece.shape[:-2], events, tokens, -1)
        return out

    def _buffers(self, events: int, tokens: int) -> list[_Work]:
        key = (events, tokens)
        if key not in self._work:
            if len(self._work) > 4:
                self._work.clear()
            self._work[key] = [
                _Work(linear, events * tokens)
                for linear in (self.first, *(self.blocks[0].linears if self.blocks else ()))
            ]
        return self._work[key]

    def _forward(self, x: Multivectors, mask: Tensor, work: list[_Work]) -> Multivectors:
        state = work[0]
        self.first.into(x, state.result)
        for block in self.blocks:
            block(state, mask, work)
        return self.last.new(state.result)


class Prepared:
    """A network where gradients are wanted, and otherwise its `Inference`, made when first asked.

    Parameters
    ----------
    network : LGATr
        Its weights may change; they are then prepared again.
    """

    def __init__(self, network: LGATr) -> None:
        self.network = network
        self._fixed: tuple[tuple[int, ...], Inference] | None = None

    def __call__(self) -> LGATr | Inference:
        """The network, with prepared weights where no gradient is wanted."""
        if torch.is_grad_enabled() or self.network.training:
            return self.network
        key = tuple(v for p in self.network.parameters() for v in (p._version, p.data_ptr()))
        if self._fixed is None or self._fixed[0] != key:
            self._fixed = key, Inference(self.network)
        return self._fixed[1]


class _Linear:
    """Weights of an equivariant map, transposed."""

    def __init__(self, linear: EquiLinear) -> None:
        with torch.no_grad():
            scalars, bias, vectors, bivectors = linear.weights()
        assert vectors is not None
        self.scalars, self.vectors, self.bivectors = (
            w.detach().clone() for w in (scalars, vectors, bivectors)
        )
        self.bias = None if bias is None else bias.detach().clone()
        self.channels = len(bivectors) // 2

    def into(self, x: Multivectors, out: Multivectors) -> None:
        """Write the result."""
        if self.bias is None:
            torch.mm(x.scalars, self.scalars.t(), out=out.scalars)
        else:
            torch.addmm(self.bias, x.scalars, self.scalars.t(), out=out.scalars)
        for rows, weight, result in (
            (x.vectors, self.vectors, out.vectors),
            (x.bivectors, self.bivectors, out.bivectors),
        ):
            torch.mm(rows.flatten(0, 1), weight.t(), out=result.view(-1, result.shape[-1]))

    def add(self, x: Multivectors, out: Multivectors) -> None:
        """Add the result."""
        out.scalars.addmm_(x.scalars, self.scalars.t())
        if self.bias is not None:
            out.scalars.add_(self.bias)
        for rows, weight, result in (
            (x.vectors, self.vectors, out.vectors),
            (x.bivectors, self.bivectors, out.bivectors),
        ):
            result.view(-1, result.shape[-1]).addmm_(rows.flatten(0, 1), weight.t())

    def new(self, x: Multivectors) -> Multivectors:
        """Result in fresh memory."""
        out = fused.empty(x, self.channels, len(self.scalars) - 2 * self.channels)
        self.into(x, out)
        return out


class _Work:
    """Room for the result of a linear map on so many tokens, also as arrays."""

    def __init__(self, linear: _Linear, tokens: int) -> None:
        like = Multivectors(*(torch.empty(0) for _ in range(3)))
        plain = len(linear.scalars) - 2 * linear.channels
        shape = like._replace(scalars=torch.empty(tokens, 1))
        self.result = fused.empty(shape, linear.channels, plain)
        self.arrays = fused.arrays(self.result)


class _Block:
    def __init__(self, block: Block) -> None:
        attention, mlp = block.attention, block.mlp
        self.heads, self.size, self.plain = attention.heads, attention.size, attention.scalar_size
        self.metric = (attention.metric / math.sqrt(len(attention.metric))).numpy()
        self.qkv, self.out = _Linear(attention.qkv), _Linear(attention.out)
        self.factors, self.middle = _Linear(mlp.factors), _Linear(mlp.middle)
        self.down = _Linear(mlp.down)
        gains = [norm.gain for norm in (block.norm1, block.norm2)]
        self.gains = [g.detach().clone().numpy() for g in gains if g is not None]

    @property
    def linears(self) -> list[Any]:
        """Maps whose results, or inputs of the same shape, need room."""
        return [self.out, self.qkv, _Input(self.out), self.factors, _Input(self.middle),
                self.middle, _Input(self.down)]  # fmt: skip

    def __call__(self, state: _Work, mask: Tensor, work: list[_Work]) -> None:
        from hepgen_ml.networks.lgatr.kernels import attention, norm, product

        _, normed, qkv, attended, factors, products, middle, gated = work
        norm.norm(*state.arrays, self.gains[0], *normed.arrays)
        self.qkv.into(normed.result, qkv.result)
        attention.attend(*qkv.arrays, mask.numpy(), self.metric, self.heads, self.size, self.plain,
                         *attended.arrays)  # fmt: skip
        self.out.add(attended.result, state.result)
        norm.norm(*state.arrays, self.gains[1], *normed.arrays)
        self.factors.into(normed.result, factors.result)
        first = 2 * normed.result.channels
        product.product(*factors.arrays, normed.arrays[0], first, *products.arrays)
        self.middle.into(products.result, middle.result)
        norm.gate(*middle.arrays, *gated.arrays)
        self.down.add(gated.result, state.result)


class _Input:
    """Shape of the input of a linear map, in place of that of its result."""

    def __init__(self, linear: _Linear) -> None:
        self.channels = linear.bivectors.shape[1] // 2
        self.scalars = linear.scalars.t()


def _flat(t: Tensor) -> Tensor:
    """One dimension of tokens instead of (batch, tokens)."""
    return t.flatten(-3, -2)
