"""Symmetries that give further training events.

Exchange of equal beams, which is exact: two unpolarised beams of the same particles and energy
look the same after a rotation by pi about the x axis: rapidities and azimuths change sign, the
incoming partons change places, helicities stay. The mirrored event is as likely
as the original, so a model may train on both. The same holds for reconstructed objects.

Reflection at a plane through the beams: helicity sums depend on products p_i.p_j only, unless the
amplitude has an absorptive part (loops) or violates CP: then it also depends on triple products,
which a reflection gives the other sign. Therefore it is an option of the user; a sample with such a
dependence is refused. Helicities are not learned from reflected events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.errors import SampleError
from hepgen_ml.events.sample import RunInfo
from hepgen_ml.phase_space import Chart, DecayChart, FixedEnergyChart, FormationChart, PairChart
from hepgen_ml.process.channel_groups import by_value
from hepgen_ml.process.channels import Channel, Subprocess
from hepgen_ml.process.encoded import Encoded, without_pattern
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import Structure, color_flow

EXCHANGE, REFLECTION = (1.0, -1.0, -1.0, 1.0), (1.0, -1.0, 1.0, 1.0)
"""Signs of a momentum (px, py, pz, E) after each of the two."""

_MANY_CHANNELS, _FEWEST = 64, 50
"""With more channels than the first number, those with fewer events than the second are not
mirrored: it would take as long as the training, and their parameters are shared with others."""

_MOST_REMEMBERED, _TOGETHER = 20_000, 20_000
"""Kinds of records whose images are remembered, and events that are mirrored together, which bounds
the memory."""

CLEAR = 6.0
"""Standard deviations from which a sample is taken to break a symmetry."""


def has_equal_beams(run: RunInfo) -> bool:
    """Whether both beams are of the same particles and energy."""
    same = run.beam_pdg_id[0] == run.beam_pdg_id[1]
    return same and bool(np.isclose(run.beam_energy[0], run.beam_energy[1], rtol=1e-9))


def has_exchange(run: RunInfo, process: Process) -> bool:
    """Whether the exchange is a symmetry of this run."""
    # A chart of fixed energy knows its total momentum, which need not be symmetric.
    charts = [c.chart for c in process.channels]
    made = [c.production if isinstance(c, DecayChart) else c for c in charts]
    fixed = any(
        isinstance(c, FixedEnergyChart | FormationChart)
        and not (isinstance(c, PairChart) and c.has_equal_beams)
        for c in made
    )
    return has_equal_beams(run) and not fixed


def looks_symmetric(process: Process, encoded: Encoded) -> bool:
    """Whether rapidities average to zero, as they do unless one hemisphere was selected.

    The same holds for all coordinates whose sign the exchange changes. Subprocesses without a
    mirror image in the sample are ignored: some programs list q qbar in one order of the final
    state and qbar q in another.
    """
    has_image = torch.tensor([i is not None for i in images(process)])
    encoded = encoded[has_image[encoded.subprocess]]
    channel_of = process.channel_of[encoded.subprocess]
    # Which coordinates change sign is a matter of their names.
    odd_of: dict[tuple[str, ...], list[int]] = {}
    for c, rows in by_value(channel_of):
        if len(rows) < CLEAR**2:  # no mean is further from zero than the root of their number
            continue
        channel, x = process.channels[c], encoded.x[rows]
        names = tuple(k.name for k in channel.coordinates)
        if names not in odd_of:
            odd_of[names] = _odd(channel, x[:100], encoded.conditions[rows][:100])
        if largest_pull(x[:, odd_of[names]], encoded.weight[rows].unsqueeze(1)) > CLEAR:
            return False
    return True


def _odd(channel: Channel, x: Tensor, conditions: Tensor) -> list[int]:
    """Coordinates of events (n, D) whose sign the exchange of the beams changes."""
    turned = _mirrored(channel, x, EXCHANGE, conditions)
    return [
        i
        for i, k in enumerate(channel.coordinates)
        if not k.periodic and torch.allclose(turned[:, i], -x[:, i], rtol=1e-6, atol=1e-6)
    ]


def largest_pull(values: Tensor, weight: Tensor) -> float:
    """Mean of a column over its statistical error, of the column where it is largest.

    Parameters
    ----------
    values : (n, k) tensor
    weight : (n, 1) tensor
    """
    error = torch.sqrt(((weight * values) ** 2).sum(0)).clamp_min(1e-12)
    return float(((weight * values).sum(0) / error).abs().max()) if values.numel() else 0.0


def symmetrize_frequencies(process: Process) -> None:
    """Give each subprocess and its mirror image the same frequency, their average."""
    mirrored = images(process)
    before = [s.frequency for s in process.subprocesses]
    process.subprocesses[:] = [
        s if other is None else replace(s, frequency=(before[i] + before[other]) / 2)
        for i, (s, other) in enumerate(zip(process.subprocesses, mirrored, strict=True))
    ]
    process.__dict__.pop("frequencies", None)  # which may have been asked for before


def exchanged_beams(process: Process, encoded: Encoded) -> tuple[Encoded, Tensor]:
    """Mirror images of events.

    Parameters
    ----------
    process : Process
    encoded : Encoded

    Returns
    -------
    mirrored : Encoded
        Of the events whose mirror image belongs to the process too.
    possible : (m,) bool tensor
        Which events these are.
    """
    image_of = images(process)
    parts, possible = [], torch.zeros(len(encoded), dtype=torch.bool)
    turned, is_turned = _all_mirrored(process, encoded, EXCHANGE)
    patterns = _mirrored_patterns(process.subprocesses)
    some = torch.nonzero(is_turned).squeeze(-1)
    for number, at in by_value(encoded.subprocess[some]):
        sub, rows = process.subprocesses[number], some[at]
        other = image_of[number]
        if other is None:
            continue
        target = process.subprocesses[other]
        channel = process.channels[sub.chart]
        pattern = _pattern_map(patterns[number], target)[encoded.pattern[rows]]
        branch = _branch_map(channel, process.channels[target.chart])[encoded.branch[rows]]
        good = (pattern >= 0) & (branch >= 0)
        rows = rows[good]
        part = encoded[rows]
        columns = list(range(part.invariants.shape[1]))
        if sub.structure.incoming:
            columns = _invariant_map(len(channel.classes), len(columns))
        parts.append(
            Encoded(
                turned[rows],
                torch.full_like(part.subprocess, other),
                pattern[good],
                branch[good],
                part.free,
                part.weight,
                part.invariants[:, columns],
                part.event,
                part.conditions,
            )
        )
        possible[rows] = True
    return (Encoded.join(parts) if parts else encoded[:0]), possible


def reflected(process: Process, encoded: Encoded) -> tuple[Encoded, Tensor]:
    """Events reflected at a plane through the beams, and which of them (m,) these are.

    A reflection changes helicities too, and is a symmetry of these only if interactions conserve
    parity. The images of events with helicities teach their kinematics alone: their pattern is
    `without_pattern` of that of the event. So is that of all events of such a subprocess: otherwise
    those without helicities would count twice among its patterns.
    """
    polarised = torch.tensor(
        [not np.isin(s.patterns[:, 2 * len(s.structure.pdg_id) :], (0, 9)).all()
         for s in process.subprocesses]
    )  # fmt: skip
    own = polarised[encoded.subprocess]
    pattern = torch.where(own, without_pattern(encoded.pattern), encoded.pattern)
    turned, possible = _all_mirrored(process, encoded, REFLECTION)
    return replace(encoded, x=turned, pattern=pattern)[possible], possible


def _all_mirrored(
    process: Process, encoded: Encoded, signs: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Learned coordinates (m, D) of events whose momenta are multiplied by signs.

    The second tensor (m,) says of which events these were computed.
    """
    channel_of = process.channel_of[encoded.subprocess]
    fewest = _FEWEST if len(process.channels) > _MANY_CHANNELS else 0
    x, done = torch.zeros_like(encoded.x), torch.bincount(channel_of)[channel_of] >= fewest
    for some in torch.nonzero(done).squeeze(-1).split(_TOGETHER):
        values = None if process.conditions is None else encoded.conditions[some]
        for chart, channel, _, at in process.groups.of(channel_of[some], values):
            rows = some[at]
            x[rows, : len(channel.coordinates)] = _turned(chart, channel, encoded.x[rows], signs)
    return x, done


