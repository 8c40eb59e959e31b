"""Does a function commute with Lorentz transformations and with permutations of tokens?

    for transformation in elements("lorentz"):
        assert violation(network, transformation, x) < 1e-9

or, all at once, `check(network, x, group="lorentz")`. Arguments and results may be
`Multivectors`, tensors of momenta (..., n, 4) as (px, py, pz, E), `Invariants` (..., n, k), or
tuples of these. Multivectors are transformed in the usual sixteen components by the
outermorphism of the matrix that transforms vectors: its elements between blades of the
same grade are minors of that matrix. This knows nothing of products, metrics or layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hepgen_ml.networks.lgatr.algebra import (
    COMPONENTS,
    Multivectors,
    from_components,
    to_components,
)

Function = Callable[..., Any]


class Invariants(NamedTuple):
    """Numbers (..., n, k) of n tokens that no transformation changes."""

    values: Tensor


@dataclass(frozen=True)
class Transformation:
    """Of vectors (t, x, y, z), in double precision."""

    name: str
    matrix: Tensor

    def __matmul__(self, other: Transformation) -> Transformation:
        return Transformation(f"{self.name}, {other.name}", self.matrix @ other.matrix)


def rotation(axis: Tensor | list[float], angle: float) -> Transformation:
    """Rotation of space about an axis."""
    n = torch.as_tensor(axis, dtype=torch.float64)
    n = n / n.norm()
    x, y, z = n.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[1:, 1:] += math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross
    return Transformation(f"rotation by {angle:.2f} about ({x:.2f}, {y:.2f}, {z:.2f})", matrix)


def boost(direction: Tensor | list[float], gamma: float) -> Transformation:
    """Boost along a direction."""
    n = torch.as_tensor(direction, dtype=torch.float64)
    n = n / n.norm()
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[0, 0] = gamma
    matrix[0, 1:] = matrix[1:, 0] = math.sqrt(gamma**2 - 1) * n
    matrix[1:, 1:] += (gamma - 1) * torch.outer(n, n)
    return Transformation(f"boost by gamma = {gamma:.2f}", matrix)


PARITY = Transformation("parity", torch.diag(torch.tensor([1.0, -1, -1, -1]).double()))
TIME_REVERSAL = Transformation("time reversal", torch.diag(torch.tensor([-1.0, 1, 1, 1]).double()))


def elements(group: str, *, seed: int = 0) -> Iterator[Transformation]:
    """Some elements: random rotations, boosts up to gamma = 10, products, reflections.

    Parameters
    ----------
    group : {"rotation", "lorentz", "lorentz_parity", "axis"}
        "axis" is what leaves the z axis alone: rotations about it.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)

    def direction() -> Tensor:
        return torch.randn(3, generator=generator, dtype=torch.float64)

    def angle() -> float:
        return float(6.28 * torch.rand((), generator=generator))

    if group == "axis":
        yield from (rotation([0, 0, 1], angle()) for _ in range(3))
        return
    turns = [rotation(direction(), angle()) for _ in range(3)]
    yield from turns
    if group == "rotation":
        return
    boosts = [boost(direction(), gamma) for gamma in (1.1, 3.0, 10.0)]
    yield from boosts
    yield from (one @ other for one, other in zip(boosts, turns, strict=True))
    if group == "lorentz":
        return
    if group != "lorentz_parity":
        raise ValueError(f"no group {group!r}")
    yield PARITY
    yield TIME_REVERSAL
    yield PARITY @ boosts[1] @ turns[0]
    yield TIME_REVERSAL @ boosts[2]
    yield PARITY @ TIME_REVERSAL @ turns[1]


def outermorphism(matrix: Tensor) -> Tensor:
    """Matrix (16, 16) on the usual components, of a matrix (4, 4) on vectors."""
    result = torch.zeros(16, 16, dtype=matrix.dtype)
    for i, to in enumerate(COMPONENTS):
        for j, of in enumerate(COMPONENTS):
            if len(to) == len(of):
                minor = matrix[list(to)][:, list(of)]
                result[i, j] = torch.linalg.det(minor) if to else 1.0
    return result


def transformed(transformation: Transformation, x: Any) -> Any:
    """Act on `Multivectors`, momenta, `Invariants` or a tuple of these."""
    if isinstance(x, Invariants) or x is None:
        return x
    if isinstance(x, Multivectors):
        components, scalars = to_components(x)
        matrix = outermorphism(transformation.matrix).to(components)
        result = from_components(components @ matrix.T, scalars)
        return result._replace(vectors=result.vectors[..., : x.vectors.shape[-1]])
    if isinstance(x, Tensor):
        matrix = transformation.matrix.to(x)[[1, 2, 3, 0]][:, [1, 2, 3, 0]]
        return x @ matrix.T
    return tuple(transformed(transformation, part) for part in x)


def permuted(order: Tensor, x: Any) -> Any:
    """Tokens in another order."""
    if x is None:
        return None
    if isinstance(x, Tensor):
        return x[..., order, :]
    parts = [permuted(order, part) for part in x]
    return type(x)(*parts) if isinstance(x, (Multivectors, Invariants)) else tuple(parts)


def difference(one: Any, other: Any) -> float:
    """Largest difference, relative to the largest number of the same kind (and to 1e-6)."""
    if isinstance(one, Multivectors):
        c = 2 * one.channels
        pairs = [(a, b) for a, b in zip(one[1:], other[1:], strict=True)]
        pairs += [(one.scalars[..., i], other.scalars[..., i]) for i in (slice(c), slice(c, None))]
        return max(difference(*pair) for pair in pairs)
    if isinstance(one, Tensor):
        if not one.numel():
            return 0.0
        return float(
            (one - other).detach().abs().max() / other.detach().abs().max().clamp_min(1e-6)
        )
    return max(difference(a, b) for a, b in zip(one, other, strict=True))


def violation(function: Function, transformation: Transformation, *arguments: Any) -> float:
    """How far f(g x) is from g f(x)."""
    moved = [transformed(transformation, x) for x in arguments]
    return difference(function(*moved), transformed(transformation, function(*arguments)))


def check(
    function: Function,
    *arguments: Any,
    group: str,
    permutations: bool = True,
    tolerance: float = 1e-9,
) -> None:
    """Assert that a function commutes with a group and with permutations of tokens."""
    for transformation in elements(group):
        worst = violation(function, transformation, *arguments)
        assert worst < tolerance, f"{transformation.name}: {worst:.1e}"
    if permutations:
        result = function(*arguments)
        n = next(t for t in _tensors(result)).shape[-2]
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
        worst = difference(
            function(*(permuted(order, x) for x in arguments)), permuted(order, result)
        )
        assert worst < tolerance, f"permutation {order.tolist()}: {worst:.1e}"


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif x is not None:
        for part in x:
            yield from _tensors(part)
