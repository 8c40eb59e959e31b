"""Principal components of the weights that vary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_MOST, _MOST_SETS = 64, 8
"""Largest numbers of components of a set of weights, and of such sets."""

_ABSOLUTE, _RELATIVE = 1e-4, 3e-3
"""Largest residual of each logarithm after the components: absolute, or relative to its spread."""

_EVENTS = 50_000


@dataclass(frozen=True)
class Components:
    """Components of K' weights in m events.

    Attributes
    ----------
    centre, rest : (K',) tensors
        Means and residuals of what is learned of the weights.
    loadings : (P, K') tensor
    u : (m, P) float32 tensor
        Coefficients, of unit variance in the events that have them.
    varies : (m, P) bool tensor
        Which events have a coefficient: those of subprocesses in which one of its weights varies.
        Weights that are the same in all events of a subprocess are exact there by themselves.
    """

    centre: Tensor
    rest: Tensor
    loadings: Tensor
    u: Tensor
    varies: Tensor


def components_by_subprocess(
    target: Tensor, subprocess: Tensor, varies: Tensor, seed: int
) -> Components:
    """Components, separate for weights that vary in different subprocesses.

    An interference that only quark-antiquark pairs have is thus described by these events alone.

    Parameters
    ----------
    target : (m, K') tensor
        What is learned of the weights.
    subprocess : (m,) int64 tensor
    varies : (S, K') bool tensor
        Whether each weight varies within each subprocess.
    seed : int
        Of the choice of events, if there are many.
    """
    m, n = target.shape
    sets = torch.unique(varies, dim=1, return_inverse=True)[1] if n else torch.zeros(0).long()
    centre, rest = torch.zeros(n).double(), torch.zeros(n).double()
    loadings, u, has = [], [], []
    by_size = torch.argsort(torch.bincount(sets), descending=True, stable=True).tolist()
    for chosen in [*by_size[: _MOST_SETS - 1], by_size[_MOST_SETS - 1 :]]:
        columns = torch.nonzero(torch.isin(sets, torch.tensor(chosen))).squeeze(-1)
        if not len(columns):
            continue
        events = varies[:, columns].any(1)[subprocess]
        rows = torch.nonzero(events).squeeze(-1)
        if not len(rows):  # the same in all events of each subprocess, where it is exact
            centre[columns] = target[:, columns].mean(0)
            rest[columns] = target[:, columns].std(0, unbiased=False)
            continue
        of_set = target[rows][:, columns]
        for k, column in enumerate(columns.tolist()):  # only where sets were put together
            same = ~varies[subprocess[rows], column]
            if bool(same.any()):
                of_set[same, k] = of_set[same if bool(same.all()) else ~same, k].mean()
        centre[columns], part, rest[columns], coefficients = _components(of_set, seed)
        whole = torch.zeros(len(part), n).double()
        whole[:, columns] = part
        all_u = torch.zeros(m, len(part))
        all_u[rows] = coefficients
        loadings.append(whole)
        u.append(all_u)
        has.append(events[:, None].expand(m, len(part)))
    if not loadings:
        return Components(centre, rest, torch.zeros(0, n).double(), *torch.zeros(2, m, 0))
    return Components(centre, rest, torch.cat(loadings), torch.cat(u, 1), torch.cat(has, 1))


def _components(target: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centre (K'), loadings (P, K'), residuals (K') and coefficients (m, P) of unit variance.

    Weights are scaled by the square root of their spread, so that small variations matter beside
    large ones.
    """
    m, n = target.shape
    centre = target.mean(0)
    order = np.random.default_rng(seed).permutation(m)[:_EVENTS]
    some = target[torch.from_numpy(order)] - centre
    spread = torch.sqrt((some**2).mean(0)).clamp_min(1e-12)
    scale = torch.sqrt(spread)
    covariance = (some / scale).T @ (some / scale) / len(some)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    explained = torch.cumsum(values[:, None] * vectors.T**2, 0) * scale**2
    left = torch.sqrt((spread**2 - explained).clamp_min(0))
    enough = (left <= torch.maximum(_RELATIVE * spread, torch.tensor(_ABSOLUTE))).all(1)
    first = int(torch.nonzero(enough)[0]) if bool(enough.any()) else n - 1
    p = min(first + 1, _MOST, n)
    size = torch.sqrt(values[:p]).clamp_min(1e-12)
    loadings = (size * vectors[:, :p]).T * scale
    u = ((target - centre) / scale) @ (vectors[:, :p] / size)
    return centre, loadings, left[p - 1], u.float()
