"""Classifiers by name: networks and boosted trees behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from hepgen_ml.reweighting import networks, training, trees
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.training import Labelled, Schedule

NetworkName = Literal["trees", "mlp", "transformer", "lgatr"]
NETWORKS = get_args(NetworkName)


class Classifier(Protocol):
    """Tells truth from generated events of one final state."""

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (n,) float64 of truth against generated, on the CPU."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """All that `restored` needs, as tensors."""
        ...


def trained(
    name: NetworkName,
    events: Labelled,
    schedule: Schedule,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[Classifier, dict[str, float]]:
    """Classifier of events in random order, and facts of its training.

    Raises
    ------
    UsageError
        For trees: scikit-learn is not installed.
    SampleError
        For trees: weights are negative.
    """
    if name == "trees":
        return trees.grow(events, schedule, seed=seed, progress=progress)
    labels, inputs = events.inputs.labels, events.inputs
    categories = [torch.unique(labels[:, i]) for i in range(labels.shape[1])]
    network = networks.build(name, inputs.values.shape[1], categories, inputs.particles.shape[1])
    network.to(device)
    return network, training.train(network, events, schedule, seed=seed, progress=progress)


def restored(
    name: str, tensors: Mapping[str, Tensor], device: torch.device | None = None
) -> Classifier:
    """Classifier from its `state_dict`.

    Raises
    ------
    KeyError, ValueError, RuntimeError
        The tensors are not those of such a classifier.
    """
    if name == "trees":
        return trees.Trees.restored(tensors)
    return networks.restored(name, tensors).to(device or "cpu")
