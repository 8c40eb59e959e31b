"""What a classifier sees of events: observables, momenta and labels, per final state."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from hepgen_ml.events import EventSample, FloatArray, IntArray
from hepgen_ml.validation.layouts import Layout, Signature, layouts
from hepgen_ml.validation.observables import ObservableTable, invariant_mass, observables

_TRIPLES_UP_TO = 7
"""Final-state particles up to which masses of three of them are computed."""

_NOT_KINEMATIC = ("scale", "alpha_qcd")
"""Functions of the kinematics that a generator chose: samples are told apart by their formula."""


@dataclass(frozen=True)
class Inputs:
    """Events of one final state as a classifier sees them.

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
        Of the columns of `Inputs.values`, and of `Inputs.labels` after them.
    inputs : Inputs
    """

    signature: Signature
    index: IntArray
    weight: FloatArray
    names: tuple[str, ...]
    inputs: Inputs

    def __len__(self) -> int:
        return len(self.index)


def groups(sample: EventSample, *, full: bool = False) -> dict[Signature, Group]:
    """Events by final state, as classifiers see them.

    Parameters
    ----------
    sample : EventSample
    full : bool
        Also flavours, helicities, colour connections, scale and coupling. Samples of
        different programs differ in these by convention.
    """
    found: dict[Signature, list[Layout]] = {}
    for layout in layouts(sample):
        found.setdefault(layout.signature, []).append(layout)
    result = {}
    for signature, table in observables(sample, discrete=full).items():
        particles = torch.cat([_particles(sample, layout) for layout in found[signature]])
        kept = [
            (o, table[o.name])
            for o in table.observables
            if not o.discrete and (full or o.name not in _NOT_KINEMATIC)
        ]
        columns = [np.log(np.maximum(v, 1e-6)) if o.log else v for o, v in kept]
        triples = _triples(particles[:, len(signature.resonances) :, :4])
        values = torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))
        values = torch.cat([values, triples], dim=1)
        names = (
            *(o.name for o, _ in kept),
            *(f"mass[{i}]" for i in range(triples.shape[1])),
            *(o.name for o in table.observables if o.discrete),
        )
        result[signature] = Group(
            signature,
            table.index,
            sample.weight[table.index],
            names,
            Inputs(torch.nan_to_num(values, 0.0, 0.0, 0.0), _labels(table), particles),
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


def _triples(p: Tensor) -> Tensor:
    """Logarithms of the masses of three particles; of pairs they are observables already."""
    n = p.shape[1]
    if not 3 < n <= _TRIPLES_UP_TO:
        return p.new_zeros(len(p), 0)
    sums = [p[:, list(three)].sum(1).double().numpy() for three in combinations(range(n), 3)]
    masses = np.stack([invariant_mass(*total.T) for total in sums], axis=1)
    return torch.from_numpy(np.log(masses).astype(np.float32))


def _labels(table: ObservableTable) -> Tensor:
    columns = [table[o.name] for o in table.observables if o.discrete]
    if not columns:
        return torch.zeros(len(table), 0, dtype=torch.int64)
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.int64))
