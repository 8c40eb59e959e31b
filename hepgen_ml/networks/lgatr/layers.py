r"""Equivariant layers on `Multivectors` (thesis section 6.1, arXiv:2405.14806 section 2).

Three symmetries are offered. ``lorentz`` is the connected group SO+(1,3): a linear map may
mix scalars with pseudoscalars, vectors with axial vectors, and multiply bivectors with
complex numbers. ``lorentz_parity`` is O(1,3), which forbids all of that but multiples.
``rotation`` is SO(3) on the even subalgebra, the algebra of space, in which electric parts
are the vectors and magnetic parts the bivectors; `Multivectors.vectors` is then empty.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.networks.lgatr import fused
from hepgen_ml.networks.lgatr.algebra import METRIC, Multivectors, geometric_product

Symmetry = Literal["lorentz", "lorentz_parity", "rotation"]

EPSILON = 0.01
"""Floor of the mean square in norms: some combinations of components have none."""


class EquiLinear(nn.Module):
    """Most general equivariant linear map (2405.14806, equation 8).

    Plain scalars take part in the map of scalars and pseudoscalars: to the symmetry they
    are the same.

    Parameters
    ----------
    in_channels, out_channels : int
        Multivector channels.
    in_scalars, out_scalars : int
        Plain scalar channels.
    symmetry : str
    bias : bool
        Of scalars (and pseudoscalars, unless parity forbids it).
    scale : float
        Factor on the initial weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        in_scalars: int = 0,
        out_scalars: int = 0,
        *,
        symmetry: Symmetry = "lorentz",
        bias: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.symmetry = symmetry
        n_in, n_out = 2 * in_channels, 2 * out_channels
        self.scalars = nn.Linear(n_in + in_scalars, n_out + out_scalars, bias=bias)
        self.vectors = nn.Linear(n_in, n_out, bias=False) if symmetry != "rotation" else None
        parts = 4 if symmetry == "rotation" else 2
        self.bivectors: Tensor = nn.Parameter(torch.empty(parts, out_channels, in_channels))
        self.keep: Tensor | None
        self.keep_scalars: Tensor | None
        self.register_buffer("keep", None, persistent=False)
        self.register_buffer("keep_scalars", None, persistent=False)
        if symmetry == "lorentz_parity":
            odd_in = (torch.arange(n_in) >= in_channels).float()
            odd_out = (torch.arange(n_out) >= out_channels).float()
            self.keep = (odd_out.unsqueeze(1) == odd_in).float()
            odd_in, odd_out = F.pad(odd_in, (0, in_scalars)), F.pad(odd_out, (0, out_scalars))
            self.keep_scalars = torch.cat(
                [(odd_out.unsqueeze(1) == odd_in).float(), 1 - odd_out.unsqueeze(1)], dim=1
            )
        self._initialize(in_channels, out_channels, in_scalars, scale)

    def _initialize(
        self, in_channels: int, out_channels: int, in_scalars: int, scale: float
    ) -> None:
        """Keep the variance: both columns of a pair feed a component, as do plain scalars."""
        size = scale / math.sqrt(max(in_channels, 1))
        nn.init.uniform_(self.bivectors, -size, size)
        if self.vectors is not None:
            nn.init.uniform_(self.vectors.weight, -size, size)
        weight, bias = self.scalars.weight, self.scalars.bias
        share = 1 / math.sqrt(2) if in_scalars else 1.0
        with torch.no_grad():
            weight[:, : 2 * in_channels].uniform_(-size * share, size * share)
            if in_scalars:
                size = share * scale / math.sqrt(in_scalars)
                weight[:, 2 * in_channels :].uniform_(-size, size)
            if bias is not None:
                size = 1 / math.sqrt(in_channels + in_scalars)
                bias.uniform_(-size, size)

    def weights(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Matrices of scalars, their bias, and matrices of vectors and bivectors."""
        scalars: Tensor = self.scalars.weight
        bias: Tensor | None = self.scalars.bias
        vectors: Tensor | None = None if self.vectors is None else self.vectors.weight
        if self.symmetry == "rotation":
            a, b, c, d = self.bivectors
            bivectors = torch.cat([torch.cat([a, b], 1), torch.cat([c, d], 1)])
        else:
            a, b = self.bivectors
            bivectors = torch.cat([torch.cat([a, -b], 1), torch.cat([b, a], 1)])
        if self.keep is not None and self.keep_scalars is not None and vectors is not None:
            scalars = scalars * self.keep_scalars[:, :-1]
            bias = None if bias is None else bias * self.keep_scalars[:, -1]
            vectors, bivectors = vectors * self.keep, bivectors * self.keep
        return scalars, bias, vectors, bivectors

    def forward(self, x: Multivectors) -> Multivectors:
        """Map of multivectors with `in_channels` and `in_scalars` channels."""
        scalars, bias, vectors, bivectors = self.weights()
        return Multivectors(
            F.linear(x.scalars, scalars, bias),
            x.vectors[..., :0] if vectors is None else F.linear(x.vectors, vectors),
            F.linear(x.bivectors, bivectors),
        )


def inverse_size(x: Multivectors, symmetry: Symmetry, parts: int = 1, heads: int = 1) -> Tensor:
    """One over the root mean square of multivectors, (..., parts * heads).

    The square is the sum over grades of |<x, x>_grade| (thesis equation 6.17), the mean runs
    over the channels, which are ordered as (part, head, channel).
    """
    c, dtype = x.channels, x.scalars.dtype
    if dtype.itemsize < 4:  # differences of squares
        x = Multivectors(*(t.float() for t in x))
    square = x.scalars[..., : 2 * c].square()
    b = x.bivectors.square()
    if symmetry == "rotation":
        square = square + b.sum(0)
    else:
        v = x.vectors.square()
        square = square + (v[0] - v[1] - v[2] - v[3]).abs()
        electric, magnetic = b.sum(0).chunk(2, dim=-1)
        bivector = (electric - magnetic).abs()
        square = square[..., :c] + square[..., c:] + bivector
    square = square.unflatten(-1, (-1, parts, heads, c // (parts * heads))).mean(-1).sum(-3)
    return torch.rsqrt(square.clamp_min(EPSILON)).flatten(-2).to(dtype)


class EquiNorm(nn.Module):
    """Norm over channels; plain scalars have a layer norm of their own.

    Parameters
    ----------
    channels, scalars : int
    symmetry : str
    gain : bool
        Learn a factor for each grade of each channel, and each plain scalar.
    """

    def __init__(
        self, channels: int, scalars: int, *, symmetry: Symmetry = "lorentz", gain: bool = True
    ) -> None:
        super().__init__()
        self.symmetry, self.channels, self.n_scalars = symmetry, channels, scalars
        self.gain = nn.Parameter(torch.ones(5 * channels + scalars)) if gain else None

    def forward(self, x: Multivectors) -> Multivectors:
        """Normalised multivectors of the same shape."""
        if self.gain is not None and self.symmetry != "rotation" and fused.applies(x):
            return fused.norm(x, self.gain)
        c = self.channels
        r = inverse_size(x, self.symmetry)
        scalars, vectors, bivectors = x.scalars[..., : 2 * c] * r, x.vectors * r, x.bivectors * r
        plain = F.layer_norm(x.scalars[..., 2 * c :], (self.n_scalars,))
        if self.gain is not None:
            s, v, b, plain_gain = self.gain.split((2 * c, 2 * c, c, self.n_scalars))
            scalars, plain = scalars * s, plain * plain_gain
            vectors = vectors * v[: vectors.shape[-1]]
            bivectors = bivectors * torch.cat([b, b])
        return Multivectors(torch.cat([scalars, plain], dim=-1), vectors, bivectors)


class EquiAttention(nn.Module):
    """Multi-head attention with the inner product of the algebra (thesis equation 6.14).

    Parameters
    ----------
    channels, scalars : int
    heads : int
    ratio : int
        Hidden channels over channels.
    symmetry : str
    """

    def __init__(
        self, channels: int, scalars: int, heads: int, ratio: int, *, symmetry: Symmetry = "lorentz"
    ) -> None:
        super().__init__()
        self.heads, self.symmetry = heads, symmetry
        self.size = max(ratio * channels // heads, 1)
        self.scalar_size = max(ratio * scalars // heads, 4) if scalars else 0
        hidden, hidden_scalars = heads * self.size, heads * self.scalar_size
        self.qkv = EquiLinear(
            channels, 3 * hidden, scalars, 3 * hidden_scalars, symmetry=symmetry, bias=False
        )
        self.out = EquiLinear(
            hidden, channels, hidden_scalars, scalars, symmetry=symmetry, scale=0.1
        )
        lorentz = symmetry != "rotation"
        electric = -1.0 if lorentz else 1.0
        signs = [torch.tensor([1.0, electric])]
        if lorentz:
            signs += [torch.tensor([float(m), -float(m)]) for m in METRIC]
        signs += [torch.tensor([electric, 1.0])] * 3
        metric = torch.cat(signs).repeat_interleave(self.size)
        self.metric: Tensor
        self.register_buffer("metric", F.pad(metric, (0, self.scalar_size), value=1.0), False)

    def forward(self, x: Multivectors, mask: Tensor | None = None) -> Multivectors:
        """Attention among tokens.

        Parameters
        ----------
        x : Multivectors
            Of shape (batch, tokens).
        mask : (batch, tokens) bool tensor, optional
            False where a token is padding, which nothing attends to.
        """
        qkv = self.qkv(x)
        if self.symmetry != "rotation" and fused.applies(qkv):
            scale = self.metric / math.sqrt(len(self.metric))
            return self.out(
                fused.attention(qkv, self.heads, self.size, self.scalar_size, scale, mask)
            )
        q, k, v = self._heads(qkv).unbind(0)
        bias = None if mask is None else mask[:, None, None, :]
        if not torch.compiler.is_compiling() and fused.transformed(qkv):
            out = _attend(q * self.metric, k, v, bias)  # torch's lacks forward derivatives
        else:
            out = F.scaled_dot_product_attention(q * self.metric, k, v, attn_mask=bias)
        return self.out(self._join(out))

    def _heads(self, qkv: Multivectors) -> Tensor:
        """Normalised queries, keys and values (3, batch, heads, tokens, features)."""
        h, c = self.heads, self.size
        batch, tokens = qkv.scalars.shape[:2]
        r = inverse_size(qkv, self.symmetry, 3, h).view(batch, tokens, 1, 3, h, 1)
        mv = 6 * h * c
        features = [
            # component, batch, token, half, part, head, channel -> part, batch, head, token, ...
            (p.view(n, batch, tokens, 2, 3, h, c) * r).permute(4, 1, 5, 2, 0, 3, 6).flatten(4)
            for n, p in ((1, qkv.scalars[..., :mv]), (4, qkv.vectors), (3, qkv.bivectors))
            if p.shape[-1]
        ]
        if self.scalar_size:
            plain = qkv.scalars[..., mv:].view(batch, tokens, 3, h, self.scalar_size)
            plain = plain.permute(2, 0, 3, 1, 4)
            features.append(F.layer_norm(plain, (self.scalar_size,)))
        return torch.cat(features, dim=-1)

    def _join(self, out: Tensor) -> Multivectors:
        """Attended values (batch, heads, tokens, features) as multivectors."""
        batch, heads, tokens, _ = out.shape
        c, d = self.size, 2 * self.size
        n_vectors = 0 if self.symmetry == "rotation" else 4

        def part(first: int, components: int) -> Tensor:
            block = out[..., first : first + components * d]
            block = block.view(batch, heads, tokens, components, 2, c)
            return block.permute(3, 0, 2, 4, 1, 5).reshape(components, batch, tokens, heads * d)

        plain = out[..., (4 + n_vectors) * d :].transpose(1, 2).flatten(2)
        scalars = torch.cat([part(0, 1)[0], plain], dim=-1)
        vectors = part(d, 4) if n_vectors else out.new_zeros(4, batch, tokens, 0)
        return Multivectors(scalars, vectors, part((1 + n_vectors) * d, 3))


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention in elementary operations."""
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask, -math.inf)
    return logits.softmax(-1) @ v


