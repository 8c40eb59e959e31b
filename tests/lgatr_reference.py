"""Weights of the public lgatr package in our layout: both then compute the same function."""

from __future__ import annotations

from typing import Any

import lgatr
import torch
from lgatr.primitives.linear import _compute_pin_equi_linear_basis
from torch import Tensor

from hepgen_ml.networks.lgatr import LGATr
from hepgen_ml.networks.lgatr.algebra import STORED
from hepgen_ml.networks.lgatr.layers import EquiLinear, EquiNorm

_ORDER = [component for component, _ in STORED]
_SIGN = torch.tensor([float(sign) for _, sign in STORED])


def reference(
    *,
    blocks: int = 2,
    in_channels: int = 3,
    channels: int = 16,
    in_scalars: int = 5,
    out_scalars: int = 4,
    scalars: int = 32,
    parity: bool = False,
    **options: Any,
) -> lgatr.LGATr:
    """The network of the event-generation papers, by the public package."""
    compiled = {"compile": options.pop("compile")} if "compile" in options else {}
    return lgatr.LGATr(
        num_blocks=blocks,
        in_mv_channels=in_channels,
        out_mv_channels=1,
        hidden_mv_channels=channels,
        in_s_channels=in_scalars,
        out_s_channels=out_scalars,
        hidden_s_channels=scalars,
        attention={"num_heads": 8, "attn_ratio": 2},
        mlp={"mlp_ratio": 2},
        primitives={"subgroup": not parity, **options},
        **compiled,
    )


def twin(
    network: lgatr.LGATr,
    *,
    blocks: int = 2,
    in_channels: int = 3,
    channels: int = 16,
    in_scalars: int = 5,
    out_scalars: int = 4,
    scalars: int = 32,
    parity: bool = False,
) -> LGATr:
    """Our network with the same weights."""
    ours = LGATr(
        blocks=blocks,
        in_channels=in_channels,
        channels=channels,
        in_scalars=in_scalars,
        out_scalars=out_scalars,
        scalars=scalars,
        symmetry="lorentz_parity" if parity else "lorentz",
    )
    ours.to(next(network.parameters()).dtype)
    with torch.no_grad():
        copy_linear(network.linear_in, ours.first)
        copy_linear(network.linear_out, ours.last)
        for theirs, block in zip(network.blocks, ours.blocks, strict=True):
            copy_norm(theirs.norm1, block.norm1)
            copy_norm(theirs.norm2, block.norm2)
            a = block.attention
            copy_linear(theirs.attention.qkv_module.in_linear, a.qkv)
            _heads_first(a.qkv, a.heads, a.size, a.scalar_size)
            copy_linear(theirs.attention.out_linear, a.out)
            bilinear, _, down = theirs.mlp.layers
            hidden = block.mlp.norm.channels
            copy_linear(bilinear.linear_left, block.mlp.factors, 0, hidden)
            copy_linear(bilinear.linear_right, block.mlp.factors, hidden, hidden)
            copy_linear(bilinear.linear_out, block.mlp.middle)
            copy_linear(down, block.mlp.down)
    return ours


def _heads_first(qkv: EquiLinear, heads: int, size: int, scalar_size: int) -> None:
    """Their output channels are (part, channel, head), ours (part, head, channel)."""
    order = torch.arange(3 * heads * size).view(3, size, heads).transpose(1, 2).flatten()
    plain = torch.arange(3 * heads * scalar_size).view(3, scalar_size, heads)
    pair = torch.cat([order, len(order) + order])
    rows = torch.cat([pair, len(pair) + plain.transpose(1, 2).flatten()])
    qkv.scalars.weight.copy_(qkv.scalars.weight[rows])
    qkv.vectors.weight.copy_(qkv.vectors.weight[pair])
    qkv.bivectors.copy_(qkv.bivectors[:, order])


def copy_norm(theirs: Any, ours: EquiNorm) -> None:
    grades, plain = theirs.weight_mv, theirs.weight_s
    ours.gain.copy_(torch.cat([*(grades[:, g] for g in (0, 4, 1, 3, 2)), plain]))


def copy_linear(theirs: Any, ours: EquiLinear, first: int = 0, count: int | None = None) -> None:
    """Into all output channels, or `count` of them from `first` on."""
    subgroup = theirs.primitives.subgroup
    basis = _compute_pin_equi_linear_basis(subgroup, dtype=theirs.weight.dtype)
    dense = torch.einsum("oia,axy->xyoi", theirs.weight, basis)
    sign = _SIGN.to(dense)
    dense = dense[_ORDER][:, _ORDER] * sign.view(16, 1, 1, 1) * sign.view(16, 1, 1)
    n_out, n_in = dense.shape[2:]
    channels = ours.bivectors.shape[1]
    some = torch.arange(first, first + n_out)
    rows = torch.cat([some, channels + some])

    def square(start: int, step: int) -> Tensor:
        half = [torch.cat([dense[start + i * step, start + j * step] for j in (0, 1)], 1)
                for i in (0, 1)]  # fmt: skip
        return torch.cat(half)

    halves = 2 if subgroup else 1
    weight = torch.zeros(2 * n_out + (theirs.mvs2s.out_features if theirs.mvs2s else 0),
                         ours.scalars.in_features, dtype=dense.dtype)  # fmt: skip
    bias = torch.zeros(len(weight), dtype=dense.dtype)
    weight[: 2 * n_out, : 2 * n_in] = square(0, 1)
    if theirs.s2mvs is not None:
        block = theirs.s2mvs.weight.view(n_out, halves, -1).transpose(0, 1).flatten(0, 1)
        weight[: halves * n_out, 2 * n_in :] = block
        if theirs.s2mvs.bias is not None:
            bias[: halves * n_out] = theirs.s2mvs.bias.view(n_out, halves).t().flatten()
    if theirs.bias is not None:
        bias[:n_out] = theirs.bias[:, 0]
    if theirs.mvs2s is not None:
        block = theirs.mvs2s.weight.view(-1, n_in, halves).transpose(1, 2).flatten(1)
        weight[2 * n_out :, : halves * n_in] = block
        if theirs.mvs2s.bias is not None:
            bias[2 * n_out :] = theirs.mvs2s.bias
        if theirs.s2s is not None:
            weight[2 * n_out :, 2 * n_in :] = theirs.s2s.weight
    if count is None:
        rows = torch.arange(len(weight))
    ours.scalars.weight[rows] = weight
    if ours.scalars.bias is not None:
        ours.scalars.bias[rows] = bias
    rows = rows[: 2 * n_out]
    ours.vectors.weight[rows] = square(2, 4)
    ours.bivectors[:, some] = torch.stack([dense[10, 10], dense[13, 10]])
