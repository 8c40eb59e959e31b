"""The fused kernels as torch operators: shapes told to the compiler, gradients, compiled graphs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hepgen_ml.networks.lgatr import LGATr, fused
from hepgen_ml.networks.lgatr.algebra import Multivectors

CHECKS = ("test_schema", "test_autograd_registration", "test_faketensor")


def multivectors(channels: int, plain: int, tokens: int = 5) -> list[Tensor]:
    shapes = (2, tokens, 2 * channels + plain), (4, 2, tokens, 2 * channels)
    shapes += ((3, 2, tokens, 2 * channels),)
    generator = torch.Generator().manual_seed(channels)
    return [torch.randn(s, generator=generator, requires_grad=True) for s in shapes]


def cases() -> dict[str, tuple[object, tuple[object, ...]]]:
    gain = torch.rand(5 * 3 + 4, requires_grad=True)
    plain = torch.randn(2, 5, 7, requires_grad=True)
    heads, channels, scalars = 2, 3, 4
    qkv = multivectors(3 * heads * channels, 3 * heads * scalars)
    metric = torch.randn(16 * channels + scalars)
    mask = torch.tensor([[True] * 5, [True, True, False, True, False]])
    return {
        "product": (fused._product, (plain, 3, *multivectors(6, 0))),
        "norm": (fused._norm, (gain, *multivectors(3, 4))),
        "gate": (fused._gate, tuple(multivectors(3, 4))),
        "attention": (fused._attention, (*qkv, metric, mask, heads, channels, scalars)),
    }


@pytest.mark.parametrize("name", cases())
def test_operators_keep_torchs_contract(name: str) -> None:
    operator, arguments = cases()[name]
    torch.library.opcheck(operator, arguments, test_utils=CHECKS)


def test_gradients_have_none() -> None:
    """Second derivatives are an error, not zero."""
    x = multivectors(3, 4)
    out = fused._gate(*x)
    first = torch.autograd.grad(out[0].sum(), x, create_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first[0].sum(), x)


def test_compiled_graph_holds_the_operators() -> None:
    network = LGATr(blocks=1, in_channels=1, channels=4, in_scalars=3, scalars=8, heads=2)
    x = Multivectors(*(t.detach() for t in multivectors(1, 3)))
    pull = [torch.randn_like(t) for t in network(x)]
    found: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        found.extend(str(n.target) for n in graph.graph.nodes if n.op == "call_function")
        return graph

    results = []
    for function in (network, torch.compile(network, backend=backend, fullgraph=True)):
        out = function(x)
        wrt = list(network.parameters())
        results.append([*out, *torch.autograd.grad(list(out), wrt, pull)])
    torch._dynamo.reset()
    for name in ("product", "norm", "gate", "attention"):
        assert any(f"lgatr_{name}" in target for target in found), name
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_kernels_leave_torchs_threads_alone(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fused._gate(*(t.detach() for t in multivectors(3, 4)))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
