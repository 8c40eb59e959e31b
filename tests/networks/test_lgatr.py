"""L-GATr: algebra, symmetry of layers and network, agreement with the public package."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hepgen_ml.networks.lgatr import LGATr, Multivectors
from hepgen_ml.networks.lgatr.algebra import (
    COMPONENTS,
    METRIC,
    blade_product,
    embed_vectors,
    from_components,
    geometric_product,
    to_components,
)
from hepgen_ml.networks.lgatr.inference import Inference
from tests import lgatr_reference
from tests.equivariance import (
    PARITY,
    TIME_REVERSAL,
    boost,
    check,
    difference,
    elements,
    rotation,
    transformed,
    violation,
)
from tests.lgatr_layers import (
    CHANNELS,
    LAYERS,
    SCALARS,
    SYMMETRIES,
    layer,
    leaves,
    multivectors,
    shaken,
)
from tests.lgatr_reference import Shape


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


# Algebra


def inner_metric(dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Signs of the inner product <~x y>_0 on stored scalars (2,), vectors (4, 2), bivectors (3, 2).

    The first column belongs to s, v, E, the second to p, a, B.
    """
    v = torch.tensor(METRIC, dtype=dtype)
    e = -torch.ones(3, dtype=dtype)
    return torch.tensor([1, -1], dtype=dtype), torch.stack([v, -v], 1), torch.stack([e, -e], 1)


def product_table() -> np.ndarray:
    """Structure constants (16, 16, 16) in usual components: out, left, right."""
    table = np.zeros((16, 16, 16))
    for i, a in enumerate(COMPONENTS):
        for j, b in enumerate(COMPONENTS):
            blade, sign = blade_product(a, b)
            table[COMPONENTS.index(blade), i, j] = sign
    return table


def dirac() -> list[Tensor]:
    """Gamma matrices in the chiral representation."""
    one, zero = torch.eye(2, dtype=torch.complex128), torch.zeros(2, 2, dtype=torch.complex128)
    sigma = torch.tensor([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]]).to(one)

    def matrix(above: Tensor, below: Tensor) -> Tensor:
        return torch.cat([torch.cat([zero, above], 1), torch.cat([below, zero], 1)])

    return [matrix(one, one), *(matrix(s, -s) for s in sigma)]


def blades() -> Tensor:
    """Matrices (16, 4, 4) of the basis blades."""
    gamma = dirac()
    result = []
    for blade in COMPONENTS:
        matrix = torch.eye(4, dtype=torch.complex128)
        for direction in blade:
            matrix = matrix @ gamma[direction]
        result.append(matrix)
    return torch.stack(result)


def test_product_table_is_that_of_gamma_matrices() -> None:
    gamma = dirac()
    for i, j in itertools.product(range(4), repeat=2):
        expected = 2 * METRIC[i] * (i == j) * torch.eye(4, dtype=torch.complex128)
        torch.testing.assert_close(gamma[i] @ gamma[j] + gamma[j] @ gamma[i], expected)
    basis = blades()
    table = torch.from_numpy(product_table()).to(basis)
    products = torch.einsum("iab,jbc->ijac", basis, basis)
    torch.testing.assert_close(products, torch.einsum("kij,kac->ijac", table, basis))


def test_stored_components_are_what_they_are_said_to_be() -> None:
    one, gamma, basis = torch.eye(4, dtype=torch.complex128), dirac(), blades()
    unit = gamma[0] @ gamma[1] @ gamma[2] @ gamma[3]
    x = torch.randn(5, 2, 16, dtype=torch.float64)
    stored = from_components(x)
    expected = torch.einsum("tci,iab->tcab", x.to(basis), basis)
    electric = torch.stack([gamma[k] @ gamma[0] for k in (1, 2, 3)])
    parts = (
        (stored.scalars, torch.stack([one]), None),
        (stored.vectors, torch.stack(gamma), 4),
        (stored.bivectors, electric, 3),
    )
    total = torch.zeros_like(expected)
    for rows, matrices, n in parts:
        numbers = rows.unsqueeze(0) if n is None else rows
        total += torch.einsum("ntc,nab->tcab", numbers[..., :2].to(basis), matrices)
        total += torch.einsum("ntc,nab->tcab", numbers[..., 2:].to(basis), unit @ matrices)
    torch.testing.assert_close(total, expected)


