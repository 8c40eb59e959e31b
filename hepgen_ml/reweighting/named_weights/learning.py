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

_MOST_COMPONENTS = 64
_ABSOLUTE, _RELATIVE = 1e-4, 3e-3
"""Largest residual of each logarithm after the components: absolute, or relative to its spread."""

_FOR_COMPONENTS = 50_000
_HELD_OUT, _MOST_HELD_OUT = 0.05, 20_000

_WIDTH, _BATCH_SIZE, _RATE = 128, 1024, 3e-3
_MOST_STEPS, _MOST_EPOCHS = 40_000, 150

_FEWEST = 200
"""Minimum number of events to calibrate a subprocess separately."""

_FEWEST_PINNED = 50
"""Minimum number of events of a subprocess to take a constant ratio as exact."""

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
    report : callable, optional
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 17)
        return _learn(process, encoded, variations, same_beams, seconds, seed, device, report)


def _learn(
    process: Process,
    encoded: Encoded,
    variations: Variations,
    same_beams: bool,
    seconds: float,
    seed: int,
    device: torch.device,
    report: Report | None,
) -> WeightRatios:
    begun = time.monotonic()
    some = encoded[variations.rows]
    ratio, nominal = variations.ratio, some.weight.double()
    weights, target = _kinds(variations)
    _fill_where_same(target, some.subprocess)
    varying = [k for k, w in enumerate(weights) if w.constant is None]
    centre, loadings, rest, u = _components(target, seed)
    model = WeightRatios(
        process, weights, variations.groups, len(loadings), _WIDTH, same_beams
    )
    if varying:
        model.centre.copy_(centre)
        model.loadings.copy_(loadings)
        model.rest.copy_(rest)
        model.least.copy_(target.min(0).values)
        model.most.copy_(target.max(0).values)
    parts = torch.arange(len(some)).split(_CHUNK)
    inputs = _joined([inputs_of(process, some[rows]) for rows in parts])
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(some)))
    n_out = min(max(round(_HELD_OUT * len(some)), 1), _MOST_HELD_OUT)
    held_out, training = order[:n_out], order[n_out:]
    model.to(device)
    if model.network is not None and len(training):
        model.network.fit_standardization(inputs[training].to(device))
        left = max(seconds - (time.monotonic() - begun), 0.2 * seconds)
        _train(model, inputs, u, training, held_out, left, seed, report)
    model.eval()
    if varying:
        _pin(model, inputs, ratio[:, varying])
        _calibrate(model, inputs, ratio[:, varying], nominal)
    _judge(model, inputs, ratio, nominal, held_out)
    return model


def _kinds(variations: Variations) -> tuple[list[NamedWeight], Tensor]:
    """Learned form of each weight, and its values (m, K') for weights that vary."""
    weights, columns = [], []
    for k, (name, text) in enumerate(variations.texts.items()):
        r = variations.ratio[:, k].double()
        low, high = float(r.min()), float(r.max())
        middle = (low + high) / 2
        if high - low <= _CONSTANT * abs(middle) or low == high:
            constant = 1.0 if abs(middle - 1) <= _CONSTANT else middle
            weights.append(NamedWeight(name, text, middle > 0, constant))
            continue
        positive = low > 0
        if not positive:
            log.info("the ratio of the weight %r changes sign: learned as it is", name[:60])
        weights.append(NamedWeight(name, text, positive))
        columns.append(_without_rare_zeros(torch.log(r)) if positive else r)
    target = torch.stack(columns, 1) if columns else torch.zeros(len(variations.ratio), 0).double()
    return weights, target


def _fill_where_same(target: Tensor, subprocess: Tensor) -> None:
    """Replace ratios that are constant in a subprocess by the mean over the other events.

    Such ratios are exact by themselves (see `_pin`); the components describe the others, and the
    network need not distinguish both kinds.
    """
    same = torch.zeros(target.shape, dtype=torch.bool)
    for _, rows in by_value(subprocess):
        if len(rows) >= _FEWEST_PINNED:
            part = target[rows]
            same[rows] = (part.max(0).values - part.min(0).values) <= _CONSTANT
    for k in torch.nonzero(same.any(0) & ~same.all(0)).squeeze(-1).tolist():
        target[same[:, k], k] = target[~same[:, k], k].mean()


def _without_rare_zeros(y: Tensor) -> Tensor:
    """Logarithms with a lower bound on rare values far below all others.

    Parton densities with a small positive lower bound give such ratios. The raised values stay
    below a twentieth of the median.
    """
    low, middle = np.quantile(y.numpy(), [0.16, 0.5]).tolist()
    return y.clamp_min(middle - max(8 * (middle - low), math.log(20)))


