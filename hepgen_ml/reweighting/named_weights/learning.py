"""Learning the ratios of named weights from a sample."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.config import TrainingConfig
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process
from hepgen_ml.reweighting.named_weights.components import components_by_subprocess
from hepgen_ml.reweighting.named_weights.features import Inputs, inputs_of
from hepgen_ml.reweighting.named_weights.ratios import NamedWeight, RatioNetwork, WeightRatios
from hepgen_ml.training.task import Task
from hepgen_ml.training.trainer import Trainer
from hepgen_ml.training.variations import Variations

log = logging.getLogger(__name__)

Report = Callable[[float], None]
"""Callback with the completed fraction of the training."""

_CONSTANT = 2e-5
"""Relative range of a ratio that counts as rounding: weights have six or seven digits."""

_FEWEST_PINNED = 50
"""Minimum number of events of a subprocess to take a constant ratio as exact."""

_LEAST_UNIT = 0.05
"""Smallest typical size of a ratio over its quadratic mean."""

_LEAST_RATE = 0.05
"""Least relative rate at which events are drawn, those whose ratios are all exact."""

_HELD_OUT, _MOST_HELD_OUT = 0.05, 20_000

_WIDTH, _BATCH_SIZE, _RATE = 128, 1024, 3e-3
_MOST_STEPS, _MOST_EPOCHS = 40_000, 150

_FEWEST = 200
"""Minimum number of events to calibrate a subprocess separately."""

_CHUNK = 20_000


def learn_ratios(
    process: Process,
    encoded: Encoded,
    variations: Variations,
    *,
    same_beams: bool,
    seconds: float,
    seed: int,
    device: torch.device,
    max_steps: int = _MOST_STEPS,
    report: Report | None = None,
) -> WeightRatios:
    """Learn the ratios of the named weights of a sample.

    Parameters
    ----------
    process : Process
    encoded : Encoded
        All events; their weights are the nominal ones.
    variations : Variations
    same_beams : bool
        Whether both beams are of the same particles.
    seconds : float
        Time of the training of the network.
    seed : int
    device : torch.device
    max_steps : int
        Largest number of training steps.
    report : callable, optional
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 17)
        return _learn(
            process, encoded, variations, same_beams, seconds, seed, device, max_steps, report
        )


def _learn(
    process: Process,
    encoded: Encoded,
    variations: Variations,
    same_beams: bool,
    seconds: float,
    seed: int,
    device: torch.device,
    max_steps: int,
    report: Report | None,
) -> WeightRatios:
    begun = time.monotonic()
    some = encoded[variations.rows]
    ratio, nominal = variations.ratio, some.weight.double()
    weights, unit, target = _kinds(variations)
    varying = [k for k, w in enumerate(weights) if w.constant is None]
    is_pinned, pinned = _pins(
        ratio[:, varying].double(), some.subprocess, len(process.subprocesses)
    )
    parts = components_by_subprocess(target, some.subprocess, ~is_pinned, seed)
    model = WeightRatios(
        process, weights, variations.groups, len(parts.loadings), _WIDTH, same_beams
    )
    if varying:
        model.is_pinned.copy_(is_pinned)
        model.pinned.copy_(pinned)
        model.unit.copy_(unit)
        model.centre.copy_(parts.centre)
        model.loadings.copy_(parts.loadings)
        model.rest.copy_(parts.rest)
        model.least.copy_(target.min(0).values)
        model.most.copy_(target.max(0).values)
    chunks = torch.arange(len(some)).split(_CHUNK)
    inputs = _joined([inputs_of(process, some[rows]) for rows in chunks])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(some)))
    n_out = min(max(round(_HELD_OUT * len(some)), 1), _MOST_HELD_OUT)
    held_out, training = order[:n_out], order[n_out:]
    model.to(device)
    if model.network is not None and len(training):
        model.network.fit_standardization(inputs[training].to(device))
        left = max(seconds - (time.monotonic() - begun), 0.2 * seconds)
        examples = _Examples(inputs, parts.u, parts.varies)
        _train(model, examples, training, held_out, left, seed, max_steps, report)
    model.eval()
    if varying:
        _calibrate(model, inputs, ratio[:, varying], nominal)
    _judge(model, inputs, ratio, nominal, held_out)
    return model