def check_reflection(process: Process, encoded: Encoded, clear: float = CLEAR) -> None:
    """Refuse a sample that a reflection at a plane through the beams would change.

    Tests the sines of all angles that change sign, and their products with all other coordinates.

    Parameters
    ----------
    process : Process
    encoded : Encoded
    clear : float
        Standard deviations from which the sample is taken to break the symmetry.

    Raises
    ------
    SampleError
        One of these means is not zero.
    """
    odd_of: dict[tuple[str, ...], list[int]] = {}  # of names, as in `looks_symmetric`
    for c, rows in by_value(process.channel_of[encoded.subprocess]):
        if len(rows) < clear**2:  # no mean is further from zero than the root of their number
            continue
        channel = process.channels[c]
        x, weight = encoded.x[rows], encoded.weight[rows].unsqueeze(1)
        names = tuple(k.name for k in channel.coordinates)
        if names not in odd_of:
            odd_of[names] = _odd_angles(channel, x[:100], encoded.conditions[rows][:100])
        even = [i for i, k in enumerate(channel.coordinates) if not k.periodic]
        for i in odd_of[names]:
            y = torch.sin(x[:, [i]]) * torch.cat([torch.ones_like(x[:, :1]), x[:, even]], dim=1)
            pull = largest_pull(y, weight)
            if pull > clear:
                name = channel.coordinates[i].name
                raise SampleError(
                    f"a reflection changes its events: the mean of a triple product with {name} "
                    f"is {pull:.1f} standard deviations from zero",
                    remedy="train with training.reflect=false",
                )


