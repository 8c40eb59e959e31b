"""Weights of the public lgatr package in our layout: both then compute the same function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lgatr
import torch
from lgatr.primitives.linear import _compute_pin_equi_linear_basis
from torch import Tensor

from hepgen_ml.networks.lgatr import LGATr
from hepgen_ml.networks.lgatr.algebra import STORED
from hepgen_ml.networks.lgatr.layers import EquiLinear

_ORDER = [component for component, _ in STORED]
_SIGN = torch.tensor([float(sign) for _, sign in STORED])


@dataclass(frozen=True)
class Shape:
    """Sizes of a network; as they stand, those of the event-generation papers."""

    blocks: int = 6
    in_channels: int = 3
    out_channels: int = 1
    channels: int = 16
    in_scalars: int = 32
    out_scalars: int = 4
    scalars: int = 32
    heads: int = 8
    attention_ratio: int = 2
    mlp_ratio: int = 2
    parity: bool = False


def reference(shape: Shape, **options: Any) -> lgatr.LGATr:
    """The network of the public package; options are those of its primitives."""
    return lgatr.LGATr(
        num_blocks=shape.blocks,
        in_mv_channels=shape.in_channels,
        out_mv_channels=shape.out_channels,
        hidden_mv_channels=shape.channels,
        in_s_channels=shape.in_scalars,
        out_s_channels=shape.out_scalars,
        hidden_s_channels=shape.scalars,
        attention={"num_heads": shape.heads, "attn_ratio": shape.attention_ratio},
        mlp={"mlp_ratio": shape.mlp_ratio},
        primitives={"subgroup": not shape.parity, **options},
    )


def network(shape: Shape) -> LGATr:
    """Ours with weights of its own."""
    sizes = {name: value for name, value in vars(shape).items() if name != "parity"}
    return LGATr(**sizes, symmetry="lorentz_parity" if shape.parity else "lorentz")


def twin(theirs: lgatr.LGATr, shape: Shape) -> LGATr:
    """Ours with the same weights."""
    ours = network(shape).to(next(theirs.parameters()))
    with torch.no_grad():
        ours.load_state_dict(weights(theirs, ours))
    return ours


def weights(theirs: lgatr.LGATr, ours: LGATr) -> dict[str, Tensor]:
    """Our parameters as differentiable functions of theirs."""
    result: dict[str, Tensor] = {}

    def put(name: str, tensors: dict[str, Tensor]) -> None:
        result.update({f"{name}.{key}": tensor for key, tensor in tensors.items()})

    put("first", linear(theirs.linear_in, ours.first))
    put("last", linear(theirs.linear_out, ours.last))
    for i, (their, our) in enumerate(zip(theirs.blocks, ours.blocks, strict=True)):
        name = f"blocks.{i}"
        result[f"{name}.norm1.gain"] = gain(their.norm1)
        result[f"{name}.norm2.gain"] = gain(their.norm2)
        a = our.attention
        qkv = linear(their.attention.qkv_module.in_linear, a.qkv)
        put(f"{name}.attention.qkv", heads_first(qkv, a.heads, a.size, a.scalar_size))
        put(f"{name}.attention.out", linear(their.attention.out_linear, a.out))
        bilinear, _, down = their.mlp.layers
        left, right = (
            linear(one, our.mlp.factors) for one in (bilinear.linear_left, bilinear.linear_right)
        )
        put(f"{name}.mlp.factors", {key: side_by_side(key, left[key], right[key]) for key in left})
        put(f"{name}.mlp.middle", linear(bilinear.linear_out, our.mlp.middle))
        put(f"{name}.mlp.down", linear(down, our.mlp.down))
    return result


def gain(norm: Any) -> Tensor:
    """Theirs is by channel and grade."""
    grades = norm.weight_mv
    return torch.cat([*(grades[:, g] for g in (0, 4, 1, 3, 2)), norm.weight_s])


def heads_first(qkv: dict[str, Tensor], heads: int, size: int, plain: int) -> dict[str, Tensor]:
    """Their output channels are (part, channel, head), ours (part, head, channel)."""
    order = torch.arange(3 * heads * size).view(3, size, heads).transpose(1, 2).flatten()
    pair = torch.cat([order, len(order) + order])
    rest = torch.arange(3 * heads * plain).view(3, plain, heads).transpose(1, 2).flatten()
    return {
        "scalars.weight": qkv["scalars.weight"][torch.cat([pair, len(pair) + rest])],
        "vectors.weight": qkv["vectors.weight"][pair],
        "bivectors": qkv["bivectors"][:, order],
    }


def side_by_side(key: str, left: Tensor, right: Tensor) -> Tensor:
    """Two maps without plain scalars as one, whose output channels are (half, map, channel)."""
    if key == "bivectors":
        return torch.cat([left, right], dim=1)
    halves = zip(left.chunk(2), right.chunk(2), strict=True)
    return torch.cat([torch.cat(pair) for pair in halves])


def linear(theirs: Any, ours: EquiLinear) -> dict[str, Tensor]:
    """Parameters of ours that make the same map (of as many channels as theirs has)."""
    subgroup = theirs.primitives.subgroup
    basis = _compute_pin_equi_linear_basis(subgroup, dtype=theirs.weight.dtype)
    dense = torch.einsum("oia,axy->xyoi", theirs.weight, basis)
    sign = _SIGN.to(dense)
    dense = dense[_ORDER][:, _ORDER] * sign.view(16, 1, 1, 1) * sign.view(16, 1, 1)
    n_out, n_in = dense.shape[2:]

    def square(start: int, step: int) -> Tensor:
        one, two = start, start + step
        rows = [torch.cat([dense[i, one], dense[i, two]], dim=1) for i in (one, two)]
        return torch.cat(rows)

    halves = 2 if subgroup else 1  # do scalars feed, and come from, pseudoscalars?
    plain_in = ours.scalars.in_features - 2 * n_in
    plain_out = theirs.mvs2s.out_features if theirs.mvs2s is not None else 0
    zeros = dense.new_zeros
    into, out = zeros(2 * n_out, plain_in), zeros(plain_out, 2 * n_in)
    between, bias = zeros(plain_out, plain_in), zeros(2 * n_out + plain_out)
    pad = torch.nn.functional.pad
    if theirs.s2mvs is not None:
        block = theirs.s2mvs.weight.view(n_out, halves, -1).transpose(0, 1).flatten(0, 1)
        into = pad(block, (0, 0, 0, (2 - halves) * n_out))
        if theirs.s2mvs.bias is not None:
            one = theirs.s2mvs.bias.view(n_out, halves).t().flatten()
            bias = bias + pad(one, (0, len(bias) - len(one)))
    if theirs.bias is not None:
        bias = bias + pad(theirs.bias[:, 0], (0, len(bias) - n_out))
    if theirs.mvs2s is not None:
        block = theirs.mvs2s.weight.view(-1, n_in, halves).transpose(1, 2).flatten(1)
        out = pad(block, (0, (2 - halves) * n_in))
        if theirs.mvs2s.bias is not None:
            bias = bias + pad(theirs.mvs2s.bias, (2 * n_out, 0))
        if theirs.s2s is not None:
            between = theirs.s2s.weight
    result = {
        "scalars.weight": torch.cat(
            [torch.cat([square(0, 1), into], dim=1), torch.cat([out, between], dim=1)]
        ),
        "vectors.weight": square(2, 4),
        "bivectors": torch.stack([dense[10, 10], dense[13, 10]]),
    }
    if ours.scalars.bias is not None:
        result["scalars.bias"] = bias
    return result
