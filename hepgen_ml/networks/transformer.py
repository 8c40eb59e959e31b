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
        """One token (batch, width), with keys and values (length, head width, batch * heads)."""
        batch, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(1, 3, 0, 2).reshape(3, width // self.heads, batch * self.heads)
        keys[position], values[position] = k, v
        q = q / math.sqrt(q.shape[0])
        logits = (keys[: position + 1] * q).sum(1)
        weight = logits.softmax(0)
        attended = (values[: position + 1] * weight.unsqueeze(1)).sum(0)
        attended = attended.view(-1, batch, self.heads).permute(1, 2, 0).reshape(batch, width)
        x = x + self.out(attended)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


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
        shape = (len(self.blocks), length, self.width // self.heads, batch * self.heads)
        return Cache(weight.new_empty(shape), weight.new_empty(shape))

    def step(self, x: Tensor, cache: Cache) -> Tensor:
        """Next token (batch, width) -> its hidden state; the cache grows by one."""
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x = block.step(x, cache.keys[i], cache.values[i], cache.length)
        cache.length += 1
        return self.norm(x)


class Cache:
    """Keys and values of the tokens so far.

    Attributes
    ----------
    keys, values : (blocks, length, head width, batch * heads) tensors
    length : int
        Tokens already stored.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0
