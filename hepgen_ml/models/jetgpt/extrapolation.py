r"""Beyond the largest multiplicity of a sample (arXiv:2412.12074, section 5.2 of the thesis).

In a sample with at most n_max jets the probability of one more jet after n_max is zero, and a
likelihood fit learns this zero. There are three alternatives:

- *truncated*: the last Bernoulli factor is left out of the loss (equation 5.22);
- *override*: its label is replaced by a probability computed from the transverse momenta
  (equations 5.26 to 5.31), which do not balance if a jet is missing;
- *bootstrap*: generated events of n_max + 1 jets are added to the training (5.2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hepgen_ml.errors import UsageError
from hepgen_ml.events.weights import effective_size
from hepgen_ml.models.jetgpt.growth import GrowingDensity
from hepgen_ml.models.jetgpt.settings import SplittingConfig
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import labelled, values_of, which
from hepgen_ml.process.multiplicity import Family
from hepgen_ml.process.process import Process

_LEAST = 30
"""Minimum number of events for the estimate of a width."""

_REFRESH = 50
"""Number of steps between additions of bootstrapped events."""

_GENERATED = 2048
"""Number of events generated each time."""

_BUFFER = 50_000

_SHOWN = 0.02
"""Minimum fraction of bootstrapped events in a batch."""


class Extrapolation(nn.Module):
    """Treatment of events with the largest number of jets in the loss.

    Parameters
    ----------
    process : Process
    families : sequence of Family
    config : SplittingConfig
    """

    def __init__(
        self, process: Process, families: Sequence[Family], config: SplittingConfig
    ) -> None:
        super().__init__()
        self.process, self.families, self.config = process, families, config
        if config.extrapolation == "bootstrap" and all(
            f.top == f.fewest + len(f.subprocess) - 1 for f in families
        ):
            raise UsageError(
                "bootstrapping needs more jets than the sample has",
                remedy="set splitting.max_jets to its largest number of jets plus one or more",
            )
        # sigma(k; k) = a k + b and 1 / m_k = c k + d of equation 5.27, in GeV.
        self.widths: Tensor
        self.register_buffer("widths", torch.zeros(4, dtype=torch.float64))
        jets = {i: f.fewest + e for f in families for e, i in enumerate(f.subprocess)}
        self.jets_of = torch.tensor([jets.get(i, 0) for i in range(len(process.subprocesses))])
        self.ratio = _staircase(process, families)
        self._steps = 0
        self._made: dict[int, tuple[Tensor, Tensor]] = {}

    def fit(self, encoded: Encoded) -> None:
        """Take the widths of the transverse momenta from a sample."""
        if self.config.extrapolation == "override":
            self.widths.copy_(fit_widths(*self._momentum_widths(encoded)))

    def _momentum_widths(self, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
        """Widths sigma(n; k) in GeV of events of n jets of which k are counted, and events."""
        most = int(self.jets_of[encoded.subprocess].max())
        squares = np.zeros((most + 1, most + 1))
        weights, events = np.zeros(most + 1), np.zeros(most + 1)
        for number in torch.unique(encoded.subprocess).tolist():
            channel = self.process.channels[self.process.subprocesses[number].chart]
            x, weight = (t[encoded.subprocess == number] for t in (encoded.x, encoded.weight))
            chart = channel.chart.given(encoded.conditions[encoded.subprocess == number])
            p, _ = chart.inverse(channel.join(x, torch.zeros(len(x), dtype=x.dtype)))
            n = int(self.jets_of[number])
            # Without any jet, with the first, and so on.
            partial = F.pad(p[..., :2].cumsum(1), (0, 0, 1, 0))[:, p.shape[1] - n :]
            mean_square = torch.einsum("m,mkd->k", weight, partial**2) / 2
            squares[n, : n + 1] += mean_square.numpy()
            weights[n] += float(weight.sum())
            events[n] += effective_size(weight)
        squares /= np.where(weights > 0, weights, 1.0)[:, None]
        # Weights of either sign may cancel where there are few events.
        possible = (weights > 0) & (squares >= 0).all(1)
        return np.sqrt(squares.clip(0.0)), np.where(possible, events, 0.0)

    def stop_probability(self, pt: Tensor, n: Tensor) -> Tensor:
        """Probability (m,) that events with n jets (m,) and total transverse momentum pt end.

        Equation 5.26 with Gaussians of the fitted widths and staircase scaling as prior.
        """
        a, b, c, d = self.widths.to(pt)
        k = n.to(pt)
        step = 1 / (c * k + d).clamp_min(1e-3)
        extra = torch.arange(self._reach, device=pt.device, dtype=pt.dtype)
        sigma = (a * k + b).unsqueeze(-1) + extra * step.unsqueeze(-1)
        log_p = -0.5 * (pt.unsqueeze(-1) / sigma) ** 2 - 2 * torch.log(sigma)
        return (log_p + extra * math.log(self.ratio)).softmax(-1)[:, 0]

    @property
    def _reach(self) -> int:
        """Numbers of jets that a target counts, from those that the event has."""
        return 1 + max(2, *(len(f.subprocess) - 1 - (f.top - f.fewest) for f in self.families))

    def change(
        self,
        goes_on: Tensor,
        weight: Tensor,
        last: Tensor,
        z: Tensor,
        subprocess: Tensor,
        place: Tensor,
        restore: Callable[[Tensor, Tensor], Tensor],
    ) -> None:
        """Change labels (m, k) and weights (m, k) of splittings in place.

        Parameters
        ----------
        goes_on, weight : (m, k) tensors
        last : (m,) bool tensor
            Events with the largest number of jets of the sample.
        z, subprocess
            Of the events.
        place : (m,) int64 tensor
            Column of the stop of each event.
        restore : callable
            Coordinates from z and subprocess.
        """
        rows = torch.nonzero(last).squeeze(-1)
        way = self.config.extrapolation
        # Held-out events contain no bootstrapped ones: validating the last stop with them would
        # prefer a network that never continues.
        if way == "bootstrap" and not self.training:
            way = "truncated"
        if len(rows) == 0 or way not in ("truncated", "override"):
            return
        if way == "truncated":
            weight[rows, place[rows]] = 0.0
            return
        weight[rows, place[rows]] = self.config.override_weight
        labels = subprocess[rows].cpu()
        x, sub, given = restore(z[rows], subprocess[rows]).cpu(), which(labels), values_of(labels)
        pt = torch.zeros(len(rows), dtype=torch.float64)
        for number in torch.unique(sub).tolist():
            channel = self.process.channels[self.process.subprocesses[number].chart]
            some = sub == number
            full = channel.join(x[some], torch.zeros(int(some.sum()), dtype=x.dtype))
            total = channel.chart.given(None if given is None else given[some]).inverse(full)[1]
            pt[some] = torch.hypot(total[:, 0], total[:, 1])
        stop = self.stop_probability(pt.to(self.widths.device), self.jets_of[sub].to(self.widths))
        goes_on[rows, place[rows]] = (1 - stop).to(goes_on)

    def bootstrapped(
        self, model: GrowingDensity, z: Tensor, subprocess: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A batch with generated events of one jet more than the sample has, after a warm-up."""
        if self.config.extrapolation != "bootstrap" or model.progress < self.config.warm_up:
            return z, subprocess, weight
        numbers, extras = list(self._growing), []
        if self._steps == 0:
            for number in numbers:
                self._refill(model, number)
        elif self._steps % _REFRESH == 0:
            self._refill(model, numbers[self._steps // _REFRESH % len(numbers)])
        self._steps += 1
        # Enough of them for a stable gradient; their weight compensates for it.
        share = torch.tensor(list(self._growing.values()), dtype=torch.float64)
        shown = max(1, round(max(float(share.sum()), _SHOWN) * len(z)))
        counts = torch.bincount(
            torch.multinomial(share, shown, replacement=True), minlength=len(numbers)
        )
        for number, count in zip(numbers, counts.tolist(), strict=True):
            known = self._made[number]
            some = torch.randint(len(known[0]), (count,))
            extra = torch.full((count,), float(share.sum()) * len(weight) / shown).to(weight)
            z, subprocess = torch.cat([z, known[0][some]]), torch.cat([subprocess, known[1][some]])
            extras.append(extra)
        return z, subprocess, torch.cat([weight, *extras])

    @cached_property
    def _growing(self) -> dict[int, float]:
        """Families to be given one jet more than the sample has, with their expected fractions."""
        return {
            number: self.ratio * self.process.subprocesses[f.subprocess[f.top - f.fewest]].frequency
            for number, f in enumerate(self.families)
            if f.top - f.fewest + 1 < len(f.subprocess)
        }

    @torch.no_grad()
    def _refill(self, model: GrowingDensity, number: int) -> None:
        """Generate events of a family with one jet more than the sample has.

        Almost no events have so many jets. Therefore events are forced to continue, and resampled
        in proportion to the probability that they would have continued.
        """
        model.eval()
        family = self.families[number]
        more = family.subprocess[family.top - family.fewest + 1]
        number_of = torch.full((_GENERATED,), more, device=model.mean.device)
        known = model.conditions
        subprocess = labelled(number_of, None if known is None else known.drawn(_GENERATED))
        z = model.sample_z(subprocess)
        length = int(model.n_objects[more])
        momenta = model.momenta(z, number, length, values_of(subprocess))
        shown = model.shown(subprocess)
        hidden = model.histories(z, momenta, number, length, shown)
        odds = model.log_odds(hidden, number)
        log_p = F.logsigmoid(odds[:, :-1]).sum(-1) + F.logsigmoid(-odds[:, -1])
        weight = log_p.double().softmax(0)
        effective = max(1, int(1 / (weight**2).sum()))
        some = torch.multinomial(weight, effective, replacement=True)
        model.train()
        fresh = z[some], subprocess[some]
        if number in self._made:
            before = self._made[number]
            fresh = (
                torch.cat([before[0], fresh[0]])[-_BUFFER:],
                torch.cat([before[1], fresh[1]])[-_BUFFER:],
            )
        self._made[number] = fresh


def fit_widths(sigma: np.ndarray, events: np.ndarray) -> Tensor:
    """Coefficients a, b, c, d of equation 5.27.

    Parameters
    ----------
    sigma : (N + 1, N + 1) array
        Width in GeV for events of n jets (rows) of which the first k count (columns).
    events : (N + 1,) array
        Events of n jets.
    """
    enough = [n for n in range(1, len(events)) if events[n] >= _LEAST]
    if len(enough) < 2:
        raise UsageError(
            "too few jets to learn how transverse momenta balance",
            remedy="use splitting.extrapolation=truncated",
        )
    a, b = np.polyfit(enough, [sigma[k, k] for k in enough], 1, w=np.sqrt(events[enough]))
    inverse, weights, numbers = [], [], []
    for k in enough[:-1]:
        later = [n for n in enough if n > k]
        w = events[later]
        steps = np.array([n - k for n in later])
        rise = np.array([sigma[n, k] - sigma[k, k] for n in later])
        slope = (w * steps * rise).sum() / (w * steps**2).sum()
        if slope > 0:
            numbers.append(k)
            inverse.append(1 / slope)
            weights.append(np.sqrt(w.sum()))
    if len(inverse) > 1:
        c, d = np.polyfit(numbers, inverse, 1, w=weights)
    else:
        c, d = 0.0, inverse[0] if inverse else 1 / max(a, 1e-3)
    return torch.tensor([a, b, c, d], dtype=torch.float64)


def _staircase(process: Process, families: Sequence[Family]) -> float:
    """Mean ratio of the rates of n + 1 and n jets, n of one or more."""
    above = below = 0.0
    for f in families:
        rates = [process.subprocesses[i].frequency for i in f.subprocess[: f.top - f.fewest + 1]]
        rates = rates[max(1 - f.fewest, 0) :]
        above += sum(rates[1:])
        below += sum(rates[:-1])
    return above / below if above > 0 and below > 0 else 0.2
