"""The fused kernels as differentiable functions of `Multivectors`.

They stand in for the formulas of `layers` on a CPU in single precision. To torch they are
operators, so that `torch.compile` takes each as it is and compiles what lies between them.
Function transforms and forward derivatives see the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import custom_op

from hepgen_ml.networks.lgatr.algebra import Multivectors

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]
Parts = tuple[Tensor, ...]
"""Multivectors as operators take and give them."""


def available(x: Tensor) -> bool:
    """Whether the fused kernels exist for this kind of tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def applies(x: Multivectors) -> bool:
    """Whether the fused kernels can be used on these tensors in this context."""
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


def arrays(x: Multivectors | Sequence[Tensor]) -> Arrays:
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


def _operator(
    name: str,
    inputs: str,
    run: Callable[..., Parts],
    shapes: Callable[..., Parts],
    gradient: tuple[Callable[..., Any], Callable[..., Any]] | None = None,
) -> Callable[..., Parts]:
    """A torch operator.

    Parameters
    ----------
    name : str
    inputs : str
        In torch's language of schemas.
    run : callable
    shapes : callable
        Results without values, for the compiler.
    gradient : pair of callables
        Function that saves tensors for the backward pass, and the backward pass. Without them a
        derivative of the operator is an error.
    """
    results = ", ".join(["Tensor"] * (4 if name == "norm_gradient" else 3))
    operator = custom_op(
        f"hepgen_ml::lgatr_{name}", run, mutates_args=(), device_types="cpu",
        schema=f"({inputs}) -> ({results})",
    )  # fmt: skip
    operator.register_fake(shapes)
    if gradient is not None:
        operator.register_autograd(gradient[1], setup_context=gradient[0])
    return operator


_PARTS = "Tensor s, Tensor v, Tensor b"
_BOTH = f"{_PARTS}, Tensor gs, Tensor gv, Tensor gb"
_SIZES = "Tensor metric, Tensor mask, int heads, int channels, int plain"


def _like(*x: Any) -> Parts:
    """Room for results like the first three tensors."""
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in x[:3])


def _keep(ctx: Any, inputs: Parts, output: Parts) -> None:
    ctx.save_for_backward(*inputs)


def _product_shapes(plain: Tensor, first: int, *x: Tensor) -> Parts:
    like = Multivectors(*x)
    return tuple(empty(like, like.channels // 2, plain.shape[-1] - first))


def _run_product(plain: Tensor, first: int, *x: Tensor) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import product

    out = _product_shapes(plain, first, *x)
    flat = plain.detach().contiguous().view(-1, plain.shape[-1]).numpy()
    product.product(*arrays(x), flat, first, *arrays(out))
    return out


def _run_product_gradient(*parts: Tensor) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import product

    result = _like(*parts)
    product.product_gradient(*arrays(parts[:3]), *arrays(parts[3:]), *arrays(result))
    return result


_product_gradient = _operator("product_gradient", _BOTH, _run_product_gradient, _like)


def _keep_factors(ctx: Any, inputs: tuple[Any, ...], output: Parts) -> None:
    _, ctx.first, *x = inputs
    ctx.save_for_backward(*x)


def _product_backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
    x, g = Multivectors(*ctx.saved_tensors), Multivectors(*gradient)
    plain = torch.nn.functional.pad(g.scalars[..., x.channels :], (ctx.first, 0))
    return plain, None, *_product_gradient(*x, *g)


_product = _operator(
    "product", f"Tensor plain, int first, {_PARTS}", _run_product, _product_shapes,
    (_keep_factors, _product_backward),
)  # fmt: skip


def _run_norm(gain: Tensor, *x: Tensor) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import norm

    out = _like(*x)
    norm.norm(*arrays(x), gain.detach().numpy(), *arrays(out))
    return out


def _run_norm_gradient(gain: Tensor, *parts: Tensor) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import GROUP, norm

    x, gradient, result = arrays(parts[:3]), arrays(parts[3:]), _like(*parts)
    gains = gain.new_empty(-(-len(x[0]) // GROUP), len(gain))
    norm.norm_gradient(*x, gain.detach().numpy(), *gradient, *arrays(result), gains.numpy())
    return gains.sum(0), *result


_norm_gradient = _operator(
    "norm_gradient", f"Tensor gain, {_BOTH}", _run_norm_gradient,
    lambda gain, *parts: (torch.empty_like(gain), *_like(*parts)),
)  # fmt: skip
_norm = _operator(
    "norm", f"Tensor gain, {_PARTS}", _run_norm, lambda gain, *x: _like(*x),
    (_keep, lambda ctx, *gradient: _norm_gradient(*ctx.saved_tensors, *gradient)),
)  # fmt: skip


def _run_gate(*x: Tensor) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import norm

    out = _like(*x)
    norm.gate(*arrays(x), *arrays(out))
    return out


def _run_gate_gradient(*parts: Tensor) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import norm

    result = _like(*parts)
    norm.gate_gradient(*arrays(parts[:3]), *arrays(parts[3:]), *arrays(result))
    return result


_gate_gradient = _operator("gate_gradient", _BOTH, _run_gate_gradient, _like)
_gate = _operator(
    "gate", _PARTS, _run_gate, _like,
    (_keep, lambda ctx, *gradient: _gate_gradient(*ctx.saved_tensors, *gradient)),
)  # fmt: skip


def _attention_shapes(*arguments: Any) -> Parts:
    *x, _, _, heads, channels, plain = arguments
    return tuple(empty(Multivectors(*x), heads * channels, heads * plain))


def _run_attention(*arguments: Any) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import attention

    out = _attention_shapes(*arguments)
    *x, metric, mask, heads, channels, plain = arguments
    attention.attend(*arrays(x), mask.numpy(), metric.numpy(), heads, channels, plain, *arrays(out))
    return out


def _run_attention_gradient(*arguments: Any) -> Parts:
    from hepgen_ml.networks.lgatr.kernels import attention

    *parts, metric, mask, heads, channels, plain = arguments
    result = _like(*parts)
    attention.attend_gradient(
        *arrays(parts[:3]), mask.numpy(), metric.numpy(), heads, channels, plain,
        *arrays(parts[3:]), *arrays(result),
    )  # fmt: skip
    return result


_attention_gradient = _operator(
    "attention_gradient", f"{_BOTH}, {_SIZES}", _run_attention_gradient, _like
)


def _keep_attention(ctx: Any, inputs: tuple[Any, ...], output: Parts) -> None:
    *tensors, heads, channels, plain = inputs
    ctx.sizes = heads, channels, plain
    ctx.save_for_backward(*tensors)


def _attention_backward(ctx: Any, *gradient: Tensor) -> tuple[Any, ...]:
    *x, metric, mask = ctx.saved_tensors
    return *_attention_gradient(*x, *gradient, metric, mask, *ctx.sizes), *[None] * 5


_attention = _operator(
    "attention", f"{_PARTS}, {_SIZES}", _run_attention, _attention_shapes,
    (_keep_attention, _attention_backward),
)  # fmt: skip


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
