"""Task of the trainer for a tagger: its module, events and loss."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from hepgen_ml.classification.inputs import JetTensors
from hepgen_ml.classification.network import JetNetwork, is_last
from hepgen_ml.training.task import Task

_UNEVEN = 3.0
"""Ratio of numbers of jets in classes above which these are drawn equally often."""


class TaggingTask(Task[JetTensors]):
    """Training of a tagger with the cross entropy of classes of equal weight.

    Jets of a class with few of them are drawn more often: with large weights instead, most batches
    would have none, and the gradients of others would be cut.

    Parameters
    ----------
    module : JetNetwork
    train, validation : JetTensors
    rate_before : float
        Learning rate of all layers but the last, in units of that of the last.
    """

    module: JetNetwork
    remedy = "try --set training.learning_rate=1e-3"

    def __init__(
        self,
        module: JetNetwork,
        train: JetTensors,
        validation: JetTensors,
        rate_before: float = 1.0,
    ) -> None:
        super().__init__(module, train, validation)
        self.rate_before = rate_before
        weight = train.weight.double()
        if len(weight) and float(weight.max() / weight.min()) > _UNEVEN:
            self.rate = weight

    def loss(self, part: str, data: JetTensors, rows: Tensor) -> Tensor:
        each = F.cross_entropy(self.module(data, rows), data.label[rows], reduction="none")
        if self.rate is not None and data is self.train:
            return each.mean()
        return (each * data.weight[rows]).mean()

    def learning_rate(self, name: str) -> float:
        return 1.0 if is_last(name) else self.rate_before
