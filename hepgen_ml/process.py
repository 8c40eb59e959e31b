"""Process: everything about a sample's physics that is known without a network.

Subprocesses with their frequencies, masses, statuses, colour flows and
helicities, the cuts and the rules for scale and couplings; and the translation
between events and the coordinates that a density model learns. It is learned
from a sample (`hepgen_ml.process_learning`), never written by hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.auxiliary import AUXILIARY, Auxiliaries
from hepgen_ml.errors import SampleError
from hepgen_ml.events import PARTICLE_COLUMNS, EventSample, RunInfo
from hepgen_ml.phase_space import Acceptance, Chart, Coordinate, chart_from_config
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.structure import Structure, patterns, tables
from hepgen_ml.tensors import Discrete, Encoded, Kinematics, final_momenta, pair_invariants

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Subprocess:
    """An assignment of flavours with all that is fixed for it.

    Attributes
    ----------
    structure : Structure
    frequency : float
        Fraction of the sample.
    chart : int
        Index of its channel in the process.
    order : tuple of int
        Rows of the final-state particles in the order of the chart.
    incoming_masses : (float, float)
        In GeV.
    patterns : (k, 3n) int32 array
        Colour flows and helicities that occur, see `hepgen_ml.structure.patterns`.
    pattern_frequency : (k,) float array
        Their fractions within the subprocess.
    """

    structure: Structure
    frequency: float
    chart: int
    order: tuple[int, ...]
    incoming_masses: tuple[float, float]
    patterns: npt.NDArray[np.int32]
    pattern_frequency: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """Subprocesses that share a chart: the same masses, classes and cuts.

    Attributes
    ----------
    chart : Chart
    auxiliaries : Auxiliaries
    classes : tuple of str
        Flavour classes of the particles, in the order of the chart.
    """

    chart: Chart
    auxiliaries: Auxiliaries
    classes: tuple[str, ...]

    @cached_property
    def coordinates(self) -> tuple[Coordinate, ...]:
        """Coordinates that a density learns: those of the chart but the cyclic one."""
        return tuple(c for c in self.chart.coordinates if not c.cyclic)

    @cached_property
    def cyclic(self) -> int | None:
        """Column of the chart's cyclic coordinate."""
        return next((i for i, c in enumerate(self.chart.coordinates) if c.cyclic), None)

    def join(self, x: Tensor, phi: Tensor) -> Tensor:
        """Coordinates of the chart (m, D) from learned ones and the cyclic angle (m,)."""
        n, i = self.chart.n_coordinates, self.cyclic
        if i is None:
            return x[:, :n]
        return torch.cat([x[:, :i], phi.unsqueeze(-1), x[:, i : n - 1]], dim=-1)


