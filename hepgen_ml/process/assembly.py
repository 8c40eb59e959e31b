"""Complete events from the momenta and the choices of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.events.helicities import helicities
from hepgen_ml.events.objects import rank_of
from hepgen_ml.events.sample import PARTICLE_COLUMNS, EventSample, RunInfo
from hepgen_ml.process.encoded import Discrete, Kinematics
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.lifetime_patterns import draw_patterns
from hepgen_ml.process.lifetimes import draw_lifetimes
from hepgen_ml.process.process import Process
from hepgen_ml.process.records import Topology

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_RECONSTRUCTED = ("pdg_id", "px", "py", "pz", "energy", "mass")


def assemble(
    process: Process, kinematics: Kinematics, subprocess: Tensor, discrete: Discrete, run: RunInfo
) -> EventSample:
    """Events from momenta, subprocess and discrete properties.

    Parameters
    ----------
    process : Process
    kinematics : Kinematics
    subprocess : (m,) int64 tensor
        With the user's conditions if there are any: labels, see `hepgen_ml.process.labels`.
    discrete : Discrete
    run : RunInfo
        Of the result.

    Returns
    -------
    EventSample
        Unit weights; the order of the input is kept.
    """
    conditions, subprocess = values_of(subprocess), which(subprocess)
    numbers = subprocess.numpy()
    lengths = np.array([len(s.structure.pdg_id) for s in process.subprocesses])
    offsets = np.concatenate([[0], np.cumsum(lengths[numbers])])
    names = _RECONSTRUCTED if process.is_reconstructed else PARTICLE_COLUMNS
    columns = {name: np.zeros(offsets[-1], dtype=PARTICLE_COLUMNS[name]) for name in names}
    masses = _masses_at_conditions(process, subprocess, conditions)
    for topology, chosen, place in process.records.of(numbers):
        rows = offsets[:-1][chosen][:, None] + np.arange(topology.pdg_id.shape[1])
        table = _table(
            topology,
            place,
            kinematics.final[chosen].numpy(),
            kinematics.incoming[chosen].numpy(),
            discrete.pattern[chosen].numpy(),
            None if masses is None else masses[chosen],
        )
        if process.is_reconstructed:
            table = _as_analyses_do(table)
        for name, values in table.items():
            columns[name][rows] = values
    events: dict[str, npt.NDArray[Any]] = {"weight": np.ones(len(numbers))}
    if not process.is_reconstructed:
        ids = np.array([s.structure.process_id for s in process.subprocesses])
        events = {"process_id": ids[numbers], **events}
        events |= scales_and_couplings(process, kinematics, subprocess, discrete)
    attributes = {}
    if process.conditions is not None and conditions is not None:
        attributes = process.conditions.attributes(conditions.numpy())
    return EventSample(run, offsets, columns, events, attributes=attributes)


def add_lifetimes(
    process: Process, events: EventSample, labels: Tensor, rng: np.random.Generator
) -> None:
    """Put lifetimes into assembled events, with labels of their subprocesses and conditions."""
    drawn, conditions = None, values_of(labels)
    if process.lifetime_patterns:
        drawn = draw_patterns(
            process.lifetime_patterns, {(v.pdg_id, v.status) for v in process.lifetimes},
            [s.structure for s in process.subprocesses], events, which(labels).numpy(), rng,
        )  # fmt: skip
    values = None if conditions is None else conditions.numpy()
    draw_lifetimes(process.lifetimes, events, rng, values, drawn)


def scales_and_couplings(
    process: Process, kinematics: Kinematics, subprocess: Tensor, discrete: Discrete
) -> dict[str, FloatArray]:
    """Scale and couplings (m,) of events, by the names of their columns."""
    events: dict[str, FloatArray] = {}
    for channel, where in process.groups.of_made(process.channel_of[subprocess]):
        p = channel.chart.made(kinematics.final[where, : len(channel.classes)])
        values_of = channel.auxiliaries.decode(
            kinematics.incoming[where], p, discrete.branch[where], discrete.free[where]
        )
        for name, values in values_of.items():
            events.setdefault(name, np.zeros(len(subprocess)))[where.numpy()] = values
    return events


def _masses_at_conditions(
    process: Process, subprocess: Tensor, conditions: Tensor | None
) -> FloatArray | None:
    """Masses (m, n) of final particles that follow the conditions (m, K), nan where none does."""
    moving = [c for c, channel in enumerate(process.channels) if channel.chart.follows_conditions]
    if conditions is None or not moving:
        return None
    masses = np.full((len(subprocess), process.n_final), np.nan)
    channel_of = process.channel_of[subprocess]
    for c in moving:
        rows = torch.nonzero(channel_of == c).squeeze(-1)
        chart = process.channels[c].chart.given(conditions[rows])
        for i in range(len(process.channels[c].classes)):
            mass = chart.fixed_mass(i)
            masses[rows.numpy(), i] = np.nan if mass is None else mass
    return masses


def _table(
    topology: Topology,
    place: IntArray,
    final: FloatArray,
    incoming: FloatArray,
    pattern: IntArray,
    moving: FloatArray | None,
) -> dict[str, npt.NDArray[Any]]:
    """Particle columns (m, n) of events of one topology, see `Records.of`.

    Masses (m, n) that follow conditions, nan for others, replace those of the subprocesses.
    """
    structure, order = topology.structure, topology.order[place]
    m, n = len(final), topology.pdg_id.shape[1]
    event = np.arange(m)
    p = np.zeros((m, n, 4))
    mass = np.zeros((m, n))
    if structure.incoming:
        p[:, structure.incoming] = incoming
        mass[:, structure.incoming] = topology.incoming_masses[place]
    p[event[:, None], order] = final[:, : order.shape[1]]
    fixed = topology.masses[place]
    if moving is not None:
        moving = moving[:, : order.shape[1]]
        fixed = np.where(np.isnan(moving), fixed, moving)
    for i, row in enumerate(order.T):
        own = fixed[:, i]
        varies = np.isnan(own)
        mass[event, row] = np.where(varies, _mass(final[:, i]), own) if varies.any() else own
    for row in reversed(structure.intermediate):
        p[:, row] = p[:, structure.leaves(row)].sum(1)
        mass[:, row] = _mass(p[:, row])
    discrete = topology.patterns[topology.first[place] + pattern]
    table: dict[str, npt.NDArray[Any]] = {"pdg_id": topology.pdg_id[place]}
    table |= {
        name: np.broadcast_to(np.array(getattr(structure, name)), (m, n))
        for name in ("status", "mother1", "mother2")
    }
    table |= {name: p[..., i] for i, name in enumerate(("px", "py", "pz", "energy"))}
    return table | {
        "mass": mass,
        "color1": discrete[:, 0 : 2 * n : 2],
        "color2": discrete[:, 1 : 2 * n : 2],
        "spin": helicities(discrete[:, 2 * n :]),
    }


def _as_analyses_do(table: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Objects of every collection by falling transverse momentum, regardless of charge."""
    pt2 = table["px"] ** 2 + table["py"] ** 2
    order = np.lexsort((-pt2, rank_of(table["pdg_id"])), axis=1)
    return {name: np.take_along_axis(table[name], order, axis=1) for name in _RECONSTRUCTED}


def _mass(p: FloatArray) -> FloatArray:
    size = np.sqrt((p[:, :3] ** 2).sum(1))
    return np.asarray(np.sqrt(np.maximum((p[:, 3] - size) * (p[:, 3] + size), 0.0)))
