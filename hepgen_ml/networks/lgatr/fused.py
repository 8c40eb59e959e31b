"""The fused kernels as differentiable functions of `Multivectors`.

They stand in for the formulas of `layers` on a CPU in single precision. To torch they are
operators, so that `torch.compile` takes each as it is and compiles what lies between them.
Function transforms and forward derivatives see the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import custom_op

from hepgen_ml.networks.lgatr.algebra import Multivectors

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
Three = tuple[Tensor, Tensor, Tensor]
"""Parts of multivectors, as operators take and give them."""


def available(x: Tensor) -> bool:
    """Whether the fused kernels exist for this kind of tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def applies(x: Multivectors) -> bool:
    """Whether the fused kernels can be used on these tensors here."""
    return (
        all(available(t) for t in x)
        and not torch.is_autocast_enabled("cpu")
        and x.scalars.numel() > 0
        and (torch.compiler.is_compiling() or not transformed(x))
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


def _empty_like(*x: Tensor) -> Multivectors:
    return Multivectors(*(torch.empty_like(t, memory_format=torch.contiguous_format) for t in x))


# Each operator has a fake, which tells shapes to the compiler, and its gradient is an operator too.
# Gradients have none themselves: a second derivative is an error.

_PARTS = "Tensor s, Tensor v, Tensor b"
_GRADIENTS = "Tensor gs, Tensor gv, Tensor gb"
_RESULT = "(Tensor, Tensor, Tensor)"


def _operator(name: str, inputs: str, outputs: str = _RESULT) -> Any:
    schema = f"({inputs}) -> {outputs}"
    return custom_op(f"hepgen_ml::{name}", mutates_args=(), device_types="cpu", schema=schema)


@_operator("lgatr_product", f"Tensor plain, int first, {_PARTS}")
def _product(plain: Tensor, first: int, s: Tensor, v: Tensor, b: Tensor) -> Three:
    from hepgen_ml.networks.lgatr.kernels import product

    out = _product_shape(plain, first, s, v, b)
    flat = plain.detach().contiguous().view(-1, plain.shape[-1]).numpy()
    product.product(*arrays(Multivectors(s, v, b)), flat, first, *arrays(Multivectors(*out)))
    return out


@_product.register_fake
def _product_shape(plain: Tensor, first: int, s: Tensor, v: Tensor, b: Tensor) -> Three:
    x = Multivectors(s, v, b)
    return tuple(empty(x, x.channels // 2, plain.shape[-1] - first))


@_operator("lgatr_product_gradient", f"{_PARTS}, {_GRADIENTS}")
def _product_gradient(*parts: Tensor) -> Three:
    from hepgen_ml.networks.lgatr.kernels import product

    x, g, result = Multivectors(*parts[:3]), Multivectors(*parts[3:]), _empty_like(*parts[:3])
    product.product_gradient(*arrays(x), *arrays(g), *arrays(result))
    return tuple(result)


@_product_gradient.register_fake
def _(*parts: Tensor) -> Three:
    return tuple(_empty_like(*parts[:3]))


def _keep_factors(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    _, ctx.first, *x = inputs
    ctx.save_for_backward(*x)


def _product_backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
    x, g = Multivectors(*ctx.saved_tensors), Multivectors(*gradient)
    plain = torch.nn.functional.pad(g.scalars[..., x.channels :], (ctx.first, 0))
    return plain, None, *_product_gradient(*x, *g)


_product.register_autograd(_product_backward, setup_context=_keep_factors)


@_operator("lgatr_norm", f"Tensor gain, {_PARTS}")
def _norm(gain: Tensor, *x: Tensor) -> Three:
    from hepgen_ml.networks.lgatr.kernels import norm

    out = _empty_like(*x)
    norm.norm(*arrays(Multivectors(*x)), gain.detach().numpy(), *arrays(out))
    return tuple(out)


@_norm.register_fake
def _(gain: Tensor, *x: Tensor) -> Three:
    return tuple(_empty_like(*x))


@_operator(
    "lgatr_norm_gradient",
    f"Tensor gain, {_PARTS}, {_GRADIENTS}",
    "(Tensor, Tensor, Tensor, Tensor)",
)
def _norm_gradient(gain: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    from hepgen_ml.networks.lgatr.kernels import GROUP, norm

    x, g, result = Multivectors(*parts[:3]), Multivectors(*parts[3:]), _empty_like(*parts[:3])
    groups = -(-x.scalars[..., 0].numel() // GROUP)
    gains = gain.new_empty(groups, len(gain))
    norm.norm_gradient(
        *arrays(x), gain.detach().numpy(), *arrays(g), *arrays(result), gains.numpy()
    )
    return gains.sum(0), *result


@_norm_gradient.register_fake
def _(gain: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    return torch.empty_like(gain), *_empty_like(*parts[:3])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    ctx.save_for_backward(*inputs)


def _norm_backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
    return _norm_gradient(*ctx.saved_tensors, *gradient)


_norm.register_autograd(_norm_backward, setup_context=_keep)


@_operator("lgatr_gate", _PARTS)
def _gate(*x: Tensor) -> Three:
    from hepgen_ml.networks.lgatr.kernels import norm

    out = _empty_like(*x)
    norm.gate(*arrays(Multivectors(*x)), *arrays(out))
    return tuple(out)


@_gate.register_fake
def _(*x: Tensor) -> Three:
    return tuple(_empty_like(*x))


@_operator("lgatr_gate_gradient", f"{_PARTS}, {_GRADIENTS}")
def _gate_gradient(*parts: Tensor) -> Three:
    from hepgen_ml.networks.lgatr.kernels import norm

    x, g, result = Multivectors(*parts[:3]), Multivectors(*parts[3:]), _empty_like(*parts[:3])
    norm.gate_gradient(*arrays(x), *arrays(g), *arrays(result))
    return tuple(result)


@_gate_gradient.register_fake
def _(*parts: Tensor) -> Three:
    return tuple(_empty_like(*parts[:3]))


def _gate_backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
    return _gate_gradient(*ctx.saved_tensors, *gradient)


_gate.register_autograd(_gate_backward, setup_context=_keep)

_SIZES = "Tensor metric, Tensor mask, int heads, int channels, int plain"


@_operator("lgatr_attention", f"{_PARTS}, {_SIZES}")
def _attention(
    s: Tensor, v: Tensor, b: Tensor, metric: Tensor, mask: Tensor,
    heads: int, channels: int, plain: int,
) -> Three:  # fmt: skip
    from hepgen_ml.networks.lgatr.kernels import attention

    qkv = Multivectors(s, v, b)
    out = empty(qkv, heads * channels, heads * plain)
    attention.attend(
        *arrays(qkv), mask.numpy(), metric.numpy(), heads, channels, plain, *arrays(out)
    )
    return tuple(out)


@_attention.register_fake
def _(
    s: Tensor, v: Tensor, b: Tensor, metric: Tensor, mask: Tensor,
    heads: int, channels: int, plain: int,
) -> Three:  # fmt: skip
    return tuple(empty(Multivectors(s, v, b), heads * channels, heads * plain))


@_operator("lgatr_attention_gradient", f"{_PARTS}, {_GRADIENTS}, {_SIZES}")
def _attention_gradient(
    s: Tensor, v: Tensor, b: Tensor, gs: Tensor, gv: Tensor, gb: Tensor, metric: Tensor,
    mask: Tensor, heads: int, channels: int, plain: int,
) -> Three:  # fmt: skip
    from hepgen_ml.networks.lgatr.kernels import attention

    result = _empty_like(s, v, b)
    attention.attend_gradient(
        *arrays(Multivectors(s, v, b)), mask.numpy(), metric.numpy(), heads, channels, plain,
        *arrays(Multivectors(gs, gv, gb)), *arrays(result),
    )  # fmt: skip
    return tuple(result)


@_attention_gradient.register_fake
def _(s: Tensor, v: Tensor, b: Tensor, *others: Any) -> Three:
    return tuple(_empty_like(s, v, b))


def _keep_attention(ctx: Any, inputs: tuple[Any, ...], output: Three) -> None:
    *tensors, ctx.heads, ctx.channels, ctx.plain = inputs
    ctx.save_for_backward(*tensors)


def _attention_backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
    s, v, b, metric, mask = ctx.saved_tensors
    sizes = ctx.heads, ctx.channels, ctx.plain
    return *_attention_gradient(s, v, b, *gradient, metric, mask, *sizes), *[None] * 5


_attention.register_autograd(_attention_backward, setup_context=_keep_attention)


def product(factors: Multivectors, plain: Tensor, first: int) -> Multivectors:
    """Products of the first and the second half of the channels.

    Columns `first` and up of `plain` become the plain scalars of the result.
    """
    return Multivectors(*_product(plain, first, *factors))


def norm(x: Multivectors, gain: Tensor) -> Multivectors:
    """`layers.EquiNorm` with gain."""
    return Multivectors(*_norm(gain, *x))


def gate(x: Multivectors) -> Multivectors:
    """`layers.EquiNorm` without gain, then `layers.gated`."""
    return Multivectors(*_gate(*x))


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
    return Multivectors(*_attention(*qkv, metric, mask.contiguous(), heads, channels, plain))
