r"""The spacetime algebra Cl(1,3) and how its elements are stored.

A multivector is :math:`x = P + Q\gamma_0` with two complex Pauli elements

.. math::
    P = (s + I p) + (E_k + I B_k)\,\sigma_k, \qquad
    Q = (v_0 + I a_0) + (v_k + I a_k)\,\sigma_k,

where :math:`\sigma_k = \gamma_k\gamma_0` and the pseudoscalar
:math:`I = \gamma_0\gamma_1\gamma_2\gamma_3` plays the imaginary unit: s is a scalar,
p a pseudoscalar, v a vector, a an axial vector, (E, B) a bivector. Multiplication by
I, the dual, is part of every map that SO+(1,3) allows; here it is no more than a mixture
of two neighbouring columns, so that such a map is three plain matrix products, one per
spin (`hepgen_ml.networks.lgatr.layers.EquiLinear`).

`Multivectors` holds the channels of a set of tokens in this form. The usual sixteen
components in the order 1, t, x, y, z, tx, ty, tz, xy, xz, yz, txy, txz, tyz, xyz, txyz
(2405.14806, equation 4) are `COMPONENTS`; `from_components` and `to_components` translate.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

COMPONENTS: tuple[tuple[int, ...], ...] = tuple(
    blade for grade in range(5) for blade in combinations(range(4), grade)
)
"""Basis blades, each a tuple of the directions t, x, y, z that it is the product of."""

METRIC = (1, -1, -1, -1)


class Multivectors(NamedTuple):
    """Multivector channels and plain scalar channels of tokens, component-major.

    Elements of the even subalgebra may have no columns of vectors, (4, ..., 0).

    Attributes
    ----------
    scalars : (..., 2C + S) tensor
        C scalars, C pseudoscalars, S plain scalars.
    vectors : (4, ..., 2C) tensor
        Components t, x, y, z of C vectors, then C axial vectors.
    bivectors : (3, ..., 2C) tensor
        C electric parts E_k, then C magnetic parts B_k.
    """

    scalars: Tensor
    vectors: Tensor
    bivectors: Tensor

    @property
    def channels(self) -> int:
        """Number of multivector channels C."""
        return self.bivectors.shape[-1] // 2

    def plus(self, other: Multivectors) -> Multivectors:
        """Sum."""
        return Multivectors(*(a + b for a, b in zip(self, other, strict=True)))


def blade_product(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Product of two basis blades: the blade and its sign."""
    directions, sign = [*a, *b], 1
    for end in range(len(directions), 0, -1):  # sorting by exchanges, each of which is a minus
        for i in range(end - 1):
            if directions[i] > directions[i + 1]:
                directions[i], directions[i + 1] = directions[i + 1], directions[i]
                sign = -sign
    kept: list[int] = []
    for direction in directions:
        if kept and kept[-1] == direction:
            kept.pop()
            sign *= METRIC[direction]
        else:
            kept.append(direction)
    return tuple(kept), sign


def _stored() -> list[tuple[int, int]]:
    """Component and sign of stored numbers, in the order s, p, v, a (t to z), E, B (x to z)."""

    def product(*blades: tuple[int, ...]) -> tuple[int, int]:
        result: tuple[int, ...] = ()
        sign = 1
        for blade in blades:
            result, more = blade_product(result, blade)
            sign *= more
        return COMPONENTS.index(result), sign

    unit = (0, 1, 2, 3)
    vectors = [product((k,)) for k in range(4)] + [product(unit, (k,)) for k in range(4)]
    bivectors = [product((k,), (0,)) for k in (1, 2, 3)]
    bivectors += [product(unit, (k,), (0,)) for k in (1, 2, 3)]
    return [product(()), product(unit), *vectors, *bivectors]


STORED = _stored()
"""Component and sign of each stored number: s, p; v, a; E, B."""

_ORDER = [component for component, _ in STORED]
_BACK = [_ORDER.index(i) for i in range(16)]
_SIGN = [float(sign) for _, sign in STORED]
_SIGN_BACK = [_SIGN[i] for i in _BACK]


def from_components(x: Tensor, scalars: Tensor | None = None) -> Multivectors:
    """Channels (..., C, 16) in usual components, and plain scalars (..., S), as `Multivectors`."""
    stored = x[..., _ORDER] * x.new_tensor(_SIGN)
    parts = [stored[..., 0], stored[..., 1]]
    if scalars is not None:
        parts.append(scalars)
    vectors = torch.cat([stored[..., 2:6], stored[..., 6:10]], dim=-2)
    bivectors = torch.cat([stored[..., 10:13], stored[..., 13:16]], dim=-2)
    return Multivectors(
        torch.cat(parts, dim=-1),
        vectors.movedim(-1, 0).contiguous(),
        bivectors.movedim(-1, 0).contiguous(),
    )


