"""Training of one classifier network of one final state."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hepgen_ml.config import TrainingConfig
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.networks import Network
from hepgen_ml.training.task import Task
from hepgen_ml.training.trainer import Trainer

_VALIDATION = 0.1
_EMA = 0.99

_NO_LIMIT = 2**53

_STEPS_PER_PASS, _LEAST_BATCH = 150, 64
"""Steps in each epoch of small samples, which have smaller batches: small differences take many
steps."""


@dataclass(frozen=True)
class Schedule:
    """Length and settings of the training of a classifier.

    Attributes
    ----------
    epochs : int
        Passes over the events after which the learning rate is zero.
    patience : int
        Passes without a better validation loss after which the learning rate falls to zero, from
        the best weights on, and training ends.
    batch_size : int
        At most; small samples have smaller batches.
    learning_rate, weight_decay : float
    seconds : float
        Wall time at most.
    """

    epochs: int = 30
    patience: int = 6
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    seconds: float = math.inf

    def settings(self, n_events: int) -> TrainingConfig:
        """Settings of the trainer of a network, for a number of training events."""
        size = min(self.batch_size, max(n_events // _STEPS_PER_PASS, _LEAST_BATCH), n_events)
        return TrainingConfig(
            batch_size=size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=0.0,
            max_steps=_NO_LIMIT,
            max_epochs=self.epochs,
            max_time=min(self.seconds, _NO_LIMIT),
            ema=_EMA,
            clip=1.0,
            validation_interval=max(n_events // size, 1),
            patience=self.patience,
        )


@dataclass(frozen=True)
class Labelled:
    """Events of both samples.

    Attributes
    ----------
    inputs : Inputs
    truth : (n,) float32 tensor
        One for truth, zero for generated.
    weight : (n,) float32 tensor
        Weights; those of either sample sum to n/2.
    """

    inputs: Inputs
    truth: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, rows: Tensor) -> Labelled:
        return Labelled(self.inputs[rows], self.truth[rows], self.weight[rows])

    def to(self, device: torch.device) -> Labelled:
        """Events on a device."""
        inputs, truth, weight = self.inputs, self.truth, self.weight
        return Labelled(inputs.to(device), truth.to(device), weight.to(device))


def loss_of(logits: Tensor, events: Labelled) -> Tensor:
    """Mean cross entropy, whose minimum is the logarithm of the ratio of densities.

    Negative weights are subtracted, which is what makes the minimum unbiased.
    """
    each = F.binary_cross_entropy_with_logits(logits, events.truth, reduction="none")
    return (each * events.weight).mean()


def logistic(
    columns: Tensor, events: Labelled, start: tuple[float, ...], strength: float = 10.0
) -> Tensor:
    """Coefficients (k,) with which columns sum to the logit of least loss, by Newton's method.

    Parameters
    ----------
    columns : (n, k) float64 tensor
    events : Labelled
    start : tuple of k floats
        Coefficients of columns that hardly vary are not determined and stay near these.
    strength : float
        Strength of this preference, in the unit of the summed curvature of the loss.
    """
    parameters = torch.tensor(start, dtype=torch.float64)
    prior, origin = strength * torch.eye(len(start), dtype=torch.float64), parameters.clone()
    truth, weight = events.truth.double(), events.weight.double()
    for _ in range(30):
        # No products of matrices, whose rounding may differ between two runs.
        p = torch.sigmoid((columns * parameters).sum(1))
        slope = columns * (weight * (p - truth)).unsqueeze(1)
        bend = columns * (weight * p * (1 - p)).unsqueeze(1)
        gradient = slope.sum(0) + (prior * (parameters - origin)).sum(1)
        curvature = torch.stack([(bend * c.unsqueeze(1)).sum(0) for c in columns.T]) + prior
        step = _solved(curvature, gradient)
        parameters = parameters - step
        if float(step.abs().max()) < 1e-9:
            break
    return parameters if bool(torch.isfinite(parameters).all()) else origin


def _solved(matrix: Tensor, vector: Tensor) -> Tensor:
    """Solution (k,) of k linear equations with a positive definite matrix, by elimination."""
    rows = torch.cat([matrix, vector.unsqueeze(1)], dim=1)
    for i in range(len(rows)):
        pivot = rows[i] / rows[i, i]
        rows = rows - rows[:, i : i + 1] * pivot
        rows[i] = pivot
    return rows[:, -1]


class ClassifierTask(Task[Labelled]):
    """The training of a classifier network, by the cross entropy of both samples."""

    module: Network
    remedy = "check the weights and momenta of both samples"

    def loss(self, part: str, data: Labelled, rows: Tensor) -> Tensor:
        some = data[rows.cpu()].to(self.device)
        return loss_of(self.module(some.inputs), some)


def n_validation(n_events: int) -> int:
    """The number of first events by which `train` decides when to stop."""
    return max(int(_VALIDATION * n_events), 1)


def train(
    network: Network,
    events: Labelled,
    schedule: Schedule,
    *,
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, float]:
    """Fit a classifier; the result has the averaged weights with the best validation loss.

    Parameters
    ----------
    network : Network
    events : Labelled
        In random order; the first tenth decides when to stop.
    schedule : Schedule
    seed : int
        Seed of the order of events.
    progress : callable
        Called with the completed fraction.

    Returns
    -------
    dict
        ``epochs`` and the best ``validation_loss``; ln 2 is that of no difference.
    """
    rows, n_first = torch.arange(len(events)), n_validation(len(events))
    validation, events = events[rows[:n_first]], events[rows[n_first:]]
    network.fit(events.inputs)
    trainer = Trainer(
        ClassifierTask(network, events, validation),
        schedule.settings(len(events)),
        seed=seed,
        progress=lambda stage, done, total, info: progress(done),
    )
    trainer.run()
    progress(1.0)
    network.eval()
    return {"epochs": round(trainer.passes, 1), "validation_loss": trainer.best_loss}
