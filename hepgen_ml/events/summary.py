"""Summary of a sample in one pass over its file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.interfaces import Reader
from hepgen_ml.events.objects import JET, OBJECTS
from hepgen_ml.events.run import RunInfo, finite_or_none
from hepgen_ml.events.sample import EventSample

MAX_PARTICLES = 64  # longer events are showers: no subprocess is read from them
MAX_SUBPROCESSES = 1000

Flavors = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@lru_cache(10_000)
def particle_name(pdg_id: int) -> str:
    """Name in the Particle Data Group's notation; the number itself if it has no name.

    Examples
    --------
    >>> particle_name(-6), particle_name(21), particle_name(93)
    ('t~', 'g', 'j')
    """
    from particle import InvalidParticle, Particle, ParticleNotFound

    if pdg_id == JET:
        return "j"
    try:
        return str(Particle.from_pdgid(pdg_id).name)
    except (InvalidParticle, ParticleNotFound):
        return str(pdg_id)


def process_name(incoming: Iterable[int], outgoing: Iterable[int]) -> str:
    """``g g > t t~ g`` from the PDG numbers."""
    return " ".join([*map(particle_name, incoming), ">", *map(particle_name, outgoing)])


class SampleSummary:
    """Counts of a sample, gathered chunk by chunk in bounded memory."""

    def __init__(self) -> None:
        self.n_events = 0
        self.multiplicities: Counter[int] = Counter()
        self.subprocesses: Counter[Flavors] = Counter()
        self.subprocess_weight: dict[Flavors, float] = {}
        self.n_unclassified = 0
        self.weight_sum = self.weight_square_sum = 0.0
        self.n_negative = 0
        self.weight_range = (np.inf, -np.inf)
        self.weight_names: dict[str, None] = {}
        self.objects: dict[str, Counter[int]] = {}  # events by the number of objects

    def add(self, chunk: EventSample) -> None:
        """Take in the events of one chunk."""
        if not len(chunk):
            return
        self.n_events += len(chunk)
        weight = chunk.events["weight"]
        self.weight_sum += float(weight.sum())
        self.weight_square_sum += float((weight**2).sum())
        self.n_negative += int((weight < 0).sum())
        low, high = self.weight_range
        self.weight_range = (min(low, float(weight.min())), max(high, float(weight.max())))
        self.weight_names |= dict.fromkeys(chunk.weights)
        status = chunk.particles.get("status", np.ones(len(chunk.particles["px"]), np.int32))
        n_final = np.bincount(chunk.event_index[status == 1], minlength=len(chunk))
        self.multiplicities.update(dict(zip(*_counts(n_final), strict=True)))
        if chunk.is_reconstructed:
            self._count_objects(chunk)
        elif "pdg_id" in chunk.particles:
            self._classify(chunk, status)

    def _count_objects(self, chunk: EventSample) -> None:
        number = np.abs(chunk.particles.get("pdg_id", np.zeros(0)))
        for name, pdg_id in OBJECTS.items():
            counts = np.bincount(chunk.event_index[number == pdg_id], minlength=len(chunk))
            found = self.objects.setdefault(name, Counter())
            found.update(dict(zip(*_counts(counts), strict=True)))

    def _classify(self, chunk: EventSample, status: npt.NDArray[Any]) -> None:
        short = chunk.counts <= MAX_PARTICLES
        self.n_unclassified += int((~short).sum())
        if not short.any():
            return
        if not short.all():
            status = status[np.repeat(short, chunk.counts)]
            chunk = chunk[short]
        pdg_id = chunk.particles["pdg_id"].astype(np.int64)
        group = np.select([status == -1, status == 1], [0, 1], 2).astype(np.int64)
        # Incoming partons stay in the order of the beams; the others are sorted, heavy quarks
        # first, particle before antiparticle, gluons last.
        rank = np.where(abs(pdg_id) == 21, 0, -abs(pdg_id))
        keys = [np.where(group == 0, 0, key) for key in (-np.sign(pdg_id), rank)]
        order = np.lexsort((*keys, group, chunk.event_index))
        width = int(chunk.counts.max())
        table = np.zeros((len(chunk), 2 * width), dtype=np.int64)
        column = np.arange(len(pdg_id)) - np.repeat(chunk.offsets[:-1], chunk.counts)
        table[chunk.event_index, column] = pdg_id[order]
        table[chunk.event_index, width + column] = group[order] + 1
        rows, inverse, counts = np.unique(table, axis=0, return_inverse=True, return_counts=True)
        weights = np.bincount(inverse.ravel(), chunk.events["weight"], len(rows))
        for row, n, weight in zip(rows, counts, weights, strict=True):
            ids, groups = row[:width], row[width:]
            incoming, outgoing, between = (tuple(ids[groups == g + 1].tolist()) for g in range(3))
            key = (incoming, outgoing, between)
            if key not in self.subprocesses and len(self.subprocesses) >= MAX_SUBPROCESSES:
                self.n_unclassified += int(n)
                continue
            self.subprocesses[key] += int(n)
            self.subprocess_weight[key] = self.subprocess_weight.get(key, 0.0) + float(weight)

    def as_dict(self, run: RunInfo) -> dict[str, Any]:
        """All results, in plain Python types that JSON can hold."""
        total = self.weight_sum
        return {
            "events": self.n_events,
            "beams": [
                {"pdg_id": pdg_id, "name": particle_name(pdg_id), "energy": energy}
                for pdg_id, energy in zip(run.beam_pdg_id, run.beam_energy, strict=True)
            ],
            "cross_section": finite_or_none(run.cross_section),
            "cross_section_error": finite_or_none(run.cross_section_error),
            "processes": [
                {
                    "process_id": p.process_id,
                    "cross_section": finite_or_none(p.cross_section),
                    "cross_section_error": finite_or_none(p.error),
                }
                for p in run.processes
            ],
            "generators": [
                {"name": name, "version": version} for name, version, _ in run.generators
            ],
            "final_state_particles": {
                str(n): count for n, count in sorted(self.multiplicities.items())
            },
            "subprocesses": [
                {
                    "name": process_name(key[0], key[1]),
                    "incoming": list(key[0]),
                    "outgoing": list(key[1]),
                    "intermediate": list(key[2]),
                    "intermediate_names": [particle_name(i) for i in key[2]],
                    "events": count,
                    "weight_fraction": self.subprocess_weight[key] / total if total else 0.0,
                }
                for key, count in self.subprocesses.most_common()
            ],
            "events_without_subprocess": self.n_unclassified,
            "objects": {
                name: {str(n): found[n] for n in range(min(found), max(found) + 1)}
                for name, found in self.objects.items()
                if max(found) > 0
            },
            "weights": {
                "strategy": run.weight_strategy,
                "mean": total / self.n_events if self.n_events else 0.0,
                "minimum": self.weight_range[0] if self.n_events else 0.0,
                "maximum": self.weight_range[1] if self.n_events else 0.0,
                "negative_events": self.n_negative,
                "effective_events": total**2 / self.weight_square_sum
                if self.weight_square_sum
                else 0.0,
                "named": list(dict.fromkeys([*run.weight_names, *self.weight_names])),
            },
        }


def _counts(values: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    found, counts = np.unique(values, return_counts=True)
    return found.tolist(), counts.tolist()


def summarize(reader: Reader) -> dict[str, Any]:
    """Contents of an opened event file.

    Parameters
    ----------
    reader : Reader
        From `hepgen_ml.events.formats.open_sample`.

    Returns
    -------
    dict
        Events, beams, cross section (pb), processes, generators, multiplicities,
        subprocesses, numbers of reconstructed objects and weights, in plain Python types;
        None for a cross section or an error that is not known.
        ``selected_fraction`` is the part of the cross section that the selection leaves.
    """
    summary = SampleSummary()
    for chunk in reader.chunks():
        summary.add(chunk)
    # Some formats know the cross section only after the last event.
    total = summary.weight_sum + reader.unselected_weight
    return {
        **summary.as_dict(reader.run),
        "skipped_events": reader.n_skipped,
        "unselected_events": reader.n_unselected,
        "selected_fraction": summary.weight_sum / total if total else 1.0,
    }