def to_components(x: Multivectors) -> tuple[Tensor, Tensor]:
    """Inverse of `from_components`: channels (..., C, 16) and plain scalars (..., S)."""
    c = x.channels
    even = torch.stack([x.scalars[..., :c], x.scalars[..., c : 2 * c]], dim=-1)
    v, b = x.vectors.movedim(0, -1), x.bivectors.movedim(0, -1)
    if not v.shape[-2]:
        v = b.new_zeros(*b.shape[:-1], 4)
    stored = torch.cat([even, v[..., :c, :], v[..., c:, :], b[..., :c, :], b[..., c:, :]], dim=-1)
    return stored[..., _BACK] * x.scalars.new_tensor(_SIGN_BACK), x.scalars[..., 2 * c :]


def embed_vectors(p: Tensor, scalars: Tensor) -> Multivectors:
    """Momenta (..., C, 4) as (px, py, pz, E) and plain scalars (..., S) as `Multivectors`."""
    vectors = p.movedim(-1, 0)[[3, 0, 1, 2]]
    zero = torch.zeros_like(vectors)
    return Multivectors(
        torch.cat([zero[0], zero[0], scalars], dim=-1),
        torch.cat([vectors, zero], dim=-1),
        torch.cat([zero[:3], zero[:3]], dim=-1),
    )


def geometric_product(left: Multivectors, right: Multivectors) -> Multivectors:
    """Channel-wise product of multivectors without plain scalars.

    With P* the Pauli element gamma_0 P gamma_0 (p_0 conjugated, p_k conjugated and
    reversed), (P + Q gamma_0)(P' + Q' gamma_0) = P P' + Q Q'* + (P Q' + Q P'*) gamma_0.
    """
    p, q = _pauli(left)
    r, s = _pauli(right)
    if not left.vectors.shape[-1]:  # the even subalgebra
        even = _pauli_product(p, r)
        return Multivectors(
            torch.cat(even[0], dim=-1),
            left.vectors,
            torch.stack([torch.cat(pair, dim=-1) for pair in even[1:]]),
        )
    p_r, q_s = _pauli_product(p, r), _pauli_product(q, _conjugate(s))
    p_s, q_r = _pauli_product(p, s), _pauli_product(q, _conjugate(r))
    even = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(p_r, q_s, strict=True)]
    odd = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(p_s, q_r, strict=True)]
    return Multivectors(
        torch.cat(even[0], dim=-1),
        torch.stack([torch.cat(pair, dim=-1) for pair in odd]),
        torch.stack([torch.cat(pair, dim=-1) for pair in even[1:]]),
    )


Complex = tuple[Tensor, Tensor]


def _pauli(x: Multivectors) -> tuple[list[Complex], list[Complex]]:
    """Even and odd Pauli elements, each four pairs of real and imaginary part."""
    c = x.channels

    def halves(rows: Tensor) -> Complex:
        return rows[..., :c], rows[..., c:]

    even = [halves(x.scalars), *(halves(b) for b in x.bivectors.unbind(0))]
    return even, [halves(v) for v in x.vectors.unbind(0)]


def _conjugate(a: list[Complex]) -> list[Complex]:
    (re, im), *rest = a
    return [(re, -im), *((-r, i) for r, i in rest)]


def _times(a: Complex, b: Complex) -> Complex:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _pauli_product(a: list[Complex], b: list[Complex]) -> list[Complex]:
    """(a_0 + a.sigma)(b_0 + b.sigma) = a_0 b_0 + a.b + (a_0 b + b_0 a + i a x b).sigma."""
    terms = [_times(x, y) for x, y in zip(a, b, strict=True)]
    real, imaginary = terms[0]
    for term in terms[1:]:
        real, imaginary = real + term[0], imaginary + term[1]
    result = [(real, imaginary)]
    for k, (m, n) in enumerate(((2, 3), (3, 1), (1, 2)), start=1):
        one, two = _times(a[0], b[k]), _times(a[k], b[0])
        cross, back = _times(a[m], b[n]), _times(a[n], b[m])
        re = one[0] + two[0] - (cross[1] - back[1])
        im = one[1] + two[1] + (cross[0] - back[0])
        result.append((re, im))
    return result
