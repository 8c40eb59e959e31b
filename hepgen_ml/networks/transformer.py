"""Causal transformer with a key/value cache."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SHORT = 48
"""Up to this length plain matrix products beat the fused attention kernel on a CPU."""


class Block(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    width, heads, mlp_ratio : int
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, mlp_ratio * width)
        self.down = nn.Linear(mlp_ratio * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states (batch, tokens, width) -> the same, each token seeing its past."""
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if x.device.type == "cpu" and tokens <= _SHORT:
            future = torch.full((tokens, tokens), -torch.inf, dtype=x.dtype).triu(1)
            logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + future
            attended = logits.softmax(-1).to(v.dtype) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def step(self, x: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
        """One token (width, batch), with keys and values (length, heads, head width, batch).

        Sampling keeps the batch as the last, contiguous dimension: then no
        product needs a transposed copy and every sum runs along the batch.
        """
        width, batch = x.shape
        size = width // self.heads
        qkv = torch.addmm(self.qkv.bias.unsqueeze(1), self.qkv.weight, _normed(x, self.norm1))
        q, k, v = qkv.view(3, self.heads, size, batch)
        keys[position], values[position] = k, v
        q = q / math.sqrt(size)
        past = range(position + 1)
        weight = torch.stack([(keys[t] * q).sum(1) for t in past]).softmax(0).unsqueeze(2)
        attended = values[0] * weight[0]
        for t in past[1:]:
            attended.addcmul_(values[t], weight[t])
        attended = attended.view(width, batch)
        x = x + torch.addmm(self.out.bias.unsqueeze(1), self.out.weight, attended)
        h = torch.addmm(self.up.bias.unsqueeze(1), self.up.weight, _normed(x, self.norm2))
        return x + torch.addmm(self.down.bias.unsqueeze(1), self.down.weight, F.gelu(h))


def _normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Layer norm over the first dimension of (width, batch)."""
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    scale = torch.rsqrt(variance + norm.eps)
    return torch.addcmul(norm.bias.unsqueeze(1), (x - mean).mul_(scale), norm.weight.unsqueeze(1))


class CausalTransformer(nn.Module):
    """Stack of blocks and a final norm.

    Parameters
    ----------
    width, blocks, heads, mlp_ratio : int
    """

    def __init__(self, width: int, blocks: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of the {heads} heads")
        self.width, self.heads = width, heads
        stack = [Block(width, heads, mlp_ratio) for _ in range(blocks)]
        self.blocks = nn.ModuleList(stack)
        self.norm = nn.LayerNorm(width)
        for block in stack:
            for layer in (block.out, block.down):
                nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * blocks))
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states (batch, tokens, width) -> the same."""
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def start(self, batch: int, length: int) -> Cache:
        """Empty cache for sampling `length` tokens."""
        weight = self.norm.weight
        shape = (len(self.blocks), length, self.heads, self.width // self.heads, batch)
        return Cache(weight.new_empty(shape), weight.new_empty(shape))

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """Next token (width, batch) -> its hidden state; the cache grows by one."""
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = block.step(x, cache.keys[i], cache.values[i], cache.length)
        cache.length += 1
        return _normed(x, self.norm)


class Cache:
    """Keys and values of the tokens so far.

    Attributes
    ----------
    keys, values : (blocks, length, heads, head width, batch) tensors
    length : int
        Tokens already stored.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0
