"""Weights as a function of events, for densities that follow a biased sample.

Generators bias samples by functions of the kinematics (a power of a transverse momentum, say) and
give events weights that undo it. A density of the events without their weights keeps the purpose of
the bias, a tail with as many entries as in the sample; this module learns the weights. Per channel,
the logarithm of a weight is a power of a scale where one fits, plus what a network adds where the
scale does not say all. The network's loss is the deviance of a gamma distribution, exp(r) - r - 1
with r the logarithm of weight over prediction: its minimum is the mean weight at given kinematics,
which is what cross sections need, and it counts relative deviations, over any number of decades.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hepgen_ml.models.categorical import TRUNK_WIDTH, Trunk
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.labels import which
from hepgen_ml.process.process import Process
from hepgen_ml.process.scales import formula, formula_names

FORMULAS = (
    "constant", "ht", "sqrt_shat", "geometric_mean_mt", "min_mt", "max_pt", "min_pt", "massless_pt",
)  # fmt: skip
"""Scales of which weights may be a power, by their numbers in stored models."""

_FEWEST = 30
"""Minimum number of events of a channel with its own formula."""

_EXACT, _ALL = 3e-4, 0.99
"""Relative deviation that counts as exact, and the fraction of events that must satisfy it."""

_CHUNK = 50_000


@dataclass
class Biased:
    """Events of a biased sample, for learning their weights.

    Attributes
    ----------
    z : (m, D) tensor
        Standardised coordinates.
    encoded : Encoded
        Its weights are the signs.
    log_weight : (m,) float64 tensor
        Logarithms of the absolute weights.
    """

    z: Tensor
    encoded: Encoded
    log_weight: Tensor

    def __len__(self) -> int:
        return len(self.log_weight)


Regress = Callable[["EventWeights", Biased, Biased], None]
"""Trains the network for the deviance of training and held-out events, whose logarithms of weights
are what formulas leave of them."""


class EventWeights(nn.Module):
    """Absolute weight of an event given its kinematics and subprocess, on average one.

    Parameters
    ----------
    process : Process
    """

    def __init__(self, process: Process) -> None:
        super().__init__()
        n_channels, n_subprocesses = len(process.channels), len(process.subprocesses)
        for name, tensor in {
            "formula": torch.zeros(n_channels, dtype=torch.int64),
            "power": torch.zeros(n_channels, dtype=torch.float64),
            "log_factor": torch.zeros(n_subprocesses, dtype=torch.float64),
            "calibration": torch.zeros(n_subprocesses, dtype=torch.float64),
            "seen": torch.zeros(2, dtype=torch.float64),
            "regressed": torch.zeros((), dtype=torch.float64),
            "largest": torch.ones((), dtype=torch.float64),
        }.items():
            self.register_buffer(name, tensor)
        self.formula: Tensor
        self.power: Tensor
        self.log_factor: Tensor
        self.calibration: Tensor
        self.seen: Tensor
        self.regressed: Tensor
        self.largest: Tensor
        self.trunk = Trunk(process, n_subprocesses)
        self.last = nn.Linear(TRUNK_WIDTH, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def check(self, process: Process) -> None:
        """Raise ValueError for formulas that the events of the process do not have."""
        for c, (number, power) in enumerate(
            zip(self.formula.tolist(), self.power.tolist(), strict=True)
        ):
            if power and number not in [k for k, _ in _formulas_of(process, c)]:
                raise ValueError(f"channel {c} has no scale of number {number}")

    def forward(
        self,
        process: Process,
        final: Tensor,
        incoming: Tensor,
        z: Tensor,
        invariants: Tensor,
        subprocess: Tensor,
    ) -> Tensor:
        """Weights (m,) float64 of momenta (m, n, 4), (m, 2, 4) with coordinates z (m, D)."""
        log_w = self._by_formula(process, final, incoming, subprocess).to(self.log_factor.device)
        subprocess = subprocess.to(self.log_factor.device)
        log_w = log_w + self.log_factor[which(subprocess)]
        if bool(self.regressed):
            log_w = log_w + self._added(z, invariants, subprocess).double()
        return torch.exp(self._bounded(log_w) + self.calibration[which(subprocess)])

    def _bounded(self, log_w: Tensor) -> Tensor:
        """Logarithms of weights, not beyond those of the sample unless they are exact."""
        return log_w.clamp(*self.seen.tolist()) if bool(self.regressed) else log_w

    def _added(self, z: Tensor, invariants: Tensor, subprocess: Tensor) -> Tensor:
        added: Tensor = self.last(self.trunk(z, invariants, subprocess))
        return added.squeeze(-1)

    def _by_formula(
        self, process: Process, final: Tensor, incoming: Tensor, subprocess: Tensor
    ) -> Tensor:
        """Logarithms (m,) of the channels' powers of scales."""
        result = torch.zeros(len(final), dtype=torch.float64)
        for c, rows in by_value(process.channel_of[which(subprocess).cpu()]):
            power = float(self.power[c])
            if power:
                name = FORMULAS[int(self.formula[c])]
                result[rows] = power * _log_scale(process, c, name, final[rows], incoming[rows])
        return result

    def learn(
        self, process: Process, training: Biased, validation: Biased, regress: Regress
    ) -> dict[str, float | str]:
        """Learn the weights of a sample.

        Parameters
        ----------
        process : Process
        training, validation : Biased
            On the device of the module.
        regress : callable
            Called if formulas do not determine the weights.

        Returns
        -------
        dict
            ``rule``, formula or regression, and ``precision``, the root mean square of the
            logarithm of weight over prediction for held-out events.
        """
        self._choose_formulas(process, training)
        rest = [self._rest(process, part) for part in (training, validation)]
        self._centre(process, training.encoded.subprocess, rest[0])
        rest = [
            r - self.log_factor[p.encoded.subprocess]
            for r, p in zip(rest, (training, validation), strict=True)
        ]
        exact = float((rest[0].abs() < _EXACT).double().mean()) >= _ALL
        if not exact:
            self.regressed.fill_(1.0)
            self.trunk.fit_standardization(training.encoded)
            left = [
                Biased(p.z, p.encoded, r) for p, r in zip((training, validation), rest, strict=True)
            ]
            regress(self, *left)
        self.seen.copy_(torch.stack([training.log_weight.min(), training.log_weight.max()]))
        offs = [
            p.log_weight - self._bounded(p.log_weight - r + self._all_added(p))
            for p, r in zip((training, validation), rest, strict=True)
        ]
        self._normalise(training, offs[0])
        off = offs[1]
        off = off - off.median()
        return {
            "rule": "formula" if exact else "regression",
            "precision": float(f"{float(torch.sqrt((off**2).mean())):.3g}"),
        }

    @torch.no_grad()
    def _choose_formulas(self, process: Process, training: Biased) -> None:
        """Assign to each channel the power of a scale that describes its weights best."""
        encoded, chosen = training.encoded, list[tuple[int, int, float]]()
        channels = by_value(process.channel_of[encoded.subprocess.cpu()])
        for c, rows in channels:
            if len(rows) < _FEWEST:
                continue
            rows = rows[:_CHUNK]
            final, incoming = _momenta(process, encoded[rows])
            sub = encoded.subprocess[rows].cpu()
            y = _centred(training.log_weight[rows].cpu(), sub)
            best, least = (0, 0.0), float(y.abs().median())
            for number, name in _formulas_of(process, c, final):
                scale = _centred(_log_scale(process, c, name, final, incoming), sub)
                norm = float((scale**2).sum())
                if norm < 1e-12:
                    continue
                power = _tidy(float((scale * y).sum()) / norm)
                off = float((y - power * scale).abs().median())
                if off < 0.99 * least:
                    best, least = (number, power), off
            self.formula[c], self.power[c] = best
            chosen.append((len(rows), *best))
        if not chosen:
            return
        # Channels with few events are biased as those with many.
        _, number, power = max(chosen)
        own = {c for c, rows in channels if len(rows) >= _FEWEST}
        for c in set(range(len(process.channels))) - own:
            if any(number == k for k, _ in _formulas_of(process, c)):
                self.formula[c], self.power[c] = number, power

    @torch.no_grad()
    def _rest(self, process: Process, some: Biased) -> Tensor:
        """Logarithms (m,) of weights over the powers of scales."""
        parts = []
        for at in torch.arange(len(some.encoded)).split(_CHUNK):
            part = some.encoded[at]
            final, incoming = _momenta(process, part)
            parts.append(self._by_formula(process, final, incoming, part.subprocess))
        return some.log_weight - torch.cat(parts).to(some.log_weight.device)

    @torch.no_grad()
    def _centre(self, process: Process, subprocess: Tensor, rest: Tensor) -> None:
        """Use the median residual of each subprocess as its factor.

        One without events has that of its process (LPRUP), whose cross section it shares.
        """
        self.log_factor.fill_(float(rest.median()))
        numbers = [s.structure.process_id for s in process.subprocesses]
        ids = torch.tensor(numbers, device=subprocess.device)
        for number, rows in by_value(ids[subprocess]):
            self.log_factor[ids == number] = rest[rows].median()
        for s, rows in by_value(subprocess):
            self.log_factor[s] = rest[rows].median()

    def deviance(self, some: Biased, rows: Tensor) -> Tensor:
        """Mean deviance of the network's corrections for some events of `some`, its loss."""
        e = some.encoded
        added = self._added(some.z[rows], e.invariants[rows], e.labels[rows])
        return _deviance(some.log_weight[rows] - added).mean()

    @torch.no_grad()
    def _all_added(self, some: Biased) -> Tensor:
        """Corrections of the network to the logarithms of all these weights."""
        if not bool(self.regressed):
            return torch.zeros_like(some.log_weight)
        e = some.encoded
        parts = torch.arange(len(some.z), device=some.z.device).split(_CHUNK)
        return torch.cat(
            [self._added(some.z[i], e.invariants[i], e.labels[i]).double() for i in parts]
        )

    @torch.no_grad()
    def _normalise(self, training: Biased, off: Tensor) -> None:
        """Normalise weights to their sums in the sample by subprocess, and to mean one.

        Parameters
        ----------
        training : Biased
        off : (m,) tensor
            Logarithms of weights over predictions.
        """
        sign, subprocess = training.encoded.weight.sign().double(), training.encoded.subprocess
        weight = torch.exp(training.log_weight)
        predicted = weight * torch.exp(-off)
        for s, rows in by_value(subprocess):
            is_, ought = ((sign * w)[rows].sum() for w in (predicted, weight))
            if is_ > 0 and ought > 0:
                factor = torch.log(ought / is_)
                self.calibration[s] = factor
                predicted[rows] *= torch.exp(factor)
        mean = (sign * predicted).sum() / sign.sum()
        self.calibration -= torch.log(mean)
        self.largest.fill_(float(predicted.max() / mean))