class GeometricMLP(nn.Module):
    """Product of two linear maps, gated by its scalar, and a linear map (thesis section 6.1).

    Parameters
    ----------
    channels, scalars : int
    ratio : int
        Hidden channels over channels.
    symmetry : str
    """

    def __init__(
        self, channels: int, scalars: int, ratio: int, *, symmetry: Symmetry = "lorentz"
    ) -> None:
        super().__init__()
        self.symmetry, hidden, hidden_scalars = symmetry, ratio * channels, ratio * scalars
        # Both factors of the product at once; the second starts close to 1.
        self.factors = EquiLinear(channels, 2 * hidden, scalars, symmetry=symmetry)
        with torch.no_grad():
            for weight in self.factors.parameters():
                if weight.ndim > 1:
                    dim = weight.ndim - 2
                    weight.unflatten(dim, (-1, 2, hidden)).select(dim + 1, 1).mul_(0.5)
            bias = self.factors.scalars.bias
            assert bias is not None
            bias[hidden : 2 * hidden] += 1.0
        self.middle = EquiLinear(hidden, hidden, scalars, hidden_scalars, symmetry=symmetry)
        self.norm = EquiNorm(hidden, hidden_scalars, symmetry=symmetry, gain=False)
        self.down = EquiLinear(hidden, channels, hidden_scalars, scalars, symmetry=symmetry)

    def forward(self, x: Multivectors) -> Multivectors:
        """Multivectors of the same shape."""
        factors, first = self.factors(x), 2 * x.channels
        if self.symmetry != "rotation" and fused.applies(x):
            middle = self.middle(fused.product(factors, x.scalars, first))
            return self.down(fused.gate(middle))
        left, right = (self._factor(factors, i) for i in (0, 1))
        product = geometric_product(left, right)
        scalars = torch.cat([product.scalars, x.scalars[..., first:]], dim=-1)
        return self.down(gated(self.norm(self.middle(product._replace(scalars=scalars)))))

    @staticmethod
    def _factor(x: Multivectors, i: int) -> Multivectors:
        """Channels (half, i, channel) of columns (half, factor, channel)."""
        return Multivectors(
            *(t.unflatten(-1, (2, 2, -1))[..., i, :].flatten(-2) if t.shape[-1] else t for t in x)
        )