@dataclass
class Process:
    """Physics of a sample.

    Attributes
    ----------
    subprocesses : list of Subprocess
    channels : list of Channel
    acceptance : Acceptance
    beam_energy : (float, float)
        Upper bound of the incoming partons' energies, GeV.
    """

    subprocesses: list[Subprocess]
    channels: list[Channel]
    acceptance: Acceptance
    beam_energy: tuple[float, float]
    _index: dict[Structure, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._index = {s.structure: i for i, s in enumerate(self.subprocesses)}

    @cached_property
    def n_coordinates(self) -> int:
        """Largest number of learned coordinates."""
        return max(len(c.coordinates) for c in self.channels)

    @cached_property
    def n_invariants(self) -> int:
        """Largest number of pair invariants."""
        return max(math.comb(len(c.classes) + 2, 2) for c in self.channels)

    @cached_property
    def n_final(self) -> int:
        """Largest number of final-state particles."""
        return max(len(c.classes) for c in self.channels)

    @cached_property
    def channel_of(self) -> Tensor:
        """(S,) channel of each subprocess."""
        return torch.tensor([s.chart for s in self.subprocesses])

    @cached_property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """(S,) fractions of the subprocesses, summing to one."""
        f = np.array([s.frequency for s in self.subprocesses])
        return np.asarray(f / f.sum())

    def encode(self, sample: EventSample) -> Encoded:
        """Translate events into tensors.

        Events whose structure or pattern is not part of the process are left
        out; `Encoded.event` tells which remain.
        """
        parts = []
        for structure, events, table in tables(sample):
            number = self._index.get(structure)
            if number is None:
                continue
            sub = self.subprocesses[number]
            channel = self.channels[sub.chart]
            final = final_momenta(table, sub.order)
            chart_x = channel.chart.forward(final)
            keep = [i for i in range(chart_x.shape[1]) if i != channel.cyclic]
            values = {n: sample.events[n][events] for n in AUXILIARY if n in sample.events}
            x = chart_x[:, keep]
            pattern = _pattern_numbers(patterns(table), sub.patterns)
            incoming = final_momenta(table, structure.incoming)
            branch, free = channel.auxiliaries.encode(incoming, final, values)
            good = torch.isfinite(x).all(1) & torch.isfinite(free).all(1)
            good &= (pattern >= 0) & (branch >= 0)
            part = Encoded(
                _padded(x, self.n_coordinates),
                torch.full((len(x),), number),
                pattern,
                branch,
                free,
                torch.as_tensor(sample.weight[events]),
                _padded(pair_invariants(incoming, final), self.n_invariants),
                torch.as_tensor(events),
            )
            parts.append(part[good])
        if not parts:
            raise SampleError(
                "no event belongs to the process of this model",
                remedy="compare `hepgen-ml info` of the sample and of the model",
            )
        encoded = Encoded.join(parts)
        return encoded[torch.argsort(encoded.event)]

    def kinematics(self, x: Tensor, subprocess: Tensor, phi: Tensor) -> Kinematics:
        """Momenta from learned coordinates.

        Parameters
        ----------
        x : (m, D) tensor
        subprocess : (m,) int64 tensor
        phi : (m,) tensor
            Azimuth of the whole event.
        """
        x, phi = x.to("cpu", torch.float64), phi.to("cpu", torch.float64)
        m = len(x)
        final = x.new_zeros((m, self.n_final, 4))
        incoming = x.new_zeros((m, 2, 4))
        passes = torch.zeros(m, dtype=torch.bool)
        channel_of = self.channel_of[subprocess]
        masses = torch.tensor([s.incoming_masses for s in self.subprocesses], dtype=torch.float64)
        for c, channel in enumerate(self.channels):
            where = torch.nonzero(channel_of == c).squeeze(-1)
            if len(where) == 0:
                continue
            p, _ = channel.chart.inverse(channel.join(x[where], phi[where]))
            final[where, : p.shape[1]] = p
            passes[where] = torch.isfinite(p).all(-1).all(-1)
            passes[where] &= self.acceptance.passes(p, channel.classes)
            pair_masses = masses[subprocess[where]]
            for pair in torch.unique(pair_masses, dim=0):
                same = where[(pair_masses == pair).all(-1)]
                incoming[same] = incoming_momenta(final[same].sum(1), *pair.tolist())
        limit = torch.tensor(self.beam_energy, dtype=torch.float64)
        # Partons of fixed energy carry all of it; rounding must not reject them.
        passes &= (incoming[..., 3] <= limit * (1 + 1e-12)).all(-1)
        passes &= (incoming[..., 3] > 0).all(-1)
        return Kinematics(final, incoming, passes)

    def assemble(
        self, kinematics: Kinematics, subprocess: Tensor, discrete: Discrete, run: RunInfo
    ) -> EventSample:
        """Complete events from momenta, subprocess and what is discrete.

        Returns
        -------
        EventSample
            Unit weights; the order of the input is kept.
        """
        numbers = subprocess.numpy()
        lengths = np.array([len(s.structure.pdg_id) for s in self.subprocesses])
        offsets = np.concatenate([[0], np.cumsum(lengths[numbers])])
        columns = {name: np.zeros(offsets[-1], dtype=t) for name, t in PARTICLE_COLUMNS.items()}
        events: dict[str, npt.NDArray[Any]] = {
            "process_id": np.array([s.structure.process_id for s in self.subprocesses])[numbers],
            "weight": np.ones(len(numbers)),
        }
        for c, channel in enumerate(self.channels):
            where = torch.nonzero(self.channel_of[subprocess] == c).squeeze(-1)
            if len(where) == 0:
                continue
            p = kinematics.final[where, : len(channel.classes)]
            values_of = channel.auxiliaries.decode(
                kinematics.incoming[where], p, discrete.branch[where], discrete.free[where]
            )
            for name, values in values_of.items():
                events.setdefault(name, np.zeros(len(numbers)))[where.numpy()] = values
        for number in np.unique(numbers):
            sub = self.subprocesses[number]
            chosen = np.flatnonzero(numbers == number)
            rows = offsets[:-1][chosen][:, None] + np.arange(len(sub.structure.pdg_id))
            table = self._table(
                sub,
                kinematics.final[chosen].numpy(),
                kinematics.incoming[chosen].numpy(),
                discrete.pattern[chosen].numpy(),
            )
            for name, values in table.items():
                columns[name][rows] = values
        return EventSample(run, offsets, columns, events)

    def _table(
        self,
        sub: Subprocess,
        final: npt.NDArray[np.float64],
        incoming: npt.NDArray[np.float64],
        pattern: IntArray,
    ) -> dict[str, npt.NDArray[Any]]:
        """Particle columns (m, n) of events of one subprocess."""
        structure, channel = sub.structure, self.channels[sub.chart]
        n = len(structure.pdg_id)
        p = np.zeros((len(final), n, 4))
        mass = np.zeros((len(final), n))
        p[:, structure.incoming] = incoming
        mass[:, structure.incoming] = sub.incoming_masses
        p[:, sub.order] = final[:, : len(sub.order)]
        for row, spec in zip(sub.order, channel.chart.masses, strict=True):
            mass[:, row] = spec if isinstance(spec, float) else _mass(p[:, row])
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
            "spin": discrete[:, 2 * n :].astype(np.float64),
        }
        return table

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "beam_energy": list(self.beam_energy),
            "acceptance": self.acceptance.to_config(),
            "channels": [
                {
                    "chart": c.chart.to_config(),
                    "auxiliaries": c.auxiliaries.rules,
                    "classes": list(c.classes),
                }
                for c in self.channels
            ],
            "subprocesses": [
                {
                    "structure": {
                        "process_id": s.structure.process_id,
                        **{
                            name: list(getattr(s.structure, name))
                            for name in ("pdg_id", "status", "mother1", "mother2")
                        },
                    },
                    "frequency": s.frequency,
                    "chart": s.chart,
                    "order": list(s.order),
                    "incoming_masses": list(s.incoming_masses),
                    "patterns": s.patterns.tolist(),
                    "pattern_frequency": s.pattern_frequency.tolist(),
                }
                for s in self.subprocesses
            ],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Process:
        """Inverse of `to_config`; raises KeyError, TypeError or ValueError on nonsense."""
        channels = [
            Channel(
                chart_from_config(c["chart"]),
                Auxiliaries(c["auxiliaries"]),
                tuple(str(v) for v in c["classes"]),
            )
            for c in config["channels"]
        ]
        subprocesses = []
        for s in config["subprocesses"]:
            t = s["structure"]
            structure = Structure(
                int(t["process_id"]),
                *(
                    tuple(int(v) for v in t[name])
                    for name in ("pdg_id", "status", "mother1", "mother2")
                ),
            )
            subprocesses.append(
                Subprocess(
                    structure,
                    float(s["frequency"]),
                    int(s["chart"]),
                    tuple(int(v) for v in s["order"]),
                    (float(s["incoming_masses"][0]), float(s["incoming_masses"][1])),
                    np.array(s["patterns"], dtype=np.int32).reshape(-1, 3 * len(structure.pdg_id)),
                    np.array(s["pattern_frequency"], dtype=np.float64),
                )
            )
            if not 0 <= subprocesses[-1].chart < len(channels):
                raise ValueError("a subprocess names a channel that does not exist")
        low, high = config["beam_energy"]
        return cls(
            subprocesses,
            channels,
            Acceptance.from_config(config["acceptance"]),
            (float(low), float(high)),
        )


def _padded(x: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[1]))


def _mass(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = np.sqrt((p[:, :3] ** 2).sum(1))
    return np.asarray(np.sqrt(np.maximum((p[:, 3] - size) * (p[:, 3] + size), 0.0)))


def _pattern_numbers(found: npt.NDArray[np.int32], known: npt.NDArray[np.int32]) -> Tensor:
    """Row of `known` that each row of `found` equals, −1 if none."""
    both = np.concatenate([known, found])
    _, inverse = np.unique(both, axis=0, return_inverse=True)
    number = np.full(len(both), -1)
    number[inverse[: len(known)]] = np.arange(len(known))
    return torch.from_numpy(number[inverse[len(known) :]])
