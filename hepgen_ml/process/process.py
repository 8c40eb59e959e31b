"""Process: the physics of a sample that is determined without a network.

Subprocesses with their frequencies, masses, statuses, colour flows and
helicities, the cuts and the rules for scale and couplings; and the translation
between events and the coordinates that a density model learns. It is learned from a sample
(`hepgen_ml.process.learner`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.events.sample import EventSample
from hepgen_ml.files.garbage import uncollected
from hepgen_ml.phase_space import Acceptance, chart_from_config
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.phase_space.cuts import reported
from hepgen_ml.phase_space.made import Made
from hepgen_ml.process.auxiliary import AUXILIARY, Auxiliaries
from hepgen_ml.process.channel_groups import ChannelGroups, by_value
from hepgen_ml.process.channels import Channel, Subprocess
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.document import ProcessDocument
from hepgen_ml.process.encoded import Encoded, Kinematics, pair_invariants
from hepgen_ml.process.labels import values_of, which
from hepgen_ml.process.lifetime_patterns import PatternTable, stored_tables
from hepgen_ml.process.lifetimes import Lifetime
from hepgen_ml.process.moving_cuts import MovingCut
from hepgen_ml.process.origins import origins_for
from hepgen_ml.process.records import Records
from hepgen_ml.process.structure import Batch, batches

IntArray = npt.NDArray[np.int64]


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
    lifetimes : tuple of Lifetime
        Of the species that have any.
    conditions : Conditions or None
        Of the user, on which the events depend.
    moving_cuts : tuple of MovingCut
        Lower bounds that are functions of a condition.
    lifetime_patterns : tuple of PatternTable
        Of subprocesses whose particles have lifetimes together or not.
    """

    subprocesses: list[Subprocess]
    channels: list[Channel]
    acceptance: Acceptance
    beam_energy: tuple[float, float]
    lifetimes: tuple[Lifetime, ...] = ()
    conditions: Conditions | None = None
    moving_cuts: tuple[MovingCut, ...] = ()
    lifetime_patterns: tuple[PatternTable, ...] = ()

    @cached_property
    def n_coordinates(self) -> int:
        """Largest number of learned coordinates."""
        return max(len(c.coordinates) for c in self.channels)

    @cached_property
    def is_reconstructed(self) -> bool:
        """Whether events are objects of an analysis, without incoming partons."""
        return not any(s.structure.incoming for s in self.subprocesses)

    @cached_property
    def n_invariants(self) -> int:
        """Largest number of pair invariants; reconstructed events have nothing to draw by them."""
        if self.is_reconstructed:
            return 0
        return max(math.comb(len(c.classes) + 2, 2) for c in self.channels)

    @cached_property
    def n_final(self) -> int:
        """Largest number of final-state particles."""
        return max(len(c.classes) for c in self.channels)

    @property
    def cuts_in_words(self) -> list[str]:
        """Each cut, those that move with a condition after the others."""
        moving = (c.described(self.conditions) for c in self.moving_cuts if self.conditions)
        return [*map(str, reported(self.acceptance.cuts)), *moving]

    @cached_property
    def groups(self) -> ChannelGroups:
        """Channels whose events go through one chart together."""
        moving = (name for cut in self.moving_cuts for name in cut.classes)
        classes = self.acceptance.classes
        made: list[tuple[Made, ...]] = [()] * len(self.channels)
        origins = origins_for(self.acceptance, {sub.structure for sub in self.subprocesses})
        for sub in self.subprocesses if classes else ():
            of_all = origins.made(sub.structure, self.channels[sub.chart].classes, sub.order)
            made[sub.chart] = self.acceptance.concerned(of_all)
        return ChannelGroups(self.channels, classes.union(moving), made)

    @cached_property
    def records(self) -> Records:
        """Records of the events of all subprocesses."""
        return Records(self.subprocesses, self.channels)

    @cached_property
    def channel_of(self) -> Tensor:
        """(S,) channel of each subprocess."""
        return torch.tensor([s.chart for s in self.subprocesses])

    @cached_property
    def frequencies(self) -> npt.NDArray[np.float64]:
        """(S,) fractions of the subprocesses, summing to one."""
        f = np.array([s.frequency for s in self.subprocesses])
        return np.asarray(f / f.sum())

    @uncollected()
    def encode(self, sample: EventSample) -> Encoded:
        """Translate events into tensors.

        Events whose structure or pattern is not part of the process, or that are outside
        its cuts, are left out; `Encoded.event` has the numbers of the others.
        """
        values: Tensor | None = None
        if self.conditions is not None and len(sample):
            values = torch.from_numpy(self.conditions.of(sample))
        # Subprocesses of one channel, and channels of one shape, go through a chart together.
        found: dict[int, list[_Table]] = {}
        for batch in batches(sample, discrete=True):
            for group, table in self._by_group(batch):
                found.setdefault(group, []).append(table)
        if not found:
            return self._nothing()
        encoded = Encoded.join([self._encode_group(sample, t, values) for t in found.values()])
        return encoded[torch.argsort(encoded.event)]

    def _by_group(self, batch: Batch) -> Iterator[tuple[int, _Table]]:
        """Known events of one length by the group of their channels."""
        number, pattern = self.records.recognised(batch)
        columns = [batch.columns[name] for name in ("px", "py", "pz", "energy")]
        momenta = torch.from_numpy(np.stack(columns, axis=-1))
        known = np.flatnonzero(number >= 0)
        group_of = torch.tensor(self.groups.group_of)
        for topology, at, place in self.records.of(number[known]):
            rows, incoming = known[at], topology.structure.incoming
            subprocess = torch.from_numpy(number[rows])
            for group, own in by_value(group_of[self.channel_of[subprocess]]):
                mine, order = rows[own.numpy()], topology.order[place[own.numpy()]]
                yield group, _Table(
                    subprocess[own],
                    torch.from_numpy(batch.events[mine]),
                    momenta[mine[:, None], order],
                    momenta[mine][:, incoming],
                    torch.from_numpy(pattern[mine]),
                )

    def knows(self, sample: EventSample) -> npt.NDArray[np.bool_]:
        """Mask (n,) of events whose structure, colours and helicities are part of the process."""
        known = np.zeros(len(sample), dtype=bool)
        for batch in batches(sample, discrete=True):
            known[batch.events] = self.records.recognised(batch)[1] >= 0
        return known

    def _encode_group(
        self, sample: EventSample, found: Sequence[_Table], values: Tensor | None
    ) -> Encoded:
        """Events of channels that go through one chart together."""
        subprocess, events, final, incoming, pattern = map(torch.cat, zip(*found, strict=True))
        given = None if values is None else values[events]
        channel_of = self.channel_of[subprocess]
        ((chart, channel, decaying, _),) = self.groups.of(channel_of, given)
        chart_x = chart.forward(final)
        keep = [i for i in range(chart_x.shape[1]) if i != channel.cyclic]
        x, rows = chart_x[:, keep], events.numpy()
        known = {n: sample.events[n][rows] for n in AUXILIARY if n in sample.events}
        made, branch = chart.made(final), torch.zeros_like(subprocess)
        free = torch.zeros(len(x), len(AUXILIARY), dtype=torch.float64)
        for own, at in self.groups.of_rules(channel_of):
            some = {name: column[at.numpy()] for name, column in known.items()}
            branch[at], free[at] = own.auxiliaries.encode(incoming[at], made[at], some)
        good = torch.isfinite(x).all(1) & torch.isfinite(free).all(1)
        good &= (pattern >= 0) & (branch >= 0)
        good &= self._passes(final, channel, decaying, given)
        encoded = Encoded(
            _padded(x, self.n_coordinates),
            subprocess,
            pattern,
            branch,
            free,
            torch.as_tensor(sample.weight[rows]),
            self.invariants(incoming, final),
            events,
            torch.zeros(len(x), 0, dtype=torch.float64) if given is None else given,
        )
        return encoded[good]

    def _passes(
        self, p: Tensor, channel: Channel, made: Sequence[Made], given: Tensor | None
    ) -> Tensor:
        """Mask (m,) of final states of a channel inside the cuts at their conditions (m, K)."""
        good = self.acceptance.passes(p, channel.classes, made)
        if given is not None:
            for cut in self.moving_cuts:
                good &= cut.passes(p, channel.classes, given)
        return good

    def inside(self, x: Tensor, subprocess: Tensor) -> Tensor:
        """Mask (m,) of coordinates (m, D) whose events are possible and inside all cuts.

        Subprocesses (m,) are labels, see `hepgen_ml.process.labels`.
        """
        place = subprocess.device
        phi = torch.zeros(len(x))
        return self.kinematics(x.cpu(), subprocess.cpu(), phi).passes.to(place)

    def invariants(self, incoming: Tensor, final: Tensor) -> Tensor:
        """Pair invariants (m, P) float32, zero beyond those of the event."""
        if self.is_reconstructed:
            return torch.zeros(len(final), 0)
        return _padded(pair_invariants(incoming, final), self.n_invariants)

    def _nothing(self) -> Encoded:
        """Zero events."""
        number, real = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64)
        x = torch.zeros(0, self.n_coordinates, dtype=torch.float64)
        free = torch.zeros(0, len(AUXILIARY), dtype=torch.float64)
        invariants = torch.zeros(0, self.n_invariants)
        n_conditions = 0 if self.conditions is None else len(self.conditions.each)
        given = torch.zeros(0, n_conditions, dtype=torch.float64)
        return Encoded(x, number, number, number, free, real, invariants, number, given)

    def kinematics(self, x: Tensor, subprocess: Tensor, phi: Tensor) -> Kinematics:
        """Momenta from learned coordinates.

        Parameters
        ----------
        x : (m, D) tensor
        subprocess : (m,) int64 tensor
            With the user's conditions if there are any: labels, see `hepgen_ml.process.labels`.
        phi : (m,) tensor
            Azimuth of the whole event.
        """
        values, subprocess = values_of(subprocess), which(subprocess)
        values = None if values is None else values.cpu()
        x, phi = x.to("cpu", torch.float64), phi.to("cpu", torch.float64)
        m = len(x)
        final = x.new_zeros((m, self.n_final, 4))
        incoming = x.new_zeros((m, 2, 4))
        passes = torch.zeros(m, dtype=torch.bool)
        channel_of = self.channel_of[subprocess]
        masses = torch.tensor([s.incoming_masses for s in self.subprocesses], dtype=torch.float64)
        for chart, channel, made, where in self.groups.of(channel_of, values):
            p, _ = chart.inverse(channel.join(x[where], phi[where]))
            final[where, : p.shape[1]] = p
            passes[where] = torch.isfinite(p).all(-1).all(-1)
            passes[where] &= chart.allows(p)
            given = None if values is None else values[where]
            passes[where] &= self._passes(p, channel, made, given)
            if self.is_reconstructed:
                continue
            pair_masses = masses[subprocess[where]]
            for pair in torch.unique(pair_masses, dim=0):
                same = where[(pair_masses == pair).all(-1)]
                incoming[same] = incoming_momenta(final[same].sum(1), *pair.tolist())
        if self.is_reconstructed:
            return Kinematics(final, incoming, passes)
        limit = torch.tensor(self.beam_energy, dtype=torch.float64)
        # Partons of fixed energy carry all of it; rounding must not reject them.
        passes &= (incoming[..., 3] <= limit * (1 + 1e-12)).all(-1)
        passes &= (incoming[..., 3] > 0).all(-1)
        # a slow massive parton may be computed to move with the other one; targets are at rest
        backwards = torch.stack([-incoming[:, 0, 2], incoming[:, 1, 2]], dim=-1)
        passes &= (backwards <= 1e-10 * limit.max()).all(-1)
        return Kinematics(final, incoming, passes)

    @uncollected()
    def to_config(self) -> dict[str, Any]:
        """Plain JSON values."""
        # optional, as in models of earlier versions
        lifetimes = {"lifetimes": [v.to_config() for v in self.lifetimes]} if self.lifetimes else {}
        if self.lifetime_patterns:
            lifetimes["lifetime_patterns"] = [t.to_config() for t in self.lifetime_patterns]
        conditions = {} if self.conditions is None else {"conditions": self.conditions.to_config()}
        return {
            "beam_energy": list(self.beam_energy),
            **lifetimes,
            **conditions,
            "acceptance": self.acceptance.to_config(),
            **({"moving_cuts": [c.to_config() for c in self.moving_cuts]} if self.moving_cuts
               else {}),
            "channels": [
                {
                    "chart": c.chart.to_config(),
                    "auxiliaries": rules,
                    "classes": list(c.classes),
                }
                for c, rules in zip(self.channels, self._rules_stored_once(), strict=True)
            ],
            "subprocesses": [s.to_config() for s in self.subprocesses],
        }

    def _rules_stored_once(self) -> list[dict[str, Any] | int]:
        """Rules of each channel for scale and couplings, or the number of one that has the same."""
        first: dict[str, int] = {}
        text_of: dict[int, str] = {}
        found: list[dict[str, Any] | int] = []
        for number, channel in enumerate(self.channels):
            rules = channel.auxiliaries.rules
            if id(rules) not in text_of:
                text_of[id(rules)] = json.dumps(rules)
            same = first.setdefault(text_of[id(rules)], number)
            found.append(rules if same == number else same)
        return found

    @classmethod
    @uncollected()
    def from_config(cls, config: dict[str, Any]) -> Process:
        """Inverse of `to_config`.

        Raises
        ------
        ValueError
            The document describes no process; pydantic's names the entry.
        """
        ProcessDocument.model_validate(config)
        channels: list[Channel] = []
        for number, c in enumerate(config["channels"]):
            rules = c["auxiliaries"]
            if isinstance(rules, int) and not 0 <= rules < number:
                raise ValueError(f"channels.{number}: the rules of a channel that is not before it")
            auxiliaries = (
                channels[rules].auxiliaries if isinstance(rules, int) else Auxiliaries(rules)
            )
            classes = tuple(str(v) for v in c["classes"])
            channels.append(Channel(chart_from_config(c["chart"]), auxiliaries, classes))
        subprocesses = [Subprocess.from_config(s) for s in config["subprocesses"]]
        if not all(0 <= s.chart < len(channels) for s in subprocesses):
            raise ValueError("a subprocess names a channel that does not exist")
        checked: set[Any] = set()
        for c, channel in enumerate(channels):
            try:
                channel.check(checked)
            except (ValueError, IndexError) as error:
                raise ValueError(f"channels.{c}: {error}") from None
        low, high = config["beam_energy"]
        lifetimes = tuple(Lifetime.from_config(v) for v in config.get("lifetimes", ()))
        return cls(
            subprocesses,
            channels,
            Acceptance.from_config(config["acceptance"]),
            (float(low), float(high)),
            lifetimes,
            Conditions.from_config(config["conditions"]) if config.get("conditions") else None,
            tuple(map(MovingCut.from_config, config.get("moving_cuts", ()))),
            stored_tables(
                config.get("lifetime_patterns", ()) if lifetimes else (),
                [s.structure for s in subprocesses],
                {(v.pdg_id, v.status) for v in lifetimes},
            ),
        )  # fmt: skip


class _Table(NamedTuple):
    """Events of one subprocess on their way to coordinates."""

    subprocess: Tensor
    event: Tensor
    final: Tensor
    incoming: Tensor
    pattern: Tensor


def _padded(x: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(x, (0, width - x.shape[1]))
