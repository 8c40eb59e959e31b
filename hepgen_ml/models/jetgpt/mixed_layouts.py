"""Events of many layouts of coordinates in one pass through an autoregressive network.

Samples with decays have hundreds of layouts, few events of each in a batch, and a pass of their
own for each would cost as many times what one costs. Here events of all layouts go through the
transformer together, padded at the end: the mask is causal. The embedding of a coordinate and the
parameters of its density are computed for all of its tokens together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.models.conditions import coordinate_features
from hepgen_ml.models.jetgpt.densities import Density1D
from hepgen_ml.networks.transformer import CausalTransformer


class MixedLayouts(nn.Module):
    """Assignment of the tokens of each layout to coordinates.

    Parameters
    ----------
    order : sequence of sequences of int
        Column of each token, layout by layout.
    numbers : sequence of sequences of int
        Number of its coordinate.
    densities : sequence of Density1D
        Of the coordinates, by number.
    """

    def __init__(
        self,
        order: Sequence[Sequence[int]],
        numbers: Sequence[Sequence[int]],
        densities: Sequence[Density1D],
    ) -> None:
        super().__init__()
        longest = max(map(len, numbers))
        for name, rows in (("columns", order), ("numbers", numbers)):
            table = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
            self.register_buffer(name, table, persistent=False)
        self.columns: Tensor
        self.numbers: Tensor
        self.lengths: Tensor
        self.register_buffer("lengths", torch.tensor(list(map(len, numbers))), persistent=False)
        # Coordinates that share a density come one after another.
        self.distinct = list(dict.fromkeys(densities))
        kinds = torch.tensor([self.distinct.index(d) for d in densities])
        self.kinds: Tensor
        self.register_buffer("kinds", kinds, persistent=False)

    def sorted(self, numbers: Tensor) -> tuple[Tensor, list[tuple[int, int]]]:
        """Order of tokens (k,) by density and coordinate, and how many each coordinate has."""
        key = self.kinds[numbers] * len(self.kinds) + numbers
        order = torch.argsort(key, stable=True)
        found, counts = torch.unique_consecutive(numbers[order], return_counts=True)
        return order, list(zip(found.tolist(), counts.tolist(), strict=True))

    def by_density(
        self, groups: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[Density1D, slice]]:
        """Densities with the part of the sorted tokens that has them."""
        kinds, start = self.kinds.tolist(), 0
        totals: dict[int, int] = {}
        for number, count in groups:
            totals[kinds[number]] = totals.get(kinds[number], 0) + count
        for kind, count in totals.items():
            yield self.distinct[kind], slice(start, start + count)
            start += count

    def log_prob(
        self,
        z: Tensor,
        condition: Tensor,
        layout: Tensor,
        transformer: CausalTransformer,
        weights: Weights,
        bfloat16: bool = False,
    ) -> Tensor:
        """Log density (m,) of standardised coordinates (m, D) of these layouts (m,)."""
        length = int(self.lengths[layout].max())
        numbers, lengths = self.numbers[layout, :length], self.lengths[layout]
        ordered = z.gather(1, self.columns[layout, :length])
        there = torch.arange(length, device=z.device) < lengths.unsqueeze(-1)
        place = torch.nonzero(there.flatten()).squeeze(-1)
        order, groups = self.sorted(numbers.flatten()[place])
        place = place[order]
        values = ordered.flatten()[place]
        past = torch.cat(
            [x @ weights.value(n) for (n, _), x in _split(coordinate_features(values), groups)]
        )
        tokens = z.new_zeros(len(z) * length, past.shape[1]).index_copy(0, place, past)
        tokens = F.pad(tokens.view(len(z), length, -1)[:, :-1], (0, 0, 1, 0))
        tokens = tokens + weights.target[numbers] + condition.unsqueeze(1)
        with torch.autocast(z.device.type, torch.bfloat16, enabled=bfloat16):
            hidden = transformer(tokens)
        parameters = self._output(hidden.float().flatten(0, 1)[place], groups, weights)
        each = [
            density.log_prob(values[part], parameters[part, : density.n_parameters])
            for density, part in self.by_density(groups)
        ]
        event = torch.div(place, length, rounding_mode="floor")
        return z.new_zeros(len(z)).index_add(0, event, torch.cat(each))

    def sample(
        self,
        condition: Tensor,
        layout: Tensor,
        transformer: CausalTransformer,
        weights: Weights,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Standardised coordinates (m, D) of these layouts (m,)."""
        length = int(self.lengths[layout].max())
        z = condition.new_zeros(len(layout), self.columns.shape[1])
        cache = transformer.start(len(layout), length)
        entered = torch.zeros_like(condition)
        for t in range(length):
            numbers = self.numbers[layout, t]
            token = condition + weights.target[numbers] + entered
            hidden = transformer.step(
                token.t().clone(memory_format=torch.contiguous_format), cache
            ).t()
            rows = torch.nonzero(self.lengths[layout] > t).squeeze(-1)
            order, groups = self.sorted(numbers[rows])
            rows = rows[order]
            parameters = self._output(hidden[rows], groups, weights)
            drawn = torch.cat([
                density.sample(parameters[part, : density.n_parameters], generator)
                for density, part in self.by_density(groups)
            ])  # fmt: skip
            z[rows, self.columns[layout[rows], t]] = drawn
            features = coordinate_features(drawn)
            entered = torch.zeros_like(condition)
            entered[rows] = torch.cat(
                [x @ weights.value(n) for (n, _), x in _split(features, groups)]
            )
        return z

    @staticmethod
    def _output(
        hidden: Tensor, groups: Sequence[tuple[int, int]], weights: Weights
    ) -> Tensor:
        """Parameters (k, P) of the densities of sorted tokens, from their hidden states."""
        return torch.cat([
            torch.addmm(weights.bias[n], x, weights.head[n])
            for (n, _), x in _split(hidden, groups)
        ])  # fmt: skip


