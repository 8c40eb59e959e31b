"""How L-GATr is computed: fused kernels, fast inference, compilation, precision, transforms."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from hepgen_ml.networks.lgatr import LGATr, Multivectors, fused
from hepgen_ml.networks.lgatr import inference as inference_module
from hepgen_ml.networks.lgatr.inference import Inference
from hepgen_ml.networks.lgatr.layers import EquiAttention, EquiNorm, GeometricMLP
from tests.equivariance import difference
from tests.lgatr_layers import layer, leaves, multivectors, shaken, to


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


# Fused kernels


SIZES = [(3, 5), (16, 32), (17, 0), (1, 1), (33, 2)]


def outputs_and_gradients(
    function: Callable[..., Multivectors], module: Any, x: Multivectors, pull: Multivectors
) -> list[Tensor]:
    x = leaves(x)
    out = function(x)
    parameters = list(module.parameters()) if isinstance(module, nn.Module) else []
    parameters = [p for p in parameters if p.numel()]
    gradients = torch.autograd.grad(
        list(out), [*x, *parameters], list(pull), allow_unused=True, materialize_grads=True
    )
    return [*out, *gradients]


def with_mask(module: Any, x: Multivectors, mask: Tensor | None) -> Multivectors:
    return module(x, mask)


def without_mask(module: Any, x: Multivectors) -> Multivectors:
    return module(x)


@pytest.mark.parametrize(("channels", "scalars"), SIZES)
@pytest.mark.parametrize("name", ["norm", "attention", "mlp"])
def test_kernels_compute_the_formulas(
    name: str, channels: int, scalars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {
        "norm": lambda: EquiNorm(channels, scalars),
        "attention": lambda: EquiAttention(channels, scalars, 2, 2),
        "mlp": lambda: GeometricMLP(channels, scalars, 2),
    }[name]()
    shaken(module)
    exact = copy.deepcopy(module).double()
    for tokens, padded in ((4, False), (1, False), (5, True)):
        x = multivectors(channels, scalars, batch=9, tokens=tokens, dtype=torch.float32)
        x.scalars[0, 0], x.vectors[:, 0, 0], x.bivectors[:, 0, 0] = (
            0.01,
            0.01,
            0.0,
        )  # under the floor
        pull = Multivectors(*(torch.randn_like(t) for t in x))
        mask = torch.rand(9, tokens) < 0.7 if padded else None
        if mask is not None:
            mask[:, 0] = True
        run = partial(with_mask, mask=mask) if name == "attention" else without_mask
        assert fused.applies(x)
        fast = outputs_and_gradients(partial(run, module), module, x, pull)
        slow = outputs_and_gradients(
            partial(run, exact), exact, to(torch.float64, x), to(torch.float64, pull)
        )
        with monkeypatch.context() as patch:
            patch.setattr(fused, "available", lambda x: False)
            plain = outputs_and_gradients(partial(run, module), module, x, pull)
        for one, other, truth in zip(fast, plain, slow, strict=True):
            assert one.shape == truth.shape
            # with one channel even the formulas lose digits to the norm
            assert difference(one, truth) < 1e-5 + 4 * difference(other, truth)


def test_networks_without_tokens() -> None:
    network = layer("network").float()
    x = multivectors(batch=0, dtype=torch.float32)
    assert network(x).vectors.shape == (4, 0, 4, 4)
    assert Inference(network)(x).vectors.shape == (4, 0, 4, 4)


@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (7, 3), (70, 5), (33, 8)])
def test_inference_is_the_network(batch: int, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference_module, "TOKENS", 64)
    network = layer("network").float()
    inference = Inference(network)
    mask = torch.rand(batch, tokens) < 0.6
    mask[:, 0] = True
    for x in (multivectors(batch=batch, tokens=tokens, dtype=torch.float32) for _ in range(2)):
        for chosen in (None, mask):
            with torch.no_grad():
                expected = network(x, chosen)
            result = inference(x, chosen)
            assert not result.vectors.requires_grad
            for t in (result, expected):
                if chosen is not None:
                    for part in t:
                        part[..., ~mask, :] = 0
            assert difference(result, expected) < 1e-5
    # what it falls back to
    for symmetry, dtype in (("rotation", torch.float32), ("lorentz", torch.float64)):
        network = layer("network", symmetry).to(dtype)
        x = multivectors(batch=batch, tokens=tokens, dtype=dtype, symmetry=symmetry)
        assert difference(Inference(network)(x), network(x)) == 0


# Compilation, precision, function transforms


@pytest.mark.parametrize("symmetry", ["lorentz", "rotation"])
def test_network_is_one_graph(symmetry: str) -> None:
    network = layer("network", symmetry, blocks=1).float()
    x = multivectors(dtype=torch.float32, symmetry=symmetry)
    mask = torch.rand(3, 4) < 0.8
    mask[:, 0] = True
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    assert difference(compiled(x, mask), network(x, mask)) < 1e-5
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")
def test_compiled_network_is_the_network() -> None:
    network = LGATr(blocks=1, in_channels=3, channels=4, in_scalars=5, scalars=8, heads=2)
    x = multivectors(dtype=torch.float32)
    pull = Multivectors(*(torch.randn_like(t) for t in network(x)))
    expected = outputs_and_gradients(network, network, x, pull)
    compiled = torch.compile(network)
    for one, other in zip(outputs_and_gradients(compiled, network, x, pull), expected, strict=True):
        assert difference(one, other) < 1e-5
    torch._dynamo.reset()


def test_bfloat16_is_close_and_leaves_no_trace() -> None:
    network = layer("network").float()
    x = multivectors(dtype=torch.float32)
    before = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = leaves(x)
        rough = network(y)
        sum(t.float().square().sum() for t in rough).backward()
    assert all(t.grad is not None and t.grad.isfinite().all() for t in y)
    assert 1e-5 < difference(to(torch.float32, rough), before) < 0.05
    after = network(x)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def jacobian_times(network: LGATr, x: Multivectors, tangent: Multivectors) -> Multivectors:
    """By reverse mode, twice."""
    rows = []
    with sdpa_kernel(SDPBackend.MATH):  # the only one that has second derivatives
        for i, part in enumerate(network(x)):
            pull = torch.zeros_like(part, requires_grad=True)
            y = leaves(x)
            gradient = torch.autograd.grad(network(y)[i], list(y), pull, create_graph=True)
            total = sum((g * t).sum() for g, t in zip(gradient, tangent, strict=True))
            rows.append(torch.autograd.grad(total, pull)[0])
    return Multivectors(*rows)


def test_forward_derivatives_and_maps() -> None:
    network = layer("network")
    x, tangent = multivectors(), multivectors()
    expected = jacobian_times(network, x, tangent)
    single = copy.deepcopy(network).float()
    x32, t32 = to(torch.float32, x), to(torch.float32, tangent)

    def flat(s: Tensor, v: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return tuple(single(Multivectors(s, v, b)))

    with torch.no_grad():
        value, derivative = torch.func.jvp(flat, tuple(x32), tuple(t32))
    assert difference(Multivectors(*value), single(x32)) < 1e-5
    assert difference(Multivectors(*derivative), expected) < 1e-4
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(a, b) for a, b in zip(x32, t32, strict=True)]
        result = [forward_ad.unpack_dual(t).tangent for t in flat(*dual)]
    assert difference(Multivectors(*result), expected) < 1e-4
    # vmap over events, each a batch of one
    mapped = torch.func.vmap(
        lambda s, v, b: flat(s.unsqueeze(0), v.unsqueeze(1), b.unsqueeze(1)),
        in_dims=(0, 1, 1), out_dims=(0, 1, 1),
    )(*x32)  # fmt: skip
    mapped = Multivectors(*(t.squeeze(d) for t, d in zip(mapped, (1, 2, 2), strict=True)))
    assert difference(mapped, single(x32)) < 1e-5


def test_works_where_torch_does_not_tell_about_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = layer("network").float(), multivectors(dtype=torch.float32)
    expected = network(x)
    monkeypatch.delattr(torch._C._functorch, "maybe_current_level")
    assert difference(network(x), expected) == 0


def test_kernels_leave_the_number_of_threads_alone() -> None:
    """Pitfall: numba's threads, once started, were those of torch too, whatever was asked for."""
    threads = int(os.environ["OMP_NUM_THREADS"])
    layer("network").float()(multivectors(dtype=torch.float32))
    assert numba.get_num_threads() == torch.get_num_threads() == threads
