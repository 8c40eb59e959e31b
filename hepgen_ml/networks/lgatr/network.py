"""L-GATr: the Lorentz-equivariant geometric-algebra transformer (arXiv:2405.14806, 2411.00446)."""

from __future__ import annotations

from torch import Tensor, nn

from hepgen_ml.networks.lgatr.algebra import Multivectors, from_components, to_components
from hepgen_ml.networks.lgatr.layers import Block, EquiLinear, Symmetry


class LGATr(nn.Module):
    """Equivariant transformer over tokens of multivectors and scalars.

    Parameters
    ----------
    blocks : int
    in_channels, out_channels, channels : int
        Multivector channels of input, output and hidden states.
    in_scalars, out_scalars, scalars : int
        Plain scalar channels, likewise.
    heads : int
    attention_ratio, mlp_ratio : int
        Hidden channels over channels.
    symmetry : {"lorentz", "lorentz_parity", "rotation"}
        See `hepgen_ml.networks.lgatr.layers`.
    """

    compiles = True

    def __init__(
        self,
        *,
        blocks: int = 6,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: int = 16,
        in_scalars: int = 0,
        out_scalars: int = 0,
        scalars: int = 32,
        heads: int = 8,
        attention_ratio: int = 2,
        mlp_ratio: int = 2,
        symmetry: Symmetry = "lorentz",
    ) -> None:
        super().__init__()
        self.symmetry = symmetry
        self.first = EquiLinear(in_channels, channels, in_scalars, scalars, symmetry=symmetry)
        self.blocks = nn.ModuleList(
            Block(channels, scalars, heads, attention_ratio, mlp_ratio, symmetry=symmetry)
            for _ in range(blocks)
        )
        self.last = EquiLinear(channels, out_channels, scalars, out_scalars, symmetry=symmetry)

    def forward(self, x: Multivectors, mask: Tensor | None = None) -> Multivectors:
        """Output channels of tokens.

        Parameters
        ----------
        x : Multivectors
            Of shape (batch, tokens), see `hepgen_ml.networks.lgatr.algebra`.
        mask : (batch, tokens) bool tensor, optional
            False where a token is padding.
        """
        hidden = self.first(x)
        # under autocast matrix products come in half precision, their sum stays as it was given
        x = Multivectors(*(t.to(x.scalars.dtype) for t in hidden))
        for block in self.blocks:
            x = block(x, mask)
        return self.last(x)

    def components(
        self, x: Tensor, scalars: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The same in usual components.

        Parameters
        ----------
        x : (batch, tokens, in_channels, 16) tensor
        scalars : (batch, tokens, in_scalars) tensor
        mask : (batch, tokens) bool tensor, optional

        Returns
        -------
        (batch, tokens, out_channels, 16) tensor, (batch, tokens, out_scalars) tensor
        """
        return to_components(self(from_components(x, scalars), mask))