_PADDING = 2500
"""Tokens of padding that are cheaper than another pass through the network."""


def padded(
    present: Sequence[tuple[int, Tensor]], order: list[list[int]], numbers: list[list[int]]
) -> list[tuple[int, Tensor, Tensor | None]]:
    """Channels, rows of events, and their lengths where shorter channels are among them.

    A channel whose coordinates begin another one (jets come last, say) can be padded to it:
    the mask is causal. A few padded events cost less than a separate pass.

    Parameters
    ----------
    present : sequence of (int, tensor)
        Channels with the rows of their events.
    order, numbers : list of list of int
        Columns and numbers of the coordinates of each channel, in the order of the factors.
    """
    found: list[tuple[int, Tensor, Tensor | None]] = []
    present = sorted(present, key=lambda c: len(order[c[0]]))
    waiting: list[tuple[int, Tensor]] = []
    for i, (channel, rows) in enumerate(present):
        waiting.append((channel, rows))
        if i + 1 < len(present):
            after, n = present[i + 1][0], len(order[channel])
            padding = sum(len(r) * (len(order[after]) - len(order[c])) for c, r in waiting)
            begins = order[after][:n] == order[channel] and numbers[after][:n] == numbers[channel]
            if begins and padding <= _PADDING:
                continue
        lengths = None
        if len(waiting) > 1:
            lengths = torch.cat([torch.full_like(r, len(order[c])) for c, r in waiting])
        found.append((channel, torch.cat([r for _, r in waiting]), lengths))
        waiting = []
    return found


class Weights:
    """Weights of an autoregressive density that belong to its coordinates, by their numbers.

    Parameters
    ----------
    value : (N, F, width) tensor
        How coordinates enter.
    keep : (N, F) tensor
        Which of their features do.
    target : (N, width) tensor
        Embeddings of the coordinates to be predicted.
    head, bias : (N, width, P), (N, P) tensors
        Output.
    """

    def __init__(
        self, value: Tensor, keep: Tensor, target: Tensor, head: Tensor, bias: Tensor
    ) -> None:
        self._value = (value * keep.unsqueeze(-1)).unbind(0)
        self.target = target
        self.head, self.bias = head.unbind(0), bias.unbind(0)

    def value(self, number: int) -> Tensor:
        """Matrix (F, width) of one coordinate."""
        return self._value[number]


def _split(
    x: Tensor, groups: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Groups with their part of sorted tokens."""
    return zip(groups, x.split([count for _, count in groups]), strict=True)
