"""Rates of subprocesses given conditions of the user."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.labels import labelled, values_of, which
from hepgen_ml.process.process import Process

_MOST = 20_000
"""Minimum number of events to learn rates as functions of continuous conditions."""

_PRIOR_STD = 2.0
"""Regularisation of the coefficients, which few events of a rare subprocess determine badly."""

_STEPS = 100
_ELEMENTS = 20_000_000
"""Rates, of events times subprocesses, that are computed together."""


class Rates(nn.Module):
    r"""Probability of each subprocess, or family of them, as a smooth function of conditions.

    .. math:: p(s | c) \propto \exp(a_s + b_s \cdot f(c))

    with the scaled conditions and their squares for f.

    Parameters
    ----------
    conditions : Conditions
    n : int
        Number of subprocesses.
    """

    def __init__(self, conditions: Conditions, n: int) -> None:
        super().__init__()
        self.conditions = conditions
        self.offset: Tensor
        self.slope: Tensor
        self.register_buffer("offset", torch.zeros(n, dtype=torch.float64))
        shape = (self.conditions.n_features, n)
        self.register_buffer("slope", torch.zeros(shape, dtype=torch.float64))

    def fit(self, labels: Tensor, weight: Tensor, frequency: Sequence[float]) -> None:
        """Learn the rates from events.

        Parameters
        ----------
        labels : (m, 1 + K) tensor
        weight : (m,) tensor
        frequency : sequence of S float
            Rates of all conditions together, which the mean prediction has in the end.
        """
        values, subprocess = values_of(labels), which(labels)
        assert values is not None
        points, row = torch.unique(values, dim=0, return_inverse=True)
        n = len(self.offset)
        most = min(_MOST, self._batch)
        if len(points) > most:
            chosen = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))[:most]
            points, row = values[chosen], torch.arange(len(chosen))
            subprocess, weight = subprocess[chosen], weight[chosen]
        counts = torch.zeros(len(points) * n, dtype=torch.float64)
        counts = counts.index_add(0, row * n + subprocess, weight.double()).view(-1, n).clamp_min(0)
        wanted = torch.tensor(list(frequency), dtype=torch.float64).clamp_min(1e-12)
        offset = torch.log(wanted)
        features = self.conditions.features(points).double()
        slope = self._fitted(features, counts, offset) if n > 1 else self.slope
        at_point = counts.sum(1) / counts.sum()
        for _ in range(20):  # mean prediction as observed
            mean = at_point @ (offset + features @ slope).softmax(-1)
            offset = offset + torch.log(wanted / mean.clamp_min(1e-300))
        self.offset.copy_(offset)
        self.slope.copy_(slope)

    def _fitted(self, features: Tensor, counts: Tensor, start: Tensor) -> Tensor:
        total = counts.sum().clamp_min(1e-300)
        with torch.enable_grad():
            offset = start.clone().requires_grad_()
            slope = torch.zeros_like(self.slope).requires_grad_()
            optimizer = torch.optim.LBFGS(
                [offset, slope], max_iter=_STEPS, line_search_fn="strong_wolfe"
            )

            def loss() -> Tensor:
                optimizer.zero_grad()
                log_p = (offset + features @ slope).log_softmax(-1)
                value = -(counts * log_p).sum() / total
                value = value + 0.5 * (slope**2).sum() / _PRIOR_STD**2 / total
                value.backward()
                return value

            optimizer.step(loss)
        return slope.detach()

    def log_prob(self, labels: Tensor) -> Tensor:
        """Logarithms (m,) float64 of the rates of these labels (m, 1 + K)."""
        subprocess = which(labels)
        parts = [
            self._log_rates(part).gather(1, s.unsqueeze(-1)).squeeze(-1)
            for part, s in zip(
                labels.split(self._batch), subprocess.split(self._batch), strict=True
            )
        ]
        return torch.cat(parts) if parts else self.offset[:0]

    @property
    def _batch(self) -> int:
        """Events whose rates are computed together."""
        return max(1000, _ELEMENTS // len(self.offset))

    def _log_rates(self, labels: Tensor) -> Tensor:
        values = values_of(labels)
        assert values is not None
        features = self.conditions.features(values.to(self.slope.device)).double()
        return (self.offset + features @ self.slope).log_softmax(-1)

    def draw(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Labels (m, 1 + K) with subprocesses drawn given the conditions (m, K)."""
        none = torch.zeros(len(values), dtype=torch.int64, device=self.offset.device)
        labels = labelled(none, values)
        drawn = [
            torch.multinomial(self._log_rates(part).exp(), 1, generator=generator).squeeze(-1)
            for part in labels.split(self._batch)
        ]
        return labelled(torch.cat(drawn), values)


def rates_of(process: Process, learns_rates: bool) -> Rates | None:
    """Rates of a process with conditions, unless its density learns them."""
    if process.conditions is None or learns_rates:
        return None
    return Rates(process.conditions, len(process.subprocesses))


def drawn_labels(
    process: Process, rates: Rates, n: int, generator: torch.Generator, channel: int | None = None
) -> Tensor:
    """Labels (n, 1 + K) that occur as in the sample, also those of one channel alone."""
    assert process.conditions is not None
    values = process.conditions.drawn(n, generator).to(rates.offset.device)
    if channel is None:
        return rates.draw(values, generator)
    mine = (process.channel_of == channel).to(rates.offset.device)
    log_rates = rates._log_rates(labelled(torch.zeros(n, device=values.device).long(), values))
    log_rates = log_rates.masked_fill(~mine, -torch.inf)
    # conditions occur as they do in this channel
    row = torch.multinomial(log_rates.logsumexp(-1).exp(), n, replacement=True, generator=generator)
    drawn = torch.multinomial(log_rates[row].softmax(-1), 1, generator=generator).squeeze(-1)
    return labelled(drawn, values[row])
