"""Extreme transverse momenta of the leading particles of a class, and of pairs without colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.phase_space.coordinates import pseudorapidity, transverse_momentum
from hepgen_ml.phase_space.edges import Values
from hepgen_ml.phase_space.leading import LEADING, MOST, SEARCHED, members, ordered
from hepgen_ml.phase_space.made import base_class
from hepgen_ml.phase_space.observables import JETS, Key
from hepgen_ml.phase_space.smallest import Indices, Seen

Labels = npt.NDArray[np.str_]
"""Flavour classes (k, n) of the particles in k groups of events."""


def rows_of(table: Sequence[Values], at: Indices) -> list[Values]:
    """Values of several observables at some places."""
    return [values[at] for values in table]


def add_leading(
    memory: dict[Key, Seen], p: Tensor, labels: Labels, sizes: Indices, two: bool
) -> None:
    """Take in transverse momenta of the leading particles (events, n, 4) of each class.

    `labels` (k, n) are those of k groups of events of these sizes. Two particles that
    balance have the same, which is a bound and no entry.
    """
    pt, each = transverse_momentum(p), np.repeat(np.arange(len(labels)), sizes)
    flavours = np.array([[base_class(name) for name in row] for row in labels.tolist()])
    for label in SEARCHED:
        inside = np.isin(flavours, list(members(label)))
        counts = inside.sum(1)
        if not counts.max(initial=0):
            continue
        values, where = ordered(pt, inside[each])
        largest = values.numpy()
        eta = pseudorapidity(torch.gather(p, 1, where[..., None].expand(*where.shape, 4)))
        chosen = torch.from_numpy(inside[each])
        whole = transverse_momentum(torch.where(chosen[..., None], p, 0.0).sum(1)).numpy()
        least = torch.where(chosen, pt, math.inf).amin(1).numpy()
        for rank in range(min(int(counts.max()), MOST)):
            seen = memory.setdefault((LEADING[rank], (label,)), Seen())
            has = np.flatnonzero(counts[each] > rank)
            seen.contents |= {tuple(sorted(row)) for row in labels[counts > rank].tolist()}
            seen.threshold = min(seen.threshold, float(least[has].min()))
            if two:
                seen.note_decays(largest[has, rank].min(), largest[has, rank].max())
                continue
            # where momenta balance, a large first one makes an edge of the second
            table = [eta[:, rank].abs().numpy(), largest[:, rank + 1], whole]
            table += [largest[:, rank - 1]] if rank else []
            seen.take_in(LEADING[rank], largest[:, rank], has, partial(rows_of, table))


def add_pair_momenta(
    memory: dict[Key, Seen],
    p: Tensor,
    names: Sequence[str],
    codes: Indices,
    sizes: Indices,
    decays: npt.NDArray[np.bool_],
    balanced: bool,
) -> None:
    """Take in the transverse momenta of pairs of leptons, photons and other particles but jets.

    `codes` (k, n) are places among the names of classes in k groups of events of these sizes, and
    `decays` (k, pairs) says which pairs a resonance becomes.
    """
    columns = np.array(list(combinations(range(p.shape[1]), 2)), dtype=int).reshape(-1, 2)
    ends = np.sort(codes[:, columns], axis=2)
    uncolored = np.array([base_class(name) not in (*JETS, "Jet") for name in names])
    code_of = np.where(uncolored[ends].all(2), ends[..., 0] * len(names) + ends[..., 1], -1)
    each = np.repeat(np.arange(len(codes)), sizes)
    for code in np.unique(code_of[code_of >= 0]).tolist():
        chosen = code_of == code
        event, column = np.nonzero(chosen[each])
        one, other = (p[event, columns[column, k]] for k in (0, 1))
        pt = [transverse_momentum(q) for q in (one, other)]
        gap = (pseudorapidity(one) - pseudorapidity(other)).abs()
        others = [torch.minimum(*pt), torch.maximum(*pt), gap]
        classes = names[code // len(names)], names[code % len(names)]
        seen = memory.setdefault(("pt_pair", classes), Seen())
        seen.named &= bool(decays[chosen].all())
        seen.alone &= balanced and p.shape[1] <= 3
        values, table = transverse_momentum(one + other).numpy(), [v.numpy() for v in others]
        seen.take_in("pt_pair", values, np.arange(len(values)), partial(rows_of, table))