def _kinds(variations: Variations) -> tuple[list[NamedWeight], Tensor, Tensor]:
    """Learned form of each weight, and sign or size (K') and values (m, K') of those that vary."""
    weights, units, columns = [], [], []
    for k, (name, text) in enumerate(variations.texts.items()):
        r = variations.ratio[:, k].double()
        low, high = float(r.min()), float(r.max())
        middle = (low + high) / 2
        if high - low <= _CONSTANT * abs(middle) or low == high:
            constant = 1.0 if abs(middle - 1) <= _CONSTANT else middle
            weights.append(NamedWeight(name, text, middle > 0, constant))
            continue
        definite = low > 0 or high < 0
        weights.append(NamedWeight(name, text, definite))
        if definite:
            units.append(1.0 if low > 0 else -1.0)
            columns.append(_without_rare_zeros(torch.log(r.abs())))
        else:
            log.info("the ratio of the weight %r changes sign: learned as it is", name[:60])
            units.append(_typical_size(r))
            columns.append(torch.asinh(r / units[-1]))
    m = len(variations.ratio)
    target = torch.stack(columns, 1) if columns else torch.zeros(m, 0).double()
    return weights, torch.tensor(units, dtype=torch.float64), target


def _typical_size(r: Tensor) -> float:
    """Median of the sizes of ratios that are not zero, and not far below their spread."""
    size = r[r != 0].abs()
    return max(float(size.median()), _LEAST_UNIT * float(torch.sqrt((size**2).mean())))


def _without_rare_zeros(y: Tensor) -> Tensor:
    """Logarithms with a lower bound on rare values far below all others.

    Parton densities with a small positive lower bound give such ratios. The raised values stay
    below a twentieth of the median.
    """
    low, middle = np.quantile(y.numpy(), [0.16, 0.5]).tolist()
    return y.clamp_min(middle - max(8 * (middle - low), math.log(20)))


def _pins(ratio: Tensor, subprocess: Tensor, n_subprocesses: int) -> tuple[Tensor, Tensor]:
    """Ratios that are the same in all events of a subprocess, often 0 or 1: which, and values."""
    is_pinned = torch.zeros(n_subprocesses, ratio.shape[1], dtype=torch.bool)
    pinned = torch.zeros(is_pinned.shape, dtype=torch.float64)
    for s, rows in by_value(subprocess):
        if len(rows) < _FEWEST_PINNED:
            continue
        low, high = ratio[rows].min(0).values, ratio[rows].max(0).values
        middle = (low + high) / 2
        is_pinned[s] = high - low <= _CONSTANT * middle.abs()
        near_one = (middle - 1).abs() <= _CONSTANT
        pinned[s] = torch.where(near_one, torch.ones_like(middle), middle)
    return is_pinned, pinned


def _joined(parts: list[Inputs]) -> Inputs:
    return Inputs(*(
        torch.cat([getattr(part, name) for part in parts])
        for name in ("parton", "coupling", "event", "subprocess")
    ))  # fmt: skip


@dataclass(frozen=True)
class _Examples:
    """Inputs of events, coefficients (m, P) of their weights, and which of these they have."""

    inputs: Inputs
    u: Tensor
    varies: Tensor

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, rows: Tensor) -> _Examples:
        return _Examples(self.inputs[rows], self.u[rows], self.varies[rows])


class RatioTask(Task[_Examples]):
    """The squared deviation trains the coefficients, the likelihood of a Gaussian their variances.

    Weighting the deviations by variances would suppress the difficult regions of phase space
    (2203.09168). Each coefficient counts the mean over the events that have it, and events with
    one that few have are drawn more often.

    Parameters
    ----------
    network : RatioNetwork
    train, validation : _Examples
    importance : (P,) tensor
        Of each coefficient.
    """

    module: RatioNetwork
    remedy = "leave out the named weights that are extreme in single events, see --weights"

    def __init__(
        self, network: RatioNetwork, train: _Examples, validation: _Examples, importance: Tensor
    ) -> None:
        super().__init__(network, train, validation)
        share = train.varies.float().mean(0).clamp_min(1 / max(len(train), 1))
        self.importance = importance / share.to(importance)
        sets = torch.unique(train.varies, dim=1)
        self.rate = (sets / sets.float().mean(0).clamp_min(1e-6)).mean(1).clamp_min(_LEAST_RATE)
        self.train_rate = self.rate / self.rate.mean()

    def loss(self, part: str, data: _Examples, rows: Tensor) -> Tensor:
        some = data[rows.cpu()]
        inputs, u = some.inputs.to(self.device), some.u.to(self.device)
        counts = some.varies.float()
        if data is self.train:
            counts = counts / self.train_rate[rows.cpu(), None]
        weight = self.importance * counts.to(self.device)
        mean, log_variance = self.module(inputs)
        # single events with extreme weights must not dominate
        robust = torch.nn.functional.huber_loss(mean, u, reduction="none", delta=2.0)
        square = (u - mean).detach() ** 2
        spread = 0.5 * (square * torch.exp(-log_variance) + log_variance)
        return (weight * (robust + 0.01 * spread)).mean()


