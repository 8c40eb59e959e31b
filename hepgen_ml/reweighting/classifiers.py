"""Classifiers by name: networks and boosted trees behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from hepgen_ml.reweighting import networks, training, trees
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.training import Labelled, Schedule

NetworkName = Literal[
    "trees+mlp", "trees", "mlp", "transformer", "lgatr", "deep-sets", "gatr", "gap"
]
NETWORKS = get_args(NetworkName)

_BOTH = "trees+mlp"
_START, _MOST = (1.0, 0.5), 2.0
"""Default coefficients of trees and perceptron for too few events, and the largest ones. With early
stopping, trees underestimate differences and a perceptron overestimates them."""


class Classifier(Protocol):
    """Classifier between truth and generated events of one final state."""

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (n,) float64 of truth against generated, on the CPU."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors from which `restored` rebuilds the classifier."""
        ...


@dataclass(frozen=True)
class TreesAndMLP:
    """Sum of the logits of boosted trees and a perceptron, with a coefficient each.

    Trees find steep edges, a perceptron smooth correlations; their errors are nearly independent.
    """

    trees: trees.Trees
    mlp: networks.Network
    coefficients: tuple[float, float]

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (n,) float64 of truth against generated, on the CPU."""
        a, b = self.coefficients
        return a * self.trees.logits(inputs) + b * self.mlp.logits(inputs)

    def state_dict(self) -> dict[str, Tensor]:
        """Tensors of both, and the coefficients."""
        parts = {"trees": self.trees.state_dict(), "mlp": self.mlp.state_dict()}
        tensors = {f"{part}.{n}": t for part, some in parts.items() for n, t in some.items()}
        return tensors | {"coefficients": torch.tensor(self.coefficients, dtype=torch.float64)}

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor], device: torch.device | None) -> TreesAndMLP:
        """Both from their `state_dict`."""
        a, b = (float(c) for c in tensors["coefficients"])
        if not (0 <= a <= _MOST and 0 <= b <= _MOST):
            raise ValueError("impossible coefficients of trees and perceptron")
        found, network = (under(tensors, f"{part}.") for part in ("trees", "mlp"))
        return cls(
            trees.Trees.restored(found), networks.restored("mlp", network).to(device or "cpu"),
            (a, b),
        )  # fmt: skip

    @classmethod
    def trained(
        cls,
        events: Labelled,
        schedule: Schedule,
        seed: int,
        device: torch.device,
        progress: Callable[[float], None],
    ) -> tuple[TreesAndMLP, dict[str, float]]:
        """Both one after the other; coefficients from events that decide about stopping only."""
        trees.require_no_negative(events)
        half = replace(schedule, seconds=schedule.seconds / 2)
        order, n = torch.arange(len(events)), training.n_validation(len(events))
        found, about = trees.grow(
            events[order[n:]], half, seed=seed, progress=lambda f: progress(f / 2)
        )
        network, more = _network("mlp", events, half, seed, device, lambda f: progress(0.5 + f / 2))
        kept = events[order[:n]]
        columns = torch.stack([c.logits(kept.inputs) for c in (found, network)], dim=1)
        columns = torch.cat([columns, torch.ones(n, 1, dtype=torch.float64)], dim=1)
        fitted = training.logistic(columns, kept, (*_START, 0.0))
        a, b = fitted[:2].clamp(0.0, _MOST).tolist()  # an offset is left to the calibration
        facts = {"trees": about["trees"], "epochs": more["epochs"]}
        facts |= {"coefficient_of_trees": a, "coefficient_of_mlp": b}
        return cls(found, network, (a, b)), facts


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names begin with a prefix, without it."""
    return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}


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
        With trees: scikit-learn is not installed.
    SampleError
        With trees: weights are negative.
    """
    if name == "trees":
        return trees.grow(events, schedule, seed=seed, progress=progress)
    if name == _BOTH:
        return TreesAndMLP.trained(events, schedule, seed, device, progress)
    return _network(name, events, schedule, seed, device, progress)


def _network(
    name: str,
    events: Labelled,
    schedule: Schedule,
    seed: int,
    device: torch.device,
    progress: Callable[[float], None],
) -> tuple[networks.Network, dict[str, float]]:
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
    if name == _BOTH:
        return TreesAndMLP.restored(tensors, device)
    return networks.restored(name, tensors).to(device or "cpu")
