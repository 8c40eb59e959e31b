"""Transformers: causal with a key/value cache, and bidirectional with adaptive norms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.bayesian import BayesianLinear
from hepgen_ml.networks.elementwise import softmax_

Linear = nn.Linear | BayesianLinear
"""Linear maps may have a posterior, see `hepgen_ml.networks.bayesian.make_bayesian`."""

_SHORT = 48
"""Up to this length plain matrix products beat the fused attention kernel on a CPU."""


class Block(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    width, heads, mlp_ratio : int
    causal : bool
        Whether a token attends to earlier tokens only, or to all tokens.
    dropout : float
        Dropout of the output of each layer in training.
    """

    def __init__(
        self, width: int, heads: int, mlp_ratio: int, causal: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.heads, self.causal = heads, causal
        self.norm1 = nn.LayerNorm(width)
        self.qkv: Linear = nn.Linear(width, 3 * width)
        self.out: Linear = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up: Linear = nn.Linear(width, mlp_ratio * width)
        self.down: Linear = nn.Linear(mlp_ratio * width, width)

    def forward(
        self, x: Tensor, modulation: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states (batch, tokens, width) -> the same.

        A modulation (batch, 4 width) shifts and scales what both norms give; no token attends to
        those where a mask (batch, tokens) is False.
        """
        h1, h2 = (None, None) if modulation is None else modulation.chunk(2, dim=-1)
        x = x + self._dropped(self._attention(_modulated(self.norm1(x), h1), mask))
        return x + self._dropped(self.down(F.gelu(self.up(_modulated(self.norm2(x), h2)))))

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x

    def _attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :]
        if x.device.type == "cpu" and tokens <= _SHORT:
            logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            if self.causal:
                logits = logits + torch.full((tokens, tokens), -torch.inf, dtype=x.dtype).triu(1)
            if seen is not None:
                logits = logits.masked_fill(~seen, -torch.inf)
            attended = logits.softmax(-1).to(v.dtype) @ v
        else:
            attended = F.scaled_dot_product_attention(
                q, k, v, attn_mask=seen, is_causal=self.causal
            )
        return self.out(attended.transpose(1, 2).reshape(batch, tokens, width))


def _modulated(x: Tensor, modulation: Tensor | None) -> Tensor:
    """Tokens (batch, tokens, width) shifted and scaled by (batch, 2 width)."""
    if modulation is None:
        return x
    shift, scale = modulation.unsqueeze(1).chunk(2, dim=-1)
    return torch.addcmul(shift, x, 1 + scale)


class Transformer(nn.Module):
    """Stack of blocks and a final norm.

    Parameters
    ----------
    width, blocks, heads, mlp_ratio : int
    causal : bool
        Whether a token attends to earlier tokens only, or to all tokens.
    dropout : float
        Dropout of the output of each layer in training.
    """

    compiles = True

    def __init__(
        self, width: int, blocks: int, heads: int, mlp_ratio: int, causal: bool = False,
        dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the {heads} heads")
        self.width, self.heads, self.hidden_width = width, heads, mlp_ratio * width
        stack = [Block(width, heads, mlp_ratio, causal, dropout) for _ in range(blocks)]
        self.blocks = nn.ModuleList(stack)
        self.norm = nn.LayerNorm(width)
        for block in stack:
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * blocks))
                nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, modulation: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Hidden states (batch, tokens, width) -> the same.

        A modulation (batch, 4 width blocks) is that of all blocks, one after another. A mask
        (batch, tokens) is False where a token is padding; only where tokens see all others.
        """
        parts = () if modulation is None else modulation.chunk(len(self.blocks), dim=-1)
        for i, block in enumerate(self.blocks):
            x = block(x, parts[i] if parts else None, mask)
        return self.norm(x)


class CausalTransformer(Transformer):
    """Transformer whose tokens see their past only, so that it can be sampled token by token.

    Parameters
    ----------
    width, blocks, heads, mlp_ratio : int
    dropout : float
    """

    def __init__(
        self, width: int, blocks: int, heads: int, mlp_ratio: int, dropout: float = 0.0
    ) -> None:
        super().__init__(width, blocks, heads, mlp_ratio, causal=True, dropout=dropout)

    def start(self, batch: int, length: int) -> Cache:
        """Empty cache for sampling `length` tokens."""
        return Cache(self, batch, length)

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """Next token (width, batch) -> its hidden state; the cache grows by one.

        The token is overwritten.
        Sampling keeps the batch as the last, contiguous dimension: then no
        product needs a transposed copy and every sum runs along the batch.
        """
        for i, block in enumerate(cache.blocks):
            x = block.step(x, cache.keys_values[i], cache.length, cache.work)
        cache.length += 1
        return self.norm(x.t()).t()


class FoldedBlock:
    """Weights of a block rearranged for sampling.

    With g, b the affine part of a norm, W (g (x - mean) r + b) equals (W' x) r
    plus a constant, where W' has g and the subtraction of the mean folded in;
    only the scale r depends on the token.
    """

    def __init__(self, block: Block) -> None:
        self.heads, width = block.heads, block.out.in_features
        self.size = width // block.heads
        self.qkv, self.qkv_bias = _folded(block.norm1, block.qkv)
        # The scale of the attention logits belongs to the queries.
        self.qkv[:width] /= math.sqrt(self.size)
        self.qkv_bias[:width] /= math.sqrt(self.size)
        self.up, self.up_bias = _folded(block.norm2, block.up)
        self.out, self.out_bias = block.out.weight, block.out.bias.unsqueeze(1)
        self.down, self.down_bias = block.down.weight, block.down.bias.unsqueeze(1)
        self.eps = block.norm1.eps

    def step(self, x: Tensor, keys_values: Tensor, position: int, work: Workspace) -> Tensor:
        """One token (width, batch), with keys and values (length, 2, heads, size, batch)."""
        width, batch = x.shape
        scale = self._scale(x, work)
        qkv = torch.mm(self.qkv, x, out=work.qkv)
        q = torch.addcmul(self.qkv_bias[:width], qkv[:width], scale, out=work.query)
        q = q.view(self.heads, self.size, batch)
        place = keys_values[position].view(2 * width, batch)
        torch.addcmul(self.qkv_bias[width:], qkv[width:], scale, out=place)
        past = keys_values[: position + 1]
        product = work.product.view(self.heads, self.size, batch)
        for t, (key, _) in enumerate(past):
            torch.sum(torch.mul(key, q, out=product), 1, out=work.logits[t])
        weight = softmax_(work.logits[: position + 1]).unsqueeze(2)
        attended = torch.mul(past[0, 1], weight[0], out=product)
        for t in range(1, len(past)):
            attended.addcmul_(past[t, 1], weight[t])
        x = x.addmm_(self.out, attended.view(width, batch)).add_(self.out_bias)
        scale = self._scale(x, work)
        h = torch.mm(self.up, x, out=work.hidden)
        h = torch.ops.aten.gelu_(torch.addcmul(self.up_bias, h, scale, out=h))
        return x.addmm_(self.down, h).add_(self.down_bias)

    def _scale(self, x: Tensor, work: Workspace) -> Tensor:
        """Inverse standard deviation (1, batch) of tokens (width, batch)."""
        average = x.new_full((1, len(x)), 1 / len(x))
        mean = average @ x
        mean_square = average @ torch.mul(x, x, out=work.product)
        return torch.rsqrt(mean_square - mean * mean + self.eps)


class Workspace:
    """Buffers of one step, allocated once; new memory for every product would double its cost.

    Parameters
    ----------
    network : CausalTransformer
    batch, length : int
    """

    def __init__(self, network: CausalTransformer, batch: int, length: int) -> None:
        new, width = network.norm.weight.new_empty, network.width
        self.qkv = new(3 * width, batch)
        self.query, self.product = new(width, batch), new(width, batch)
        self.hidden = new(network.hidden_width, batch)
        self.logits = new(length, network.heads, batch)


def _folded(norm: nn.LayerNorm, linear: Linear) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out, 1) of a linear map after a norm."""
    weight = linear.weight * norm.weight
    # row by row: how threads share a product of matrix and vector shows in its rounding
    bias = linear.bias + (linear.weight * norm.bias).sum(1)
    return weight - weight.mean(1, keepdim=True), bias.unsqueeze(1)


class Cache:
    """Keys and values of the tokens so far, and the weights arranged for sampling.

    Attributes
    ----------
    blocks : list of FoldedBlock
    keys_values : list of (length, 2, heads, head width, batch) tensor
        One per block.
    work : Workspace
    length : int
        Tokens already stored.
    """

    def __init__(self, network: CausalTransformer, batch: int, length: int) -> None:
        blocks = [b for b in network.blocks if isinstance(b, Block)]
        self.blocks = [FoldedBlock(b) for b in blocks]
        size = network.width // network.heads
        shape = (length, 2, network.heads, size, batch)
        self.work = Workspace(network, batch, length)
        self.keys_values = [network.norm.weight.new_empty(shape) for _ in blocks]
        self.length = 0
