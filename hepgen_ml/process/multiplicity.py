"""Jet multiplicities of reconstructed events: families of subprocesses that differ by jets only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import JET
from hepgen_ml.phase_space import ReconstructedChart
from hepgen_ml.process.channels import Channel, Subprocess
from hepgen_ml.process.process import Process
from hepgen_ml.process.structure import Structure

MOST_JETS = 30


@dataclass(frozen=True)
class Family:
    """Subprocesses that differ by the number of jets only.

    Attributes
    ----------
    fewest, top : int
        Numbers of jets that the sample has.
    subprocess : tuple of int
        Numbers of the subprocesses with fewest, fewest + 1, ... jets; they may go beyond `top`.
    frequency : float
        Total frequency of all of them.
    """

    fewest: int
    top: int
    subprocess: tuple[int, ...]
    frequency: float


def families(process: Process) -> list[Family]:
    """Families of a process whose members have been completed by `with_more_jets`."""
    groups: dict[Hard, dict[int, int]] = {}
    for number, sub in enumerate(process.subprocesses):
        hard, jets = _divided(sub, process.channels)
        groups.setdefault(hard, {})[jets] = number
    found = []
    for members in groups.values():
        seen = [j for j, i in members.items() if process.subprocesses[i].frequency > 0]
        numbers = [members[j] for j in range(min(seen), max(members) + 1)]
        total = sum(process.subprocesses[i].frequency for i in numbers)
        found.append(Family(min(seen), max(seen), tuple(numbers), total))
    return found


def with_more_jets(process: Process, most: int) -> Process:
    """The process with subprocesses of frequency zero for all multiplicities up to `most` jets.

    Gaps in the numbers of jets of the sample are filled too, so that jets can be added one by one.

    Parameters
    ----------
    process : Process
        Of reconstructed events.
    most : int
        Largest number of jets; those in the sample are kept in any case.

    Raises
    ------
    UsageError
        A process of partons, or without jets.
    """
    if not process.is_reconstructed:
        raise UsageError(
            "jets can be added one by one to reconstructed events only: partons balance each other",
            remedy="use --model auto, which takes the multiplicity as a condition here",
        )
    if most > MOST_JETS:
        raise UsageError(f"{most} jets are too many", remedy=f"ask for {MOST_JETS} at most")
    subprocesses, channels = list(process.subprocesses), list(process.channels)
    groups: dict[Hard, dict[int, Subprocess]] = {}
    for sub in process.subprocesses:
        hard, jets = _divided(sub, channels)
        groups.setdefault(hard, {})[jets] = sub
    if all(jets == 0 for members in groups.values() for jets in members):
        raise UsageError("the sample has no jets", remedy="use --model auto")
    for hard, members in groups.items():
        last = max(most, *members)
        # Jets from a resonance start another family.
        later = [min(m) for h, m in groups.items() if h[0] == hard[0] and min(m) > min(members)]
        for jets in range(min(members) + 1, min([last, *(j - 1 for j in later)]) + 1):
            if jets not in members:
                sub, channel = _one_more(members[jets - 1], channels, process)
                members[jets] = replace(sub, chart=len(channels))
                channels.append(channel)
                subprocesses.append(members[jets])
    return replace(process, subprocesses=subprocesses, channels=channels)


Hard = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
"""Properties that members of a family share: objects that are not jets, and each resonance's."""


def _divided(sub: Subprocess, channels: Sequence[Channel]) -> tuple[Hard, int]:
    """Properties that do not change with the number of jets, and this number."""
    ids, chart = sub.structure.pdg_id, channels[sub.chart].chart
    groups = chart.resonances if isinstance(chart, ReconstructedChart) else ()
    hard = tuple(i for i in ids if i != JET), tuple(r.objects for r in groups)
    return hard, sum(i == JET for i in ids)


def _one_more(
    sub: Subprocess, channels: list[Channel], process: Process
) -> tuple[Subprocess, Channel]:
    """Subprocess and channel with one jet added at the end."""
    old, before = sub.structure, channels[sub.chart]
    chart = before.chart
    assert isinstance(chart, ReconstructedChart)
    n = len(old.pdg_id)
    structure = Structure(
        old.process_id, (*old.pdg_id, JET), (*old.status, 1), (*old.mother1, 0), (*old.mother2, 0)
    )
    config = chart.to_config()
    jets = sum(i == JET for i in old.pdg_id)
    config["labels"].append(f"Jet{jets + 1}")
    config["masses"].append(None)
    config["pt_min"].append(process.acceptance.pt_min("Jet"))
    config["ordered"].append(jets > 0)
    del config["kind"]
    spins = sub.patterns[:1, 2 * n :]
    pattern = np.concatenate([np.zeros((1, 2 * n + 2)), spins, spins[:, -1:]], axis=1)
    return (
        Subprocess(
            structure, 0.0, 0, tuple(range(n + 1)), sub.incoming_masses,
            pattern.astype(np.int32), np.ones(1),
        ),
        Channel(ReconstructedChart(**config), before.auxiliaries, (*before.classes, "Jet")),
    )  # fmt: skip