def gated(x: Multivectors) -> Multivectors:
    """Multivectors times GELU of their scalar; GELU of plain scalars (thesis equation 6.18)."""
    c = x.channels
    gate = F.gelu(x.scalars[..., :c], approximate="tanh")
    both = torch.cat([gate, gate], dim=-1)
    plain = F.gelu(x.scalars[..., 2 * c :], approximate="tanh")
    scalars = torch.cat([x.scalars[..., : 2 * c] * both, plain], dim=-1)
    vectors = x.vectors * both[..., : x.vectors.shape[-1]]
    return Multivectors(scalars, vectors, x.bivectors * both)


class Block(nn.Module):
    """Pre-norm transformer block.

    Parameters
    ----------
    channels, scalars, heads, attention_ratio, mlp_ratio : int
    symmetry : str
    """

    def __init__(
        self,
        channels: int,
        scalars: int,
        heads: int,
        attention_ratio: int,
        mlp_ratio: int,
        *,
        symmetry: Symmetry = "lorentz",
    ) -> None:
        super().__init__()
        self.norm1 = EquiNorm(channels, scalars, symmetry=symmetry)
        self.attention = EquiAttention(channels, scalars, heads, attention_ratio, symmetry=symmetry)
        self.norm2 = EquiNorm(channels, scalars, symmetry=symmetry)
        self.mlp = GeometricMLP(channels, scalars, mlp_ratio, symmetry=symmetry)

    def forward(self, x: Multivectors, mask: Tensor | None = None) -> Multivectors:
        """Multivectors of the same shape."""
        x = x.plus(self.attention(self.norm1(x), mask))
        return x.plus(self.mlp(self.norm2(x)))