def test_components_make_the_round_trip() -> None:
    x = torch.randn(2, 3, CHANNELS, 16, dtype=torch.float64)
    s = torch.randn(2, 3, SCALARS, dtype=torch.float64)
    components, scalars = to_components(from_components(x, s))
    assert torch.equal(components, x)
    assert torch.equal(scalars, s)
    even = from_components(x, s)
    even = even._replace(vectors=even.vectors[..., :0])
    components, _ = to_components(even)
    odd = torch.tensor([len(blade) % 2 == 1 for blade in COMPONENTS])
    assert torch.equal(components, x.masked_fill(odd, 0))
    p = torch.randn(2, 3, 1, 4, dtype=torch.float64)
    embedded, _ = to_components(embed_vectors(p, s))
    assert torch.equal(embedded[..., 1:5], p[..., [3, 0, 1, 2]])
    assert not embedded[..., [0, *range(5, 16)]].any()


def test_geometric_product() -> None:
    x, y, z = (torch.randn(7, 2, 16, dtype=torch.float64) for _ in range(3))
    table = torch.from_numpy(product_table())

    def product(a: Tensor, b: Tensor) -> Tensor:
        return to_components(geometric_product(from_components(a), from_components(b)))[0]

    expected = torch.einsum("kij,tci,tcj->tck", table, x, y)
    torch.testing.assert_close(product(x, y), expected, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        product(product(x, y), z), product(x, product(y, z)), rtol=0, atol=1e-12
    )
    even = [multivectors(2, 0, symmetry="rotation") for _ in range(2)]
    whole = [x._replace(vectors=x.bivectors.new_zeros(4, *x.bivectors.shape[1:])) for x in even]
    result = to_components(geometric_product(*even))[0]
    torch.testing.assert_close(result, to_components(geometric_product(*whole))[0])


