"""Complete events from the momenta and the choices of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from hepgen_ml.events.helicities import helicities
from hepgen_ml.events.objects import rank_of
from hepgen_ml.events.sample import PARTICLE_COLUMNS, EventSample, RunInfo
from hepgen_ml.phase_space import Chart
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.channels import Subprocess
from hepgen_ml.process.encoded import Discrete, Kinematics
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.lifetime_patterns import draw_patterns
from hepgen_ml.process.lifetimes import draw_lifetimes
from hepgen_ml.process.process import Process

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
    for number, where in by_value(subprocess):
        sub, chosen = process.subprocesses[number], where.numpy()
        rows = offsets[:-1][chosen][:, None] + np.arange(len(sub.structure.pdg_id))
        table = _table(
            process,
            sub,
            kinematics.final[chosen].numpy(),
            kinematics.incoming[chosen].numpy(),
            discrete.pattern[chosen].numpy(),
            process.channels[sub.chart].chart.given(
                None if conditions is None else conditions[where]
            ),
        )
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
    for c, where in by_value(process.channel_of[subprocess]):
        channel = process.channels[c]
        p = channel.chart.made(kinematics.final[where, : len(channel.classes)])
        values_of = channel.auxiliaries.decode(
            kinematics.incoming[where], p, discrete.branch[where], discrete.free[where]
        )
        for name, values in values_of.items():
            events.setdefault(name, np.zeros(len(subprocess)))[where.numpy()] = values
    return events


def _table(
    process: Process,
    sub: Subprocess,
    final: FloatArray,
    incoming: FloatArray,
    pattern: IntArray,
    chart: Chart,
) -> dict[str, npt.NDArray[Any]]:
    """Particle columns (m, n) of events of one subprocess."""
    structure = sub.structure
    n = len(structure.pdg_id)
    p = np.zeros((len(final), n, 4))
    mass = np.zeros((len(final), n))
    if structure.incoming:
        p[:, structure.incoming] = incoming
        mass[:, structure.incoming] = sub.incoming_masses
    p[:, sub.order] = final[:, : len(sub.order)]
    for i, row in enumerate(sub.order):
        spec = chart.fixed_mass(i)
        mass[:, row] = _mass(p[:, row]) if spec is None else spec
    for row in reversed(structure.intermediate):
        p[:, row] = p[:, structure.leaves(row)].sum(1)
        mass[:, row] = _mass(p[:, row])
    discrete = sub.patterns[pattern]
    table: dict[str, npt.NDArray[Any]] = {
        name: np.broadcast_to(np.array(getattr(structure, name)), (len(final), n))
        for name in ("pdg_id", "status", "mother1", "mother2")
    }
    table |= {name: p[..., i] for i, name in enumerate(("px", "py", "pz", "energy"))}
    table |= {
        "mass": mass,
        "color1": discrete[:, 0 : 2 * n : 2],
        "color2": discrete[:, 1 : 2 * n : 2],
        "spin": helicities(discrete[:, 2 * n :]),
    }
    return _as_analyses_do(table) if process.is_reconstructed else table


def _as_analyses_do(table: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Objects of every collection by falling transverse momentum, regardless of charge."""
    pt2 = table["px"] ** 2 + table["py"] ** 2
    order = np.lexsort((-pt2, rank_of(table["pdg_id"])), axis=1)
    return {name: np.take_along_axis(table[name], order, axis=1) for name in _RECONSTRUCTED}


def _mass(p: FloatArray) -> FloatArray:
    size = np.sqrt((p[:, :3] ** 2).sum(1))
    return np.asarray(np.sqrt(np.maximum((p[:, 3] - size) * (p[:, 3] + size), 0.0)))
