"""Layers and multivectors of the L-GATr tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from hepgen_ml.networks.lgatr import LGATr, Multivectors
from hepgen_ml.networks.lgatr.algebra import from_components
from hepgen_ml.networks.lgatr.layers import (
    Block,
    EquiAttention,
    EquiLinear,
    EquiNorm,
    GeometricMLP,
    gated,
)

SYMMETRIES = ("lorentz", "lorentz_parity", "rotation")
CHANNELS, SCALARS = 3, 5

LAYERS: dict[str, Callable[..., Any]] = {
    "linear": partial(EquiLinear, CHANNELS, 4, SCALARS, 2),
    "norm": partial(EquiNorm, CHANNELS, SCALARS),
    "attention": partial(EquiAttention, CHANNELS, SCALARS, 2, 2),
    "mlp": partial(GeometricMLP, CHANNELS, SCALARS, 2),
    "gated": lambda symmetry: gated,
    "block": partial(Block, CHANNELS, SCALARS, 2, 2, 2),
    "network": partial(
        LGATr, blocks=2, in_channels=CHANNELS, out_channels=2, channels=4, in_scalars=SCALARS,
        out_scalars=2, scalars=6, heads=2,
    ),
}  # fmt: skip


def multivectors(
    channels: int = CHANNELS,
    scalars: int = SCALARS,
    *,
    batch: int = 3,
    tokens: int = 4,
    dtype: torch.dtype = torch.float64,
    symmetry: str = "lorentz",
) -> Multivectors:
    x = from_components(
        torch.randn(batch, tokens, channels, 16, dtype=dtype),
        torch.randn(batch, tokens, scalars, dtype=dtype),
    )
    return x._replace(vectors=x.vectors[..., :0]) if symmetry == "rotation" else x


def layer(name: str, symmetry: str = "lorentz", **options: Any) -> Any:
    """In double precision, with gains that are not one."""
    result = LAYERS[name](symmetry=symmetry, **options)
    return shaken(result.double()) if isinstance(result, nn.Module) else result


def shaken(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith("gain") or "weight_mv" in name or "weight_s" in name:
                parameter.uniform_(0.5, 1.5)
    return module


def to(dtype: torch.dtype, x: Multivectors) -> Multivectors:
    return Multivectors(*(t.to(dtype) for t in x))


def leaves(x: Multivectors) -> Multivectors:
    return Multivectors(*(t.detach().clone().requires_grad_() for t in x))
