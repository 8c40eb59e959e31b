"""Combining runs: several files as one sample with the right relative cross sections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hepgen_ml.errors import SampleError
from hepgen_ml.events import RunInfo


@dataclass(frozen=True)
class Merged:
    """Several runs seen as one.

    Attributes
    ----------
    run : RunInfo
        Of the whole; processes that share a number without being the same are renumbered.
    group : tuple of int
        Which files are runs of the same processes: group number of each file.
    group_cross_section : tuple of float
        In pb, one per group.
    shift : tuple of int
        To be added to the process numbers of each file.
    """

    run: RunInfo
    group: tuple[int, ...]
    group_cross_section: tuple[float, ...]
    shift: tuple[int, ...]


def merge_runs(runs: Sequence[RunInfo], paths: Sequence[Path | None]) -> Merged:
    """Decide how runs belong together.

    Runs with the same process numbers and compatible cross sections are
    repetitions of one another: their events are pooled, their cross sections
    averaged. Other runs are different processes: their cross sections add.

    Raises
    ------
    SampleError
        Runs with different beams.
    """
    first = runs[0]
    for run, path in zip(runs, paths, strict=True):
        same = run.beam_pdg_id == first.beam_pdg_id and np.allclose(
            run.beam_energy, first.beam_energy, rtol=1e-6
        )
        if not same:
            raise SampleError(
                f"beams {run.beam_pdg_id} at {run.beam_energy} GeV, but {first.beam_pdg_id} at "
                f"{first.beam_energy} GeV in {paths[0]}",
                path=path,
                remedy="train on files with the same beams",
            )
    groups: list[list[int]] = []
    for i, run in enumerate(runs):
        for group in groups:
            if _repetition(run, runs[group[0]]):
                group.append(i)
                break
        else:
            groups.append([i])
    used: set[int] = set()
    processes, shifts = [], [0] * len(runs)
    for group in groups:
        ids = {p.process_id for p in runs[group[0]].processes}
        shift = 0 if not ids & used else max(used) + 1 - min(ids)
        used |= {i + shift for i in ids}
        for i in group:
            shifts[i] = shift
        for k, process in enumerate(runs[group[0]].processes):
            members = [runs[i].processes[k] for i in group]
            error = float(np.sqrt(np.sum([m.error**2 for m in members])) / len(members))
            processes.append(
                replace(
                    process,
                    process_id=process.process_id + shift,
                    cross_section=float(np.mean([m.cross_section for m in members])),
                    error=error if len(members) > 1 else process.error,
                )
            )
    number = {i: g for g, group in enumerate(groups) for i in group}
    return Merged(
        first.with_(processes=tuple(processes)),
        tuple(number[i] for i in range(len(runs))),
        tuple(float(np.mean([runs[i].cross_section for i in group])) for group in groups),
        tuple(shifts),
    )


def _repetition(a: RunInfo, b: RunInfo) -> bool:
    if len(a.processes) != len(b.processes):
        return False
    for p, q in zip(a.processes, b.processes, strict=True):
        margin = 5 * np.hypot(p.error, q.error) + 0.01 * abs(q.cross_section)
        if p.process_id != q.process_id or abs(p.cross_section - q.cross_section) > margin:
            return False
    return True
