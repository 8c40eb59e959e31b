"""Interface between the trainer and the module, events and loss of a training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Data = TypeVar("Data", bound=Sized)


@dataclass(frozen=True)
class Part:
    """Parameters that are trained together: one learning rate, one set of best weights.

    Parts share no parameters, so that each can end its training separately.

    Attributes
    ----------
    prefix : str
        Names of its parameters begin with it.
    averaging : float
        Averaged weights cover this fraction of the steps so far, until the decay of
        ``training.ema`` is slower. A long average reduces the overfitting of densities, but slows
        down small networks that learn for longer.
    loss_name : str
        Column of its validation loss in the history of the training.
    """

    prefix: str = ""
    averaging: float = 1 / 9
    loss_name: str = "validation_loss"


class Task(ABC, Generic[Data]):
    """A module, the events that it learns from, and the loss that it minimises.

    **To add a task**, write a subclass with `loss`, and train it::

        class Regression(Task[Events]):
            def loss(self, part, data, rows):
                return ((self.module(data.x[rows]) - data.y[rows]) ** 2).mean()

        task = Regression(network, training, validation)
        Trainer(task, TrainingConfig(max_time=60), seed=0).run()

    The trainer cuts the training events into random batches, averages the weights, judges them by
    the mean loss of the validation events, keeps the best, ends early if they no longer improve,
    and can write checkpoints. docs/extending.md has a whole example.

    Parameters
    ----------
    module : torch.nn.Module
        On the device where it will be trained.
    train, validation : Data
        Events, of any type with a length; only `loss` uses their content.

    Attributes
    ----------
    parts : mapping of str to Part
        Of the module, by name; by default all of its parameters are one.
    rate : (n,) array or None
        How often each training event is drawn; by default all are drawn equally, once in each pass.
    progress : float
        Completed fraction of the training, set by the trainer before each step.
    remedy : str
        Advice in the error if the training diverges.
    """

    parts: Mapping[str, Part] = {"network": Part()}
    rate: Tensor | None = None
    progress = 0.0
    remedy = "try --set training.learning_rate=5e-4"

    def __init__(self, module: nn.Module, train: Data, validation: Data) -> None:
        self.module, self.train, self.validation = module, train, validation

    @property
    def device(self) -> torch.device:
        """Device of the module and of the rows of events."""
        return next(self.module.parameters()).device

    @abstractmethod
    def loss(self, part: str, data: Data, rows: Tensor) -> Tensor:
        """Mean loss of some events, a scalar.

        Parameters
        ----------
        part : str
            Part of the module; only its parameters get gradients.
        data : Data
            The training or the validation events.
        rows : (m,) int64 tensor
            Which of them.
        """

    def may_end_early(self, part: str) -> bool:
        """Whether a part may end once its validation loss no longer decreases."""
        return True

    def learning_rate(self, name: str) -> float:
        """Learning rate of a parameter of the module, in units of that of its part.

        Fine-tuning changes pre-trained weights less than new ones.
        """
        return 1.0

    def state(self) -> dict[str, Tensor]:
        """Tensors apart from the parameters that change in the training, for checkpoints.

        They are restored in place.
        """
        return {}
