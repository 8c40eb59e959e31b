"""Parameters in training, their moving averages, and the best of these so far."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averages:
    """Moving averages of parameters.

    Parameters
    ----------
    parameters : mapping of str to Parameter

    Attributes
    ----------
    average, best : dict of str to tensor
        Of each parameter.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = parameters
        self.average = {name: p.detach().clone() for name, p in parameters.items()}
        self.best = {name: p.clone() for name, p in self.average.items()}

    @torch.no_grad()
    def follow(self, names: Iterable[str], decay: float) -> None:
        """Move the averages of some parameters towards them, by one minus `decay`."""
        names = list(names)
        torch._foreach_lerp_(
            [self.average[name] for name in names],
            [self.parameters[name] for name in names],
            1 - decay,
        )

    def keep(self, names: Iterable[str]) -> None:
        """The averages of some parameters are the best so far."""
        _copy(names, self.average, self.best)

    def go_back(self, names: Iterable[str]) -> None:
        """Some parameters, and their averages, become the best again."""
        _copy(names, self.best, self.average)
        self.finish(names)

    def finish(self, names: Iterable[str]) -> None:
        """Some parameters become their best averages."""
        _copy(names, self.best, self.parameters)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Averages are in place of all parameters meanwhile."""
        current = {name: p.detach().clone() for name, p in self.parameters.items()}
        _copy(current, self.average, self.parameters)
        try:
            yield
        finally:
            _copy(current, current, self.parameters)


@torch.no_grad()
def _copy(
    names: Iterable[str], source: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> None:
    for name in names:
        target[name].copy_(source[name])