def test_inner_product_is_the_scalar_of_reversal_times_element() -> None:
    x, y = (torch.randn(4, 1, 16, dtype=torch.float64) for _ in range(2))
    reversal = torch.tensor([(-1.0) ** (len(b) * (len(b) - 1) // 2) for b in COMPONENTS])
    table = torch.from_numpy(product_table())
    expected = torch.einsum("ij,tci,tcj->t", table[0], x * reversal, y)
    a, b, metric = from_components(x), from_components(y), inner_metric(torch.float64)
    result = (a.scalars * metric[0] * b.scalars).sum(-1)
    result += torch.einsum("mtc,mc,mtc->t", a.vectors, metric[1], b.vectors)
    result += torch.einsum("mtc,mc,mtc->t", a.bivectors, metric[2], b.bivectors)
    torch.testing.assert_close(result, expected)


# Symmetry


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_equivariant(name: str, symmetry: str) -> None:
    check(layer(name, symmetry), multivectors(symmetry=symmetry), group=symmetry)


@pytest.mark.parametrize("name", ["linear", "attention", "mlp", "block", "network"])
def test_layers_have_no_more_symmetry_than_promised(name: str) -> None:
    x = multivectors()
    for reflection in (PARITY, TIME_REVERSAL):
        assert violation(layer(name), reflection, x) > 1e-2
        assert violation(layer(name, "lorentz_parity"), reflection, x) < 1e-12
    x = multivectors(symmetry="rotation")
    assert violation(layer(name, "rotation"), boost([1, 2, 3], 2.0), x) > 1e-2
    dilation = PARITY.__class__("dilation", 2 * torch.eye(4, dtype=torch.float64))
    assert violation(layer(name), dilation, multivectors()) > 1e-2


def test_functions_of_momenta() -> None:
    """Of the checker itself, with what velocity networks take and give."""
    network = layer("network")
    scalars = torch.randn(3, 4, SCALARS, dtype=torch.float64)

    def velocity(p: Tensor) -> Tensor:
        x = embed_vectors(
            p.unsqueeze(-2).expand(-1, -1, CHANNELS, -1), scalars[:, :1].expand(-1, 4, -1)
        )
        return network(x).vectors[[1, 2, 3, 0], ..., 0].movedim(0, -1)

    p = torch.randn(3, 4, 4, dtype=torch.float64)
    check(velocity, p, group="lorentz")
    with pytest.raises(AssertionError, match="rotation by"):
        check(lambda p: velocity(p) + torch.eye(4, dtype=p.dtype)[0], p, group="lorentz")
    with pytest.raises(AssertionError, match="permutation"):
        check(lambda p: p * torch.arange(4).view(4, 1), p, group="lorentz")


def references(kind: str) -> Tensor:
    """Directions (k, 16) that break the symmetry."""
    rows = {
        "plane": {(1, 2): 1.0},
        "time": {(0,): 1.0},
        "plus": {(0,): 1.0, (3,): 1.0},
        "minus": {(0,): 1.0, (3,): -1.0},
    }
    names = {"plane": ["plane"], "time": ["time"], "beams": ["plus", "minus"],
             "plane and time": ["plane", "time"]}[kind]  # fmt: skip
    result = torch.zeros(len(names), 16, dtype=torch.float64)
    for row, name in zip(result, names, strict=True):
        for blade, value in rows[name].items():
            row[COMPONENTS.index(blade)] = value
    return result


def with_references(network: LGATr, extra: Tensor) -> Callable[[Multivectors], Multivectors]:
    """The network as a function of its other channels."""

    def function(x: Multivectors) -> Multivectors:
        components, scalars = to_components(x)
        extra_channels = extra.expand(*components.shape[:-2], -1, -1)
        return network(from_components(torch.cat([components, extra_channels], -2), scalars))

    return function


@pytest.mark.parametrize(
    ("kind", "turns", "about_z", "along_z"),
    [
        # kept: all rotations, those about the beam, boosts along it
        ("plane", False, True, True),
        ("time", True, True, False),
        ("beams", False, True, False),
        ("plane and time", False, True, False),
    ],
)
def test_references_leave_what_leaves_them_alone(
    kind: str, turns: bool, about_z: bool, along_z: bool
) -> None:
    extra, x = references(kind), multivectors()
    network = layer("network", in_channels=CHANNELS + len(extra))
    function = with_references(network, extra)
    for elements_of, kept in (
        ([boost([0, 0, 1], 3.0), boost([0, 0, 1], 10.0) @ rotation([0, 0, 1], 1.0)], along_z),
        (elements("axis"), about_z),
        ([rotation([1, 0, 0], 0.5), rotation([1, 2, 3], 2.0)], turns),
        ([rotation([1, 0, 0], torch.pi)], turns),  # turns the beams and the plane round
        ([boost([1, 0, 0], 3.0), boost([1, 1, 1], 1.5)], False),
        ([PARITY], False),
    ):
        for element in elements_of:
            worst = violation(function, element, x)
            assert worst < 1e-9 if kept else worst > 1e-3, element.name


def test_boosts_along_the_beams_rescale_them() -> None:
    """Two light-like beams: f(boost x, rescaled beams) = boost f(x, beams), nothing more."""
    extra, x = references("beams"), multivectors()
    network = layer("network", in_channels=CHANNELS + 2)
    gamma = 3.0
    element, factor = boost([0, 0, 1], gamma), gamma + (gamma**2 - 1) ** 0.5
    rescaled = extra * torch.tensor([[factor], [1 / factor]], dtype=torch.float64)
    moved = with_references(network, rescaled)(transformed(element, x))
    expected = transformed(element, with_references(network, extra)(x))
    assert difference(moved, expected) < 1e-9


# Masks


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_padding_changes_nothing(symmetry: str, dtype: torch.dtype) -> None:
    network = layer("network", symmetry).to(dtype)
    lengths = [4, 2, 1]
    mask = torch.arange(4) < torch.tensor(lengths).unsqueeze(1)
    x = multivectors(dtype=dtype, symmetry=symmetry)
    other = Multivectors(*(torch.where(mask.unsqueeze(-1), t, 10 * torch.randn_like(t)) for t in x))
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    functions = [network, Inference(network)]
    for function in functions:
        one, two = function(x, mask), function(other, mask)
        for i, n in enumerate(lengths):
            event = Multivectors(*(t[..., i : i + 1, :n, :] for t in x))
            alone = network(event)
            for padded in (one, two):
                short = Multivectors(*(t[..., i : i + 1, :n, :] for t in padded))
                assert difference(short, alone) < tolerance
    # nor does what stands in padded tokens feel the real ones' loss
    y = leaves(x)
    (network(y, mask).scalars * mask.unsqueeze(-1)).square().sum().backward()
    for t in y:
        if t.shape[-1]:
            assert not t.grad[..., ~mask, :].any()
            assert t.grad.any()


def test_masks_reach_the_reference() -> None:
    shape = Shape(blocks=2, in_scalars=5)
    theirs = shaken(lgatr_reference.reference(shape).double())
    ours = lgatr_reference.twin(theirs, shape)
    x = torch.randn(2, 4, 3, 16, dtype=torch.float64)
    s = torch.randn(2, 4, 5, dtype=torch.float64)
    mask = torch.tensor([[True] * 4, [True] * 3 + [False]])
    expected = theirs(x, s, attn_mask=mask[:, None, None, :])
    for one, other in zip(ours.components(x, s, mask), expected, strict=True):
        assert difference(one[mask], other[mask]) < 1e-12


# Agreement with the public package

SHAPES = {
    "two blocks": Shape(blocks=2, in_scalars=5),
    "parity": Shape(blocks=2, in_scalars=5, parity=True),
    # width of a head 16 * 3 + 5 = 53
    "odd": Shape(blocks=1, in_channels=2, out_channels=3, channels=6, in_scalars=3,
                 out_scalars=1, scalars=10, heads=2, attention_ratio=1, mlp_ratio=3),
    "odd parity": Shape(blocks=1, in_channels=1, channels=5, in_scalars=0, out_scalars=0,
                        scalars=7, heads=3, attention_ratio=2, mlp_ratio=1, parity=True),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SHAPES)
def test_same_function_as_the_public_package(name: str, dtype: torch.dtype) -> None:
    shape = SHAPES[name]
    theirs = shaken(lgatr_reference.reference(shape).to(dtype))
    for module in theirs.modules():
        if isinstance(getattr(module, "epsilon", None), Tensor):
            module.epsilon.fill_(0.01)  # was rounded to single precision
    ours = lgatr_reference.twin(theirs, shape)
    x = torch.randn(4, 7, shape.in_channels, 16, dtype=dtype)
    s = torch.randn(4, 7, shape.in_scalars, dtype=dtype)
    inputs = [x.requires_grad_()] + ([s.requires_grad_()] if shape.in_scalars else [])
    theirs_parameters = [p for p in theirs.parameters() if p.requires_grad]
    expected = [t for t in theirs(x, s if shape.in_scalars else None) if t is not None]
    # our parameters as functions of theirs: gradients flow back to the same place
    parameters = lgatr_reference.weights(theirs, ours)
    results = torch.func.functional_call(_Components(ours), _prefixed(parameters), (x, s))
    pull = [torch.randn_like(t) for t in expected]
    wanted = torch.autograd.grad(expected, [*inputs, *theirs_parameters], pull)
    got = torch.autograd.grad(results[: len(expected)], [*inputs, *theirs_parameters], pull)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    results = results[: len(expected)]
    for one, other in zip([*results, *got], [*expected, *wanted], strict=True):
        assert difference(one, other) < tolerance
    # every parameter of ours is reached
    assert set(parameters) == set(dict(ours.named_parameters()))


class _Components(nn.Module):
    def __init__(self, network: LGATr) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        return self.network.components(x, scalars)


def _prefixed(parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": parameter for name, parameter in parameters.items()}
