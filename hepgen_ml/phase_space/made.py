"""Particles that a collision makes, some of which decay, and what cuts bound of these."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

OF_DECAYS, OF_COLLISION = " of decays", " of the collision"
"""What is added to a flavour class where particles that decays make have other cuts than those
that the collision makes."""


def base_class(label: str) -> str:
    """Flavour class without its origin."""
    return label.removesuffix(OF_DECAYS).removesuffix(OF_COLLISION)


class Made(NamedTuple):
    """A particle that is made in the collision.

    Attributes
    ----------
    label : str
        Its flavour class; empty if no cut can name it.
    places : tuple of int
        Final-state particles that it becomes: one if it does not decay.
    """

    label: str
    places: tuple[int, ...]

    @property
    def decays(self) -> bool:
        """Whether it becomes several particles."""
        return len(self.places) > 1


def momenta_made(p: Tensor, places: Sequence[tuple[int, ...]]) -> Tensor:
    """Momenta (events, k, 4) of the k particles that final states (events, n, 4) come from."""
    return torch.stack([p[:, list(some)].sum(1) for some in places], dim=1)


def pairs_to_cut(decays: Sequence[bool]) -> list[tuple[int, int]]:
    """Pairs of particles made in a collision that have cuts of their own, as some decay.

    Generators cut on the mass of two particles that decay, such as top quarks, and on two that are
    all of the collision. Other pairs without a decay are pairs of final-state particles.
    """
    pairs = combinations(range(len(decays)), 2)
    enough = 1 if len(decays) == 2 else 2
    return [(i, j) for i, j in pairs if decays[i] + decays[j] >= enough]
