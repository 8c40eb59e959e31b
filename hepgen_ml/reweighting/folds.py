"""Classifiers of one final state: their folds, their calibration, and the ratio they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events import FloatArray
from hepgen_ml.reweighting.classifiers import Classifier, NetworkName, trained
from hepgen_ml.reweighting.features import Group, Inputs
from hepgen_ml.reweighting.training import Labelled, Schedule, loss_of
from hepgen_ml.validation.classifier import weighted_auc

MAX_LOG_WEIGHT = math.log(100.0)
"""Weights stay between 1/100 and 100 of those of their final state."""


@dataclass(frozen=True)
class Calibration:
    """Logarithm of the weight as a function of the mean logit: slope * logit + offset."""

    slope: float
    offset: float


@dataclass
class GroupRatio:
    """Ratio of densities of one final state.

    Attributes
    ----------
    classifiers : list of Classifier
        None where there are too few events.
    calibration : Calibration
    rate : float
        Ratio of the frequencies of this final state.
    facts : dict
        What was found in training.
    """

    classifiers: list[Classifier]
    calibration: Calibration
    rate: float
    facts: dict[str, Any] = field(default_factory=dict)

    def log_weights(self, inputs: Inputs) -> FloatArray:
        """Logarithms (K, n) of the weights that each classifier gives; (1, n) without any."""
        if not self.classifiers:
            return np.full((1, len(inputs)), _log(self.rate))
        return self.calibrated(torch.stack([c.logits(inputs) for c in self.classifiers]))

    def calibrated(self, logits: Tensor) -> FloatArray:
        """Logarithms of weights from logits of any shape."""
        c = self.calibration
        shaped = (c.slope * logits + c.offset).clamp(-MAX_LOG_WEIGHT, MAX_LOG_WEIGHT)
        return np.asarray(shaped.numpy()) + _log(self.rate)


class Folds:
    """Classifiers of one final state, each without one part (fold) of the events.

    Parameters
    ----------
    truth, generated : Group
    network : {"trees", "mlp", "transformer", "lgatr"}
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
        self.schedule, self.seed = schedule, seed
        self.device = device or torch.device("cpu")
        n = len(truth) + len(generated)
        weights = [torch.from_numpy(g.weight / g.weight.sum() * n / 2) for g in (truth, generated)]
        self.events = Labelled(
            Inputs.join(truth.inputs, generated.inputs),
            torch.cat([torch.ones(len(truth)), torch.zeros(len(generated))]),
            torch.cat(weights).float(),
        )
        rng = np.random.default_rng(seed)
        # each sample is divided by itself, so that every part holds its share of both
        parts = [rng.permutation(len(g)) % n_folds for g in (truth, generated)]
        self.fold = torch.from_numpy(np.concatenate(parts))
        self.logits = torch.zeros(n, dtype=torch.float64)
        self.training_areas: list[float] = []
        self.found: dict[str, list[float]] = {}

    def member(self, k: int, report: Callable[[float], None]) -> Classifier:
        """Classifier that does not know part k."""
        torch.manual_seed(1000 * self.seed + k)
        known = torch.nonzero(self.fold != k).squeeze(-1)
        training = self.events[known[torch.randperm(len(known))]]
        classifier, found = trained(
            self.network, training, self.schedule, seed=self.seed + k, device=self.device,
            progress=report,
        )  # fmt: skip
        for name, value in found.items():
            self.found.setdefault(name, []).append(value)
        unknown = torch.nonzero(self.fold == k).squeeze(-1)
        self.logits[unknown] = classifier.logits(self.events.inputs[unknown])
        # the last ones: networks keep the first for stopping
        some = training[torch.arange(len(training))[-4 * len(unknown) :]]
        self.training_areas.append(_area(classifier.logits(some.inputs), some))
        return classifier

    def finish(self, members: list[Classifier], rate: float) -> tuple[GroupRatio, FloatArray]:
        """Calibrated ratio, and logarithms of held-out weights, of truth first."""
        calibration = calibrate(self.logits, self.events)
        area = _area(self.logits, self.events)
        ratio = GroupRatio(
            members,
            calibration,
            rate,
            {
                "auc_held_out": area,
                "auc_in_training": float(np.mean(self.training_areas)),
                "slope": calibration.slope,
                "offset": calibration.offset,
                "loss_held_out": float(loss_of(self.logits.float(), self.events)),
                **self.found,
            },
        )
        return ratio, ratio.calibrated(self.logits)


def calibrate(logits: Tensor, events: Labelled) -> Calibration:
    """Slope and offset that minimise the loss on held-out events, by Newton's method.

    A slope below one undoes over-confidence; it is kept between zero and two.
    """
    x = torch.stack([logits, torch.ones_like(logits)], dim=1)
    parameters = torch.tensor([1.0, 0.0], dtype=torch.float64)
    # a weak prior at (1, 0): where the logit hardly varies, its slope is not determined
    prior = torch.diag(torch.tensor([10.0, 10.0], dtype=torch.float64))
    start = parameters.clone()
    truth, weight = events.truth.double(), events.weight.double()
    for _ in range(30):
        p = torch.sigmoid(x @ parameters)
        gradient = x.T @ (weight * (p - truth)) + prior @ (parameters - start)
        curvature = (x * (weight * p * (1 - p)).unsqueeze(1)).T @ x + prior
        step = torch.linalg.lstsq(curvature, gradient.unsqueeze(1)).solution.squeeze(1)
        parameters = parameters - step
        if float(step.abs().max()) < 1e-9:
            break
    slope, offset = parameters.tolist()
    if not (math.isfinite(slope) and math.isfinite(offset)):
        return Calibration(1.0, 0.0)
    return Calibration(min(max(slope, 0.0), 2.0), offset)


def _area(logits: Tensor, events: Labelled) -> float:
    true = events.truth.numpy() > 0.5
    score, weight = logits.numpy(), events.weight.double().numpy()
    return weighted_auc(score[~true], score[true], weight[~true], weight[true])[0]


def _log(x: float) -> float:
    return math.log(max(x, 1e-12))
