"""Observables of parton-level events, computed per final state."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.analysis.final_states import (
    JET,
    Layout,
    Signature,
    color_partners,
    latex_of,
    layouts,
    name_of,
)
from hepgen_ml.events.sample import EventSample, FloatArray, IntArray

_PT_FLOOR = 1e-3  # GeV; below it lies the rounding noise of particles along the beam
_RAPIDITY_DIGITS = 6
"""Decimal places of rapidities. With fixed beam energies the total rapidity is zero up to rounding,
and the last bits of a program would separate samples of the same physics."""


@dataclass(frozen=True)
class Observable:
    """One column: its name, how to label it and how to bin it.

    Attributes
    ----------
    name : str
        Plain text, for instance ``pt(t)`` or ``mass(t,j1)``.
    label : str
        In mathtext, without dollar signs and without the unit.
    unit : str
        ``GeV`` or empty.
    log : bool
        Bins are uniform in the logarithm.
    limits : (low, high) or None
        Natural range, where there is one.
    discrete : bool
        A label (flavour, helicity, colour connection), not a kinematic quantity.
    user : bool
        From a function of the user's.
    odd : bool
        Changes sign where beams are exchanged (`hepgen_ml.process.symmetry.EXCHANGE`).
    """

    name: str
    label: str
    unit: str = ""
    log: bool = False
    limits: tuple[float, float] | None = None
    discrete: bool = False
    user: bool = False
    odd: bool = False

    @property
    def axis_label(self) -> str:
        """Label with unit, ready for an axis."""
        return f"${self.label}$" + (f" [{self.unit}]" if self.unit else "")


_Column = tuple[Observable, FloatArray]


@dataclass(frozen=True)
class ObservableTable:
    """Observables of the events of one group.

    Attributes
    ----------
    signature : Signature
    index : (n,) int array
        Event numbers in the sample, from 0.
    observables : tuple of Observable
        Descriptions of the columns.
    values : (n, k) float32 array
        In single precision, because columns that are constant up to rounding (back-to-back
        particles, a fixed beam energy) must not separate samples by the digits that a file prints.
    weight : (n,) float array
        Event weights, scaled to mean 1 (left alone if they sum to zero).
    """

    signature: Signature
    index: IntArray
    observables: tuple[Observable, ...]
    values: npt.NDArray[np.float32]
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        return self.values[:, [o.name for o in self.observables].index(name)]

    def take(self, rows: slice | npt.ArrayLike) -> ObservableTable:
        """Table of some of the events."""
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        return ObservableTable(
            self.signature,
            self.index[chosen],
            self.observables,
            self.values[chosen],
            self.weight[chosen],
        )

    def kinematics(self) -> ObservableTable:
        """Table without the discrete columns."""
        kept = [i for i, o in enumerate(self.observables) if not o.discrete]
        shown = tuple(self.observables[i] for i in kept)
        return replace(self, observables=shown, values=self.values[:, kept])


def observables(
    sample: EventSample,
    *,
    at_least: int = 1,
    discrete: bool = False,
    names: Mapping[Signature, Collection[str]] = MappingProxyType({}),
) -> dict[Signature, ObservableTable]:
    """Observables of every group of a sample.

    Transverse momentum, pseudorapidity, rapidity (massive particles) of every
    final-state particle; invariant mass, Delta R (from pseudorapidities) and
    |Delta phi| of every pair; mass, transverse momentum and rapidity of every
    resonance; mass and rapidity of the whole final state, the azimuth of its
    first particle; scale and alpha_QCD where the sample has them. For reconstructed
    objects also the masses of jets and the transverse momentum of all together.

    Parameters
    ----------
    sample : EventSample
    at_least : int
        Leave out groups with fewer events.
    discrete : bool
        Also flavours of all jets and incoming partons, helicities and colour
        connections (columns of small integers), for a classifier that tests their correlation with
        the kinematics.
    names : mapping of Signature to names, optional
        Of the observables of a final state in another sample: particles have a rapidity if they
        have one there, and not if half of those of this sample are massive.

    Returns
    -------
    dict of Signature to ObservableTable
        The largest group first.
    """
    found: dict[Signature, list[ObservableTable]] = {}
    for layout in layouts(sample):
        # the same final state with other incoming particle counts is the same group
        found.setdefault(layout.signature, []).append(
            _table(sample, layout, discrete, names.get(layout.signature))
        )
    tables = [t[0] if len(t) == 1 else _join(t) for t in found.values()]
    tables.sort(key=lambda t: -len(t))
    return {t.signature: t for t in tables if len(t) >= at_least}


def _join(tables: list[ObservableTable]) -> ObservableTable:
    shared = [o for o in tables[0].observables if all(o in t.observables for t in tables)]
    return ObservableTable(
        tables[0].signature,
        np.concatenate([t.index for t in tables]),
        tuple(shared),
        np.concatenate([np.stack([t[o.name] for o in shared], axis=1) for t in tables]),
        np.concatenate([t.weight for t in tables]),
    )


def _table(
    sample: EventSample, layout: Layout, discrete: bool, names: Collection[str] | None
) -> ObservableTable:
    """Columns of one layout; the momentum array is (n, m, 4)."""
    columns = [*_of_final(sample, layout, names), *_of_resonances(sample, layout)]
    if "scale" in sample.events:
        scale = np.maximum(sample.scale[layout.index], _PT_FLOOR)
        columns.append((Observable("scale", r"\mu", "GeV", log=True), scale))
    if "alpha_qcd" in sample.events:
        alpha = sample.alpha_qcd[layout.index]
        columns.append((Observable("alpha_qcd", r"\alpha_{s}"), alpha))
    if discrete:
        for name, values in _discrete(sample, layout):
            columns.append((Observable(name, name, discrete=True), values))

    weight = sample.events["weight"]
    mean = float(weight.mean()) if len(weight) else 0.0
    return ObservableTable(
        layout.signature,
        layout.index,
        tuple(o for o, _ in columns),
        np.stack([v for _, v in columns], axis=1).astype(np.float32),
        weight[layout.index] / mean if mean else weight[layout.index],
    )


def _of_final(sample: EventSample, layout: Layout, known: Collection[str] | None) -> list[_Column]:
    """Observables of the final particles or objects, alone, in pairs and together."""
    columns: list[_Column] = []

    def add(name: str, label: str, values: FloatArray, unit: str = "", **options: Any) -> None:
        columns.append((Observable(name, label, unit, **options), values))

    final = layout.rows[:, layout.n_incoming + layout.n_resonances :]
    names, labels = _labels(layout.signature.final)
    px, py, pz, e = (sample.particles[c][final] for c in ("px", "py", "pz", "energy"))
    pt = np.maximum(np.hypot(px, py), _PT_FLOOR)
    eta, phi = np.arcsinh(pz / pt), np.arctan2(py, px)
    for i, (name, label) in enumerate(zip(names, labels, strict=True)):
        add(f"pt({name})", rf"p_{{\mathrm{{T}}}}({label})", pt[:, i], "GeV", log=True)
        add(f"eta({name})", rf"\eta({label})", eta[:, i], odd=True)
        massive = "mass" in sample.particles and (
            np.median(sample.mass[final[:, i]]) > 1e-3 if known is None else f"y({name})" in known
        )
        if massive:
            add(f"y({name})", rf"y({label})", _rapidity(pz[:, i], e[:, i]), odd=True)
    for i, j in combinations(range(len(names)), 2):
        name, label = f"({names[i]},{names[j]})", rf"({labels[i]},{labels[j]})"
        dphi = np.abs((phi[:, i] - phi[:, j] + np.pi) % (2 * np.pi) - np.pi)
        pair = [i, j]
        mass = invariant_mass(*(c[:, pair].sum(axis=1) for c in (px, py, pz, e)))
        add("mass" + name, r"m" + label, mass, "GeV", log=True)
        add("dr" + name, r"\Delta R" + label, np.hypot(eta[:, i] - eta[:, j], dphi))
        add("dphi" + name, r"|\Delta\phi" + label + "|", dphi, limits=(0.0, float(np.pi)))

    if sample.is_reconstructed:
        for i, c in enumerate(layout.signature.final):
            if c == JET:
                mass = np.maximum(sample.mass[final[:, i]], 0.05)
                add(f"mass({names[i]})", rf"m({labels[i]})", mass, "GeV", log=True)

    total = tuple(c.sum(axis=1) for c in (px, py, pz, e))
    if sample.is_reconstructed:
        imbalance = np.maximum(np.hypot(total[0], total[1]), _PT_FLOOR)
        add("pt_total", r"|\Sigma\,\vec{p}_\mathrm{T}|", imbalance, "GeV", log=True)
    if len(names) != 2:  # else it is the mass of the pair
        add("sqrt_s_hat", r"\sqrt{\hat{s}}", invariant_mass(*total), "GeV", log=True)
    add("y_total", r"y_{\mathrm{total}}", _rapidity(total[2], total[3]), odd=True)
    around = (-float(np.pi), float(np.pi))
    add(f"phi({names[0]})", rf"\phi({labels[0]})", phi[:, 0], limits=around, odd=True)
    return columns


def _of_resonances(sample: EventSample, layout: Layout) -> Iterator[_Column]:
    """Mass, transverse momentum and rapidity of each recorded resonance."""
    rows = layout.rows[:, layout.n_incoming : layout.n_incoming + layout.n_resonances]
    for row, name, label in zip(rows.T, *_labels(layout.signature.resonances), strict=True):
        q = [sample.particles[c][row] for c in ("px", "py", "pz", "energy")]
        name, label = f"({name}*)", f"({label})"
        yield Observable("mass" + name, "m" + label, "GeV"), invariant_mass(*q)
        pt = np.maximum(np.hypot(*q[:2]), _PT_FLOOR)
        yield Observable("pt" + name, r"p_{\mathrm{T}}" + label, "GeV", log=True), pt
        yield Observable("y" + name, "y" + label, odd=True), _rapidity(q[2], q[3])


def _discrete(sample: EventSample, layout: Layout) -> Iterator[tuple[str, FloatArray]]:
    p, rows = sample.particles, layout.rows
    jets = [
        layout.n_incoming + layout.n_resonances + i
        for i, c in enumerate(layout.signature.final)
        if c == JET
    ]
    for i in [*range(layout.n_incoming), *jets]:
        yield f"pdg_id[{i}]", p["pdg_id"][rows[:, i]].astype(float)
    if "spin" in p:
        for i in range(rows.shape[1]):
            yield f"spin[{i}]", p["spin"][rows[:, i]]
    if "color1" in p and "color2" in p:
        partners = color_partners(sample, rows)
        for i in range(rows.shape[1]):
            for side in (0, 1):
                yield f"color{side + 1}[{i}]", partners[:, i, side].astype(float)


def _labels(classes: Sequence[int]) -> tuple[list[str], list[str]]:
    """Names and labels of particles, with numbers if a class occurs more than once."""
    names, labels = [], []
    for i, c in enumerate(classes):
        number = f"{list(classes[: i + 1]).count(c)}" if list(classes).count(c) > 1 else ""
        names.append(name_of(c) + number)
        labels.append(latex_of(c) + (f"_{{{number}}}" if number else ""))
    return names, labels


def invariant_mass(px: FloatArray, py: FloatArray, pz: FloatArray, e: FloatArray) -> FloatArray:
    """Masses (n,) in GeV of momenta with components (n,), no smaller than 1 MeV."""
    # (E - |p|)(E + |p|) loses fewer digits than E^2 - p^2
    p = np.sqrt(px**2 + py**2 + pz**2)
    mass: FloatArray = np.sqrt(np.maximum((e - p) * (e + p), 1e-6))
    return mass


def _rapidity(pz: FloatArray, e: FloatArray) -> FloatArray:
    # arctanh(p_z / E) kept finite for massless particles along the beam
    ratio = np.clip(pz / np.maximum(e, 1e-12), -1 + 1e-15, 1 - 1e-15)
    rapidity: FloatArray = np.arctanh(ratio).round(_RAPIDITY_DIGITS) + 0.0  # no -0
    return rapidity