def _train(
    model: WeightRatios,
    examples: _Examples,
    training: Tensor,
    held_out: Tensor,
    seconds: float,
    seed: int,
    max_steps: int,
    report: Report | None,
) -> None:
    """Train the network within limits of time and steps."""
    assert isinstance(model.network, RatioNetwork)
    importance = model.loadings.norm(dim=1).sqrt().float()
    task = RatioTask(
        model.network, examples[training], examples[held_out], importance / importance.mean()
    )
    passes = _MOST_EPOCHS * len(training) // _BATCH_SIZE
    config = TrainingConfig(
        batch_size=_BATCH_SIZE, learning_rate=_RATE, weight_decay=0.0, warmup=0.0, clip=1.0,
        max_steps=min(max(passes, 1000), _MOST_STEPS, max_steps),
        max_epochs=float(2**53), max_time=seconds, patience=0, validation_interval=1000,
    )  # fmt: skip
    told = report or (lambda done: None)
    Trainer(
        task, config, seed=seed, progress=lambda stage, done, total, info: told(done)
    ).run()
    told(1.0)


@torch.inference_mode()
def _calibrate(model: WeightRatios, inputs: Inputs, ratio: Tensor, nominal: Tensor) -> None:
    """Normalise each weight to its sum in the sample, by subprocess and in total."""
    predicted = torch.cat([
        model.ratios(model.transformed(inputs[rows].to(model.centre.device))[0]).cpu()
        for rows in torch.arange(len(inputs)).split(_CHUNK)
    ])  # fmt: skip
    logarithmic = model.logarithmic.cpu()
    pinned = model.is_pinned.cpu()[inputs.subprocess]
    predicted = torch.where(pinned, ratio.double(), predicted)
    shift = torch.zeros_like(model.calibration, device="cpu")
    for s, rows in [*by_value(inputs.subprocess), (-1, torch.arange(len(inputs)))]:
        if s >= 0 and len(rows) < _FEWEST:
            continue
        w = nominal[rows, None] * ~pinned[rows]  # exact ratios are not changed
        ought, found = (w * ratio[rows].double()).sum(0), (w * predicted[rows]).sum(0)
        total = w.sum(0)
        factor = (ought / found).where((ought * found > 0), torch.ones_like(found))
        added = ((ought - found) / total).where(total != 0, torch.zeros_like(found))
        change = torch.where(logarithmic, torch.log(factor), added)
        changed = torch.where(logarithmic, predicted[rows] * factor, predicted[rows] + added)
        predicted[rows] = torch.where(pinned[rows], predicted[rows], changed)
        shift[slice(None) if s < 0 else s] += change
    model.calibration.copy_(shift)


@torch.inference_mode()
def _judge(
    model: WeightRatios, inputs: Inputs, ratio: Tensor, nominal: Tensor, held_out: Tensor
) -> None:
    """Measure errors with held-out events, and scale the stated errors to them."""
    true = ratio[held_out].double()
    found, error = model(inputs[held_out], errors=True)
    off = (found - true).abs()
    total = float(nominal.sum())
    sums = (nominal[:, None] * ratio).sum(0) / (total if total else 1.0)
    for i, k in enumerate(model.varying):
        free = error[:, k] > 0
        width = float(torch.quantile(off[free, k] / error[free, k], 0.6827)) if free.any() else 1.0
        model.error_scale[i] = max(width, 1e-6)
    for k, weight in enumerate(model.weights):
        facts = {"cross_section": float(sums[k])}
        free = error[:, k] > 0  # what is exact in some subprocesses must not hide the others
        if weight.constant is None and free.any():
            size = true[free, k].abs()
            size = (size if weight.logarithmic else size.mean()).clamp_min(1e-12)
            relative = off[free, k] / size
            facts["median_error"] = float(relative.median())
            facts["largest_error"] = float(torch.quantile(relative, 0.99))
        model.weights[k] = replace(weight, facts=facts)