def _pin(model: WeightRatios, inputs: Inputs, ratio: Tensor) -> None:
    """Keep ratios that are the same in all events of a subprocess, often 0 or 1, exactly."""
    for s, rows in by_value(inputs.subprocess):
        if len(rows) < _FEWEST_PINNED:
            continue
        low, high = ratio[rows].min(0).values.double(), ratio[rows].max(0).values.double()
        middle = (low + high) / 2
        same = high - low <= _CONSTANT * middle.abs()
        near_one = (middle - 1).abs() <= _CONSTANT
        model.is_pinned[s] = same
        model.pinned[s] = torch.where(near_one, torch.ones_like(middle), middle)


def _components(target: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre (K'), loadings (P, K'), residuals (K') and coefficients (m, P) of unit variance.

    Weights are scaled by the square root of their spread, so that small variations matter beside
    large ones.
    """
    m, n = target.shape
    centre = target.mean(0)
    if not n:
        return centre, torch.zeros(0, 0).double(), centre, torch.zeros(m, 0)
    order = np.random.default_rng(seed).permutation(m)[:_FOR_COMPONENTS]
    some = target[torch.from_numpy(order)] - centre
    spread = some.std(0).clamp_min(1e-12)
    scale = torch.sqrt(spread)
    covariance = (some / scale).T @ (some / scale) / max(len(some) - 1, 1)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    explained = torch.cumsum(values[:, None] * vectors.T**2, 0) * scale**2
    left = torch.sqrt((spread**2 - explained).clamp_min(0))
    enough = (left <= torch.maximum(_RELATIVE * spread, torch.tensor(_ABSOLUTE))).all(1)
    first = int(torch.nonzero(enough)[0]) if bool(enough.any()) else n - 1
    p = min(first + 1, _MOST_COMPONENTS, n)
    size = torch.sqrt(values[:p]).clamp_min(1e-12)
    loadings = (size * vectors[:, :p]).T * scale
    u = ((target - centre) / scale) @ (vectors[:, :p] / size)
    return centre, loadings, left[p - 1], u.float()


def _joined(parts: list[Inputs]) -> Inputs:
    return Inputs(*(
        torch.cat([getattr(part, name) for part in parts])
        for name in ("parton", "coupling", "event", "subprocess")
    ))  # fmt: skip


@dataclass(frozen=True)
class _Examples:
    """Inputs of events and coefficients (m, P) of their weights."""

    inputs: Inputs
    u: Tensor

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, rows: Tensor) -> _Examples:
        return _Examples(self.inputs[rows], self.u[rows])


class RatioTask(Task[_Examples]):
    """The squared deviation trains the coefficients, the likelihood of a Gaussian their variances.

    Weighting the deviations by variances would suppress the difficult regions of phase space
    (2203.09168).

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
        self.importance = importance

    def loss(self, part: str, data: _Examples, rows: Tensor) -> Tensor:
        some = data[rows.cpu()]
        inputs, u = some.inputs.to(self.device), some.u.to(self.device)
        mean, log_variance = self.module(inputs)
        # single events with extreme weights must not dominate
        robust = torch.nn.functional.huber_loss(mean, u, reduction="none", delta=2.0)
        square = (u - mean).detach() ** 2
        spread = 0.5 * (square * torch.exp(-log_variance) + log_variance)
        return (self.importance * robust).mean() + 0.01 * spread.mean()


def _train(
    model: WeightRatios,
    inputs: Inputs,
    u: Tensor,
    training: Tensor,
    held_out: Tensor,
    seconds: float,
    seed: int,
    report: Report | None,
) -> None:
    """Train the network within a time limit."""
    assert isinstance(model.network, RatioNetwork)
    importance = model.loadings.norm(dim=1).sqrt().float()
    examples = _Examples(inputs, u)
    task = RatioTask(
        model.network, examples[training], examples[held_out], importance / importance.mean()
    )
    config = TrainingConfig(
        batch_size=_BATCH_SIZE, learning_rate=_RATE, weight_decay=0.0, warmup=0.0, clip=1.0,
        max_steps=max(min(_MOST_STEPS, _MOST_EPOCHS * len(training) // _BATCH_SIZE), 1000),
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
        model.transformed(inputs[rows].to(model.centre.device))[0].cpu()
        for rows in torch.arange(len(inputs)).split(_CHUNK)
    ])  # fmt: skip
    logarithmic = model.logarithmic.cpu()
    predicted = torch.where(logarithmic, torch.exp(predicted), predicted)
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
