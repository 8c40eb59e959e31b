"""Classifiers of one final state: folds, calibration, and the ratio of densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.analysis.classifier import weighted_auc
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.reweighting.classifiers import Classifier, NetworkName, trained
from hepgen_ml.reweighting.features import Group, Inputs
from hepgen_ml.reweighting.training import Labelled, Schedule, logistic, loss_of

MAX_LOG_WEIGHT = math.log(100.0)
"""Weights stay between 1/100 and 100 times the mean of their final state."""

_MOST_SLOPE = 2.0  # of calibrations

_NO_FOLD = -1
_EXAMPLES = 5
_SPARE, _MOST_SPARE = 0.1, 20_000
"""Fraction of generated events that no classifier is trained on, and their largest number."""


@dataclass(frozen=True)
class Calibration:
    """Logarithm of the weight as a function of a logit: slope * logit + offset."""

    slope: float
    offset: float

    def __call__(self, logits: Tensor) -> FloatArray:
        """Logarithms of weights, of the same shape."""
        shaped = self.slope * logits + self.offset
        return np.asarray(shaped.clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT).numpy())


NONE = Calibration(0.0, 0.0)


@dataclass
class GroupRatio:
    """Ratio of densities of one final state.

    Attributes
    ----------
    classifiers : list of Classifier
        None where there are too few events.
    single, mean : Calibration
        Calibration of the logit of one classifier, and of the mean of all.
    rate : float
        Ratio of the frequencies of this final state.
    facts : dict
        Numbers about the training.
    names : tuple of str
        Of the columns that the classifiers see; none where they were stored before names were.
    examples : Inputs, optional
        A few events of the training, of which a stored classifier must say what it said.
    """

    classifiers: list[Classifier]
    single: Calibration
    mean: Calibration
    rate: float
    facts: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    examples: Inputs | None = None

    def said(self) -> FloatArray:
        """Logits (K, m) of the examples; none without any."""
        if self.examples is None or not self.classifiers:
            return np.zeros((0, 0))
        return torch.stack([c.logits(self.examples) for c in self.classifiers]).numpy()

    def log_weights(self, inputs: Inputs) -> tuple[FloatArray, FloatArray]:
        """Logarithms of weights, nominal (n,) and of each classifier (K, n); K is 1 without any."""
        if not self.classifiers:
            same = np.full(len(inputs), _log(self.rate))
            return same, same[None]
        logits = torch.stack([c.logits(inputs) for c in self.classifiers])
        rate = _log(self.rate)
        return self.mean(logits.mean(0)) + rate, self.single(logits) + rate


class Folds:
    """Classifiers of one final state, each without one part (fold) of the events.

    Parameters
    ----------
    truth, generated : Group
    network : str
        Of `hepgen_ml.reweighting.classifiers.NETWORKS`.
    n_folds : int
    schedule : Schedule
    seed : int
    device : torch.device or None
    """

    def __init__(
        self,
        truth: Group,
        generated: Group,
        network: NetworkName,
        n_folds: int,
        schedule: Schedule,
        seed: int,
        device: torch.device | None,
    ) -> None:
        self.network: NetworkName = network
        self.names = generated.names
        self.schedule, self.seed = schedule, seed
        self.device = device or torch.device("cpu")
        rng = np.random.default_rng(seed)
        # each sample is divided by itself, so that every part holds its share of both
        parts = [rng.permutation(len(g)) % n_folds for g in (truth, generated)]
        n_spare = min(int(_SPARE * len(generated)), _MOST_SPARE)
        parts[1][rng.permutation(len(generated))[:n_spare]] = _NO_FOLD
        n = len(truth) + len(generated)
        weights = [
            torch.from_numpy(g.weight / g.weight[part != _NO_FOLD].sum() * (n - n_spare) / 2)
            for g, part in zip((truth, generated), parts, strict=True)
        ]
        self.events = Labelled(
            Inputs.join(truth.inputs, generated.inputs),
            torch.cat([torch.ones(len(truth)), torch.zeros(len(generated))]),
            torch.cat(weights).float(),
        )
        self.fold = torch.from_numpy(np.concatenate(parts))
        self.spare = torch.nonzero(self.fold == _NO_FOLD).squeeze(-1)
        self.logits = torch.zeros(n, dtype=torch.float64)
        self.spare_logits: list[Tensor] = []
        self.training_areas: list[float] = []
        self.found: dict[str, list[float]] = {}

    def member(self, k: int, report: Callable[[float], None]) -> Classifier:
        """Classifier trained without part k."""
        torch.manual_seed(1000 * self.seed + k)
        known = torch.nonzero((self.fold != k) & (self.fold != _NO_FOLD)).squeeze(-1)
        training = self.events[known[torch.randperm(len(known))]]
        classifier, found = trained(
            self.network, training, self.schedule, seed=self.seed + k, device=self.device,
            progress=report,
        )  # fmt: skip
        for name, value in found.items():
            self.found.setdefault(name, []).append(value)
        unknown = torch.nonzero(self.fold == k).squeeze(-1)
        self.logits[unknown] = classifier.logits(self.events.inputs[unknown])
        self.spare_logits.append(classifier.logits(self.events.inputs[self.spare]))
        # the last ones: networks keep the first for stopping
        some = training[torch.arange(len(training))[-4 * len(unknown) :]]
        self.training_areas.append(_area(classifier.logits(some.inputs), some))
        return classifier

    def finish(self, members: list[Classifier], rate: float) -> tuple[GroupRatio, FloatArray]:
        """Calibrated ratio, and logarithms of held-out weights, of truth first."""
        held_out = torch.nonzero(self.fold != _NO_FOLD).squeeze(-1)
        logits, events = self.logits[held_out], self.events[held_out]
        single = calibrate(logits, events)
        spare = torch.stack(self.spare_logits)
        mean = single if spare.shape[1] < 2 else of_mean(single, spare)
        ratio = GroupRatio(
            members,
            single,
            mean,
            rate,
            {
                "auc_held_out": _area(logits, events),
                "auc_in_training": float(np.mean(self.training_areas)),
                "slope": single.slope,
                "slope_of_mean": mean.slope,
                "offset": single.offset,
                "loss_held_out": float(loss_of(logits.float(), events)),
                **self.found,
            },
            self.names,
            self.events.inputs[self.spare[:_EXAMPLES]],
        )
        log_weights = single(self.logits)
        log_weights[self.spare.numpy()] = mean(spare.mean(0))
        return ratio, log_weights + _log(rate)


def calibrate(logits: Tensor, events: Labelled) -> Calibration:
    """Slope and offset that minimise the loss on held-out events.

    A slope below one corrects over-confidence; it is limited to between zero and two.
    """
    columns = torch.stack([logits, torch.ones_like(logits)], dim=1)
    slope, offset = logistic(columns, events, (1.0, 0.0)).tolist()
    return Calibration(min(max(slope, 0.0), _MOST_SLOPE), offset)


def of_mean(single: Calibration, logits: Tensor) -> Calibration:
    """Calibration of the mean of several classifiers, from that of one.

    The best slope is the covariance of logit and truth over the variance of the logit. The mean
    has the covariance of one classifier, but less variance, because their overfitting to
    fluctuations of different events averages out.

    Parameters
    ----------
    single : Calibration
    logits : (K, n) tensor
        Logits of events that no classifier was trained on.
    """
    variance, centre = float(logits.mean(0).var()), float(logits.mean())
    ratio = float(logits.var(dim=1).mean()) / variance if variance > 0 else 1.0
    slope = min(single.slope * ratio, _MOST_SLOPE)
    return Calibration(slope, single.offset + (single.slope - slope) * centre)


def _area(logits: Tensor, events: Labelled) -> float:
    true = events.truth.numpy() > 0.5
    score, weight = logits.numpy(), events.weight.double().numpy()
    return weighted_auc(score[~true], score[true], weight[~true], weight[true])[0]


def _log(x: float) -> float:
    return math.log(max(x, 1e-12))
