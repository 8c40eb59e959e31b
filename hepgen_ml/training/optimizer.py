"""Groups of parameters for an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from hepgen_ml.networks.bayesian import variational_layers

_WIDTH_RATE = 10.0
"""Learning rate of the logarithms of posterior variances relative to that of weights: they change
by several units while weights change by tenths."""


def parameter_groups(
    module: nn.Module,
    parts: Mapping[str, Iterable[str]],
    decay: float,
    learning_rate: Callable[[str], float],
) -> list[dict[str, Any]]:
    """Groups of an optimiser, each with the name of its ``part`` and a factor ``rate``.

    Weight decay is for matrices only, and not for weights with a prior.

    Parameters
    ----------
    module : torch.nn.Module
    parts : mapping of str to iterable of str
        Names of the parameters of each part.
    decay : float
    learning_rate : callable
        Factor to the learning rate of a parameter, by its name.
    """
    parameters = dict(module.named_parameters())
    layers = variational_layers(module)
    prior = {id(p) for layer in layers for p in layer.parameters()}
    widths = {id(layer.log_variance) for layer in layers}
    groups: dict[Any, dict[str, Any]] = {}
    for part, names in parts.items():
        for name in names:
            p = parameters[name]
            matrix = p.ndim >= 2 and "bias" not in name and id(p) not in prior
            rate = learning_rate(name) * (_WIDTH_RATE if id(p) in widths else 1.0)
            settings = {"part": part, "weight_decay": decay if matrix else 0.0, "rate": rate}
            group = groups.setdefault(tuple(settings.values()), {"params": [], **settings})
            group["params"].append(p)
    return list(groups.values())