def _odd_angles(channel: Channel, x: Tensor, conditions: Tensor) -> list[int]:
    """Angles of events (n, D) whose sines change sign in a reflection."""
    turned = _mirrored(channel, x, REFLECTION, conditions) if len(x) else x
    return [
        i
        for i, k in enumerate(channel.coordinates)
        if k.periodic and torch.allclose(torch.sin(turned[:, i]), -torch.sin(x[:, i]),
                                         rtol=1e-5, atol=1e-5)
    ]  # fmt: skip


def _mirrored(
    channel: Channel, x: Tensor, signs: tuple[float, ...], conditions: Tensor
) -> Tensor:
    """Learned coordinates of events whose momenta are multiplied by signs."""
    return _turned(channel.chart.given(conditions), channel, x, signs)


def _turned(chart: Chart, channel: Channel, x: Tensor, signs: tuple[float, ...]) -> Tensor:
    """The same with the chart of these events."""
    p, _ = chart.inverse(channel.join(x, torch.zeros(len(x), dtype=x.dtype)))
    turned = chart.forward(p * p.new_tensor(signs))
    keep = [i for i in range(turned.shape[1]) if i != channel.cyclic]
    return turned[:, keep]


def images(process: Process) -> list[int | None]:
    """Subprocess that each subprocess becomes when the beams are exchanged, if there is one."""
    index = {(s.structure, s.at_full): i for i, s in enumerate(process.subprocesses)}
    return [index.get((_exchanged(s.structure), s.at_full[::-1])) for s in process.subprocesses]


