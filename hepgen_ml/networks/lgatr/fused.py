"""The fused kernels as differentiable functions of `Multivectors`.

They stand in for the formulas of `layers` on a CPU in single precision, outside of
`torch.compile` and of function transforms, which see the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from hepgen_ml.networks.lgatr.algebra import Multivectors

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def available(x: Tensor) -> bool:
    """Whether the fused kernels exist for this kind of tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def applies(x: Multivectors) -> bool:
    """Whether the fused kernels can be used on these tensors here."""
    return (
        not torch.compiler.is_compiling()
        and all(available(t) for t in x)
        and not torch.is_autocast_enabled("cpu")
        and x.scalars.numel() > 0
        and not transformed(x)
    )


def transformed(x: Multivectors) -> bool:
    """Whether a transform of `torch.func` or a forward derivative is at work."""
    # torch has no public question for the first
    level = getattr(getattr(torch._C, "_functorch", None), "maybe_current_level", None)
    if level is not None and level() is not None:
        return True
    return any(forward_ad.unpack_dual(t).tangent is not None for t in x)


def arrays(x: Multivectors) -> Arrays:
    """Memory of the tensors with one dimension of tokens: (T, .), (4, T, .), (3, T, .)."""
    s, v, b = (t.detach().contiguous() for t in x)
    return (
        s.view(-1, s.shape[-1]).numpy(),
        v.view(4, -1, v.shape[-1]).numpy(),
        b.view(3, -1, b.shape[-1]).numpy(),
    )


def empty(like: Multivectors, channels: int, plain: int) -> Multivectors:
    """Room for multivectors of the same tokens with other channels."""
    shape, new = like.scalars.shape[:-1], like.scalars.new_empty
    return Multivectors(
        new((*shape, 2 * channels + plain)),
        new((4, *shape, 2 * channels)),
        new((3, *shape, 2 * channels)),
    )


def _empty_like(x: Multivectors) -> Multivectors:
    return Multivectors(*(torch.empty_like(t, memory_format=torch.contiguous_format) for t in x))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plain: Tensor, first: int, *factors: Tensor) -> tuple[Tensor, ...]:
        from hepgen_ml.networks.lgatr.kernels import product

        x = Multivectors(*factors)
        out = empty(x, x.channels // 2, plain.shape[-1] - first)
        flat = plain.detach().contiguous().view(-1, plain.shape[-1]).numpy()
        product.product(*arrays(x), flat, first, *arrays(out))
        ctx.save_for_backward(*x)
        ctx.first, ctx.width = first, plain.shape[-1]
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
        from hepgen_ml.networks.lgatr.kernels import product

        x, g = Multivectors(*ctx.saved_tensors), Multivectors(*gradient)
        result = _empty_like(x)
        product.product_gradient(*arrays(x), *arrays(g), *arrays(result))
        plain = torch.nn.functional.pad(g.scalars[..., x.channels :], (ctx.first, 0))
        return plain, None, *result


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gain: Tensor, *x: Tensor) -> tuple[Tensor, ...]:
        from hepgen_ml.networks.lgatr.kernels import norm

        out = _empty_like(Multivectors(*x))
        norm.norm(*arrays(Multivectors(*x)), gain.detach().numpy(), *arrays(out))
        ctx.save_for_backward(gain, *x)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
        from hepgen_ml.networks.lgatr.kernels import GROUP, norm

        gain, *saved = ctx.saved_tensors
        x, result = Multivectors(*saved), _empty_like(Multivectors(*saved))
        groups = -(-x.scalars[..., 0].numel() // GROUP)
        gains = gain.new_empty(groups, len(gain))
        norm.norm_gradient(
            *arrays(x), gain.detach().numpy(), *arrays(Multivectors(*gradient)), *arrays(result),
            gains.numpy(),
        )  # fmt: skip
        return gains.sum(0), *result


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *x: Tensor) -> tuple[Tensor, ...]:
        from hepgen_ml.networks.lgatr.kernels import norm

        out = _empty_like(Multivectors(*x))
        norm.gate(*arrays(Multivectors(*x)), *arrays(out))
        ctx.save_for_backward(*x)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
        from hepgen_ml.networks.lgatr.kernels import norm

        x = Multivectors(*ctx.saved_tensors)
        result = _empty_like(x)
        norm.gate_gradient(*arrays(x), *arrays(Multivectors(*gradient)), *arrays(result))
        return tuple(result)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, heads: int, channels: int, plain: int, metric: Tensor, mask: Tensor, *x: Tensor
    ) -> tuple[Tensor, ...]:
        from hepgen_ml.networks.lgatr.kernels import attention

        qkv = Multivectors(*x)
        out = empty(qkv, heads * channels, heads * plain)
        attention.attend(
            *arrays(qkv), mask.numpy(), metric.numpy(), heads, channels, plain, *arrays(out)
        )
        ctx.save_for_backward(metric, mask, *x)
        ctx.sizes = heads, channels, plain
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
        from hepgen_ml.networks.lgatr.kernels import attention

        metric, mask, *saved = ctx.saved_tensors
        heads, channels, plain = ctx.sizes
        qkv = Multivectors(*saved)
        result = _empty_like(qkv)
        attention.attend_gradient(
            *arrays(qkv), mask.numpy(), metric.numpy(), heads, channels, plain,
            *arrays(Multivectors(*gradient)), *arrays(result),
        )  # fmt: skip
        return None, None, None, None, None, *result


def product(factors: Multivectors, plain: Tensor, first: int) -> Multivectors:
    """Products of the first and the second half of the channels.

    Columns `first` and up of `plain` become the plain scalars of the result.
    """
    return _apply(_Product, plain, first, *factors)


def norm(x: Multivectors, gain: Tensor) -> Multivectors:
    """`layers.EquiNorm` with gain."""
    return _apply(_Norm, gain, *x)


def gate(x: Multivectors) -> Multivectors:
    """`layers.EquiNorm` without gain, then `layers.gated`."""
    return _apply(_Gate, *x)


def attention(
    qkv: Multivectors, heads: int, channels: int, plain: int, metric: Tensor, mask: Tensor | None
) -> Multivectors:
    """Attended values of unnormalised queries, keys and values.

    Parameters
    ----------
    qkv : Multivectors
        Of shape (batch, tokens), columns as in `kernels.attention`.
    heads, channels, plain : int
        Channels and plain scalars are those of one head.
    metric : (16 channels + plain,) tensor
        Sign and scale of each feature in the inner product.
    mask : (batch, tokens) bool tensor, optional
    """
    if mask is None:
        mask = torch.ones(qkv.scalars.shape[:2], dtype=torch.bool)
    return _apply(_Attention, heads, channels, plain, metric, mask.contiguous(), *qkv)


def _apply(function: Any, *arguments: Any) -> Multivectors:
    return Multivectors(*function.apply(*arguments))