def _deviance(r: Tensor) -> Tensor:
    """Half the unit deviance of a gamma distribution, by logarithms of value over mean."""
    r = r.clamp_max(20.0)
    return torch.exp(r) - r - 1


def _momenta(process: Process, encoded: Encoded) -> tuple[Tensor, Tensor]:
    """Final and incoming momenta of events, turned to azimuth zero."""
    kinematics = process.kinematics(
        encoded.x, encoded.labels.cpu(), torch.zeros(len(encoded), dtype=torch.float64)
    )
    return kinematics.final, kinematics.incoming


def _log_scale(
    process: Process, channel: int, name: str, final: Tensor, incoming: Tensor
) -> Tensor:
    chart = process.channels[channel].chart
    made = chart.made(final[:, : len(process.channels[channel].classes)])
    return torch.log(formula(name, incoming, made).clamp_min(1e-9))


def _formulas_of(
    process: Process, channel: int, final: Tensor | None = None
) -> list[tuple[int, str]]:
    """Formulas that a channel's events have, with their numbers."""
    n = len(process.channels[channel].classes)
    p = torch.ones(1, n, 4, dtype=torch.float64) if final is None else final[:, :n]
    names = set(formula_names(process.channels[channel].chart.made(p)))
    return [(k, name) for k, name in enumerate(FORMULAS) if name in names and k > 0]


def _centred(values: Tensor, subprocess: Tensor) -> Tensor:
    """Values (m,) less the mean of their subprocess."""
    values = values.clone()
    for _, rows in by_value(subprocess):
        values[rows] -= values[rows].mean()
    return values


def _tidy(power: float) -> float:
    """The nearest simple power, if the fit is close to it."""
    near = round(2 * power) / 2
    return near if abs(power - near) < 2e-3 else power