def _exchanged(structure: Structure) -> Structure:
    """The structure with its first two particles, the incoming ones, exchanged."""
    if not structure.incoming:
        return structure
    s = structure
    mothers = _exchanged_mothers(s.mother1, s.mother2)
    ids, status = ((*values[1::-1], *values[2:]) for values in (s.pdg_id, s.status))
    return Structure(s.process_id, ids, status, *mothers)


@lru_cache(_MOST_REMEMBERED)
def _exchanged_mothers(
    mother1: tuple[int, ...], mother2: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Mothers of all particles of a record after the exchange, which few kinds of records have."""
    swapped = {1: 2, 2: 1}
    found = []
    for i in (1, 0, *range(2, len(mother1))):
        a, b = (swapped.get(m, m) for m in (mother1[i], mother2[i]))
        found.append((b, a) if b > 0 and a > b else (a, b))
    first, second = zip(*found, strict=True)
    return first, second


def _mirrored_patterns(
    subprocesses: Sequence[Subprocess],
) -> list[npt.NDArray[np.int32]]:
    """Patterns of all subprocesses with their beams exchanged, those of one length together."""
    found = [s.patterns for s in subprocesses]
    kinds: dict[tuple[int, bool], list[int]] = {}
    for i, s in enumerate(subprocesses):
        kinds.setdefault((len(s.structure.pdg_id), bool(s.structure.incoming)), []).append(i)
    for (n, incoming), members in kinds.items():
        together = np.concatenate([found[i] for i in members])
        order = [1, 0, *range(2, n)] if incoming else list(range(n))
        flow = together[:, : 2 * n].reshape(-1, n, 2)[:, order]
        spins = together[:, 2 * n :][:, order]
        mirrored = np.concatenate([color_flow(flow[..., 0], flow[..., 1]), spins], axis=1)
        ends = np.cumsum([len(found[i]) for i in members])[:-1]
        for i, part in zip(members, np.split(mirrored, ends), strict=True):
            found[i] = part
    return found


def _pattern_map(mirrored: npt.NDArray[np.int32], target: Subprocess) -> Tensor:
    """Number among the target's patterns of each mirrored pattern, −1 without one."""
    known = {row.tobytes(): i for i, row in enumerate(np.ascontiguousarray(target.patterns))}
    rows = np.ascontiguousarray(mirrored.astype(target.patterns.dtype))
    return torch.tensor([known.get(row.tobytes(), -1) for row in rows])


def _branch_map(channel: Channel, target: Channel) -> Tensor:
    """Branch of the mirror image for each branch, −1 without one.

    Clustering some particles to the first beam mirrors to clustering the others to it.
    """
    here, there = channel.auxiliaries, target.auxiliaries
    names = [o.get("formula") for o in there.rules["scale"]["options"]]
    emitted = {
        i for name in names if name and name.startswith("core_mt:") for i in _particles(name)
    }
    choices = []
    for number, option in enumerate(here.rules["scale"]["options"]):
        name = option.get("formula")
        if name and name.startswith("core_mt:"):
            others = sorted(emitted - set(_particles(name)))
            mirrored = f"core_mt:{','.join(map(str, others))}"
            choices.append(names.index(mirrored) if mirrored in names else -1)
        else:
            choices.append(number if number < len(names) and names[number] == name else -1)
    if here.rules["scale"]["free"]:
        choices.append(len(names) if there.rules["scale"]["free"] else -1)
    known = {tuple(row): i for i, row in enumerate(there.branches.tolist())}
    return torch.tensor([known.get((choices[b[0]], *b[1:]), -1) for b in here.branches.tolist()])


def _particles(name: str) -> list[int]:
    return [int(text) for text in name.partition(":")[2].split(",") if text]


def _invariant_map(n_final: int, width: int) -> list[int]:
    """Columns of the pair invariants with the two incoming partons exchanged."""
    n = n_final + 2
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    order = [1, 0, *range(2, n)]
    mirrored = [pairs.index(tuple(sorted((order[i], order[j])))) for i, j in pairs]
    return [*mirrored, *range(len(mirrored), width)]
