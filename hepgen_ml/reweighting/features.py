"""Inputs of a classifier: observables, momenta and labels of each final state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.analysis.final_states import Layout, Signature, layouts
from hepgen_ml.analysis.observables import ObservableTable, invariant_mass, observables
from hepgen_ml.events.conditions import texts_of
from hepgen_ml.events.sample import EventSample, FloatArray, IntArray
from hepgen_ml.process.conditions import Condition
from hepgen_ml.process.symmetry import CLEAR, EXCHANGE, largest_pull

_COMBINED_UP_TO = 7
"""Largest number of final-state particles for observables of two and three of them."""

_PT_FLOOR = 1e-3  # GeV; below it lie the digits that a file prints

_NOT_KINEMATIC = ("scale", "alpha_qcd")
"""Functions of the kinematics chosen by a generator, whose formula alone separates samples."""


@dataclass(frozen=True)
class Inputs:
    """Events of one final state as inputs of a classifier.

    Attributes
    ----------
    values : (n, k) float32 tensor
        Observables, in the logarithm where they are binned in it.
    labels : (n, d) int64 tensor
        Flavours, helicities and colour connections, if asked for.
    particles : (n, p, 5) float32 tensor
        (px, py, pz, E, mass) of resonances and final-state particles in GeV. The mass is that
        of the record, because one from the momenta would show the digits that a file prints.
    """

    values: Tensor
    labels: Tensor
    particles: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Tensor | slice) -> Inputs:
        return Inputs(self.values[rows], self.labels[rows], self.particles[rows])

    def to(self, device: torch.device) -> Inputs:
        """The same on a device."""
        return Inputs(self.values.to(device), self.labels.to(device), self.particles.to(device))

    @staticmethod
    def join(a: Inputs, b: Inputs) -> Inputs:
        """One after another."""
        return Inputs(
            torch.cat([a.values, b.values]),
            torch.cat([a.labels, b.labels]),
            torch.cat([a.particles, b.particles]),
        )


@dataclass(frozen=True)
class Group:
    """Events of one final state of a sample.

    Attributes
    ----------
    signature : Signature
    index : (n,) int array
        Event numbers in the sample.
    weight : (n,) float array
        Nominal weights as they are in the sample.
    names : tuple of str
        Names of the columns of `Inputs.values`, and of `Inputs.labels` after them; what several
        particles have together by their numbers.
    inputs : Inputs
    odd : tuple of int
        Columns that change sign where beams are exchanged, the rapidity of all particles first.
    """

    signature: Signature
    index: IntArray
    weight: FloatArray
    names: tuple[str, ...]
    inputs: Inputs
    odd: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.index)

    def looks_symmetric(self) -> bool:
        """Whether observables that are odd under exchange of the beams average to zero."""
        values = self.inputs.values[:, list(self.odd)].double()
        return largest_pull(values, torch.from_numpy(self.weight).double()[:, None]) <= CLEAR

    def folded(self) -> Group:
        """Events with a negative rapidity of all particles with their beams exchanged.

        If the exchange is a symmetry, a classifier loses no information, has twice the events in
        each region, and assigns images the same weight. Labels are not changed.
        """
        x = self.inputs
        side = torch.where(x.values[:, self.odd[0]] < 0, -1.0, 1.0)[:, None]
        values, particles = x.values.clone(), x.particles.clone()
        values[:, list(self.odd)] *= side
        turn = torch.where(side[:, :, None] < 0, torch.tensor(EXCHANGE), torch.ones(4))
        particles[..., :4] *= turn
        return replace(self, inputs=replace(x, values=values, particles=particles))


def groups(
    sample: EventSample,
    *,
    full: bool = False,
    conditions: Sequence[Condition] = (),
    trained: Mapping[Signature, Sequence[str]] = MappingProxyType({}),
) -> dict[Signature, Group]:
    """Events by final state, as inputs of classifiers.

    Parameters
    ----------
    sample : EventSample
    full : bool
        Also flavours, helicities, colour connections, scale and coupling. Samples of
        different programs differ in these by convention.
    conditions : sequence of Condition
        Of the user, as further columns.
    trained : mapping of Signature to names, optional
        Of the columns of final states in the training, as far as known.
    """
    texts = texts_of(sample, [c.wanted for c in conditions])
    given = {c.name: c.numbers(texts[:, k]) for k, c in enumerate(conditions)}
    found: dict[Signature, list[Layout]] = {}
    for layout in layouts(sample):
        found.setdefault(layout.signature, []).append(layout)
    result = {}
    for signature, table in observables(sample, discrete=full, names=trained).items():
        particles = torch.cat([_particles(sample, layout) for layout in found[signature]])
        kept = [
            (o, table[o.name])
            for o in table.observables
            if not o.discrete and (full or o.name not in _NOT_KINEMATIC)
        ]
        columns = [np.log(np.maximum(v, 1e-6)) if o.log else v for o, v in kept]
        final = particles[:, len(signature.resonances) :, :4].double().numpy()
        combined = _combined(final, sample.is_reconstructed)
        own = {name: values[table.index] for name, values in given.items()}
        columns.extend([*combined.values(), *own.values()])
        values = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        names = (
            *(o.name for o, _ in kept),
            *combined,
            *own,
            *(o.name for o in table.observables if o.discrete),
        )
        odd = [i for i, (o, _) in enumerate(kept) if o.odd]
        first = [o.name for o, _ in kept].index("y_total")
        result[signature] = Group(
            signature,
            table.index,
            sample.weight[table.index],
            names,
            Inputs(torch.nan_to_num(values, 0.0, 0.0, 0.0), _labels(table), particles),
            (first, *(i for i in odd if i != first)),
        )
    return result


def _particles(sample: EventSample, layout: Layout) -> Tensor:
    rows = layout.rows[:, layout.n_incoming :]
    columns = [sample.particles[c][rows] for c in ("px", "py", "pz", "energy")]
    if "mass" in sample.particles:
        columns.append(sample.mass[rows])
    else:
        columns.append(invariant_mass(*columns))
    return torch.from_numpy(np.stack(columns, axis=-1).astype(np.float32))


def _combined(p: FloatArray, is_reconstructed: bool) -> dict[str, FloatArray]:
    """Columns (n,) of several of the particles p (n, k, 4) together, beside their observables.

    Densities are simple in these observables, which a classifier would otherwise have to combine
    from many: the recoil of a pair, the direction of the missing pT.
    """
    n = p.shape[1]
    found: dict[str, FloatArray] = {}
    if 3 < n <= _COMBINED_UP_TO:
        for three in combinations(range(n), 3):
            total = p[:, three].sum(axis=1)
            found[_name("mass", three)] = np.log(invariant_mass(*total.T))
    # three that balance are back to back with one each
    if (2 if is_reconstructed else 3) < n <= _COMBINED_UP_TO:
        for two in combinations(range(n), 2):
            found[_name("pt", two)] = np.log(_pt(p[:, two].sum(axis=1)))
        found["ht"] = np.log(_pt(p).sum(axis=1))
    if is_reconstructed:  # for partons the missing pT is a rounding error
        phi, missing = (np.arctan2(q[..., 1], q[..., 0]) for q in (p, p.sum(axis=1)))
        for i in range(n):
            found[_name("dphi_total", [i])] = np.abs(np.angle(np.exp(1j * (phi[:, i] - missing))))
    return found


def _pt(p: FloatArray) -> FloatArray:
    pt: FloatArray = np.maximum(np.hypot(p[..., 0], p[..., 1]), _PT_FLOOR)
    return pt


def _name(quantity: str, particles: Iterable[int]) -> str:
    return f"{quantity}[{','.join(map(str, particles))}]"


def _labels(table: ObservableTable) -> Tensor:
    columns = [table[o.name] for o in table.observables if o.discrete]
    if not columns:
        return torch.zeros(len(table), 0, dtype=torch.int64)
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
