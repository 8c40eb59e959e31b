"""Description, in sentences for physicists, of what a model has learned from its sample.

`hepgen-ml train` ends with them and `hepgen-ml info` shows them, so that a wrong interpretation is
noticed before a million events are generated. The sentences follow from the process and the facts
about the training; facts that a model lacks are left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hepgen_ml.events.sample import UNKNOWN_SPIN, RunInfo
from hepgen_ml.events.summary import particle_name, process_name
from hepgen_ml.phase_space import (
    Acceptance,
    Chart,
    DecayChart,
    FixedEnergyChart,
)
from hepgen_ml.phase_space.chart import incoming_momenta
from hepgen_ml.process.channels import Subprocess
from hepgen_ml.process.conditions import Conditions
from hepgen_ml.process.lifetimes import Lifetime
from hepgen_ml.process.process import Process
from hepgen_ml.process.resonances_in_words import MOST_RESONANCES, resonances_in_words
from hepgen_ml.process.scales_in_words import MOST_NAMED, scales_in_words, some

_MOST_CUTS = 12


def understood(process: Process, run: RunInfo, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sentences about a process, each with its subject.

    Parameters
    ----------
    process : Process
    run : RunInfo
        Of generated events.
    facts : mapping
        About the training, see `hepgen_ml.training.fit`; facts that are not given are left out.
    """
    lines = [
        ("beams", _beams(process, run)),
        ("subprocesses", _subprocesses(process)),
        ("resonances", resonances_in_words(process)),
        ("cuts", _cuts(process)),
    ]
    if process.conditions is not None:
        lines.insert(1, ("conditions", _conditions(process.conditions)))
    if not process.is_reconstructed:
        lines.append(("scale, couplings", scales_in_words(process, facts)))
    if process.lifetimes:
        named = [_lifetime(v) for v in process.lifetimes]
        together = "; zero or not together as in the sample" if process.lifetime_patterns else ""
        lines.append(("lifetimes", some(named, MOST_RESONANCES) + together))
    if weights := _weights(facts):
        lines.append(("weights", weights))
    if symmetry := _symmetry(facts):
        lines.append(("symmetry", symmetry))
    missing = _not_learned(process, run, facts)
    lines.append(("not learned", "; ".join(missing) or "nothing is left out"))
    return lines


def _conditions(conditions: Conditions) -> str:
    """Names and values of the user's conditions."""
    text = "; ".join(f"{c.name}, {c.range}" for c in conditions.each)
    if not conditions.scan:
        return f"{text}; continuous"
    known = "cross section at each" if len(conditions.cross_sections) else "no cross sections"
    return f"{text}; {len(conditions.points)} points, {known}"


def _beams(process: Process, run: RunInfo) -> str:
    known = any(run.beam_energy)
    beams = [
        f"{particle_name(i)} {e:g} GeV" if e > 0 else f"{particle_name(i)} of energies not stated"
        for i, e in zip(run.beam_pdg_id, run.beam_energy, strict=True)
    ]
    text = " on ".join(beams) if known else "energies not stated"
    if process.is_reconstructed:
        return f"{text}; events are reconstructed objects, without incoming particles"
    charts = [_production(c.chart) for c in process.channels]
    if all(isinstance(c, FixedEnergyChart) and not c.n_beams for c in charts):
        total = charts[0].total  # type: ignore[attr-defined]
        root = float(np.sqrt(max(total[3] ** 2 - total[2] ** 2, 0.0)))
        return f"{text}; both of fixed energy, √s = {root:.8g} GeV in every event"
    parts = [_incoming(process, charts, side) for side in range(2)]
    return f"{text}; incoming {' and '.join(dict.fromkeys(parts))}"


def _incoming(process: Process, charts: Sequence[Chart], side: int) -> str:
    """Particles of one beam and their energies, which may depend on the flavour."""
    flavours: dict[float | None, set[int]] = {}
    full: dict[float, float] = {}
    for s in process.subprocesses:
        own = s.full_energy[side]
        if own is not None:  # events of the same flavours have less
            full[own] = full.get(own, 0.0) + s.frequency
            continue
        own = _incoming_energies(charts[s.chart], s.incoming_masses)[side]
        flavours.setdefault(own, set()).add(s.structure.beams[side])
    limit = _up_to(process.beam_energy[side])
    exactly = "".join(f", and {e:.8g} GeV in {100 * f:.3g} % of all" for e, f in full.items())
    return " or ".join(
        f"{_species(flavours[e])} of "
        + (limit + exactly if e is None else f"{e:.8g} GeV in every event")
        for e in sorted(flavours, key=lambda e: (e is None, e))
    )


def _incoming_energies(chart: Chart, masses: tuple[float, float]) -> tuple[float | None, ...]:
    """Energies in GeV of the incoming particles of a chart that do not vary."""
    if isinstance(chart, FixedEnergyChart) and not chart.n_beams:
        total = torch.tensor(chart.total, dtype=torch.float64)
        return tuple(float(f"{e:.10g}") for e in incoming_momenta(total, *masses)[:, 3].tolist())
    return getattr(chart, "energies", (None, None))


def _production(chart: Chart) -> Chart:
    """Chart of the particles produced in the collision."""
    return chart.production if isinstance(chart, DecayChart) else chart


def _up_to(limit: float) -> str:
    return f"any energy up to {limit:.6g} GeV"


def _species(ids: set[int]) -> str:
    """Particles in words: partons, or their names."""
    partons = {i for i in ids if abs(i) <= 6 or i == 21}
    if partons == ids:
        return "partons"
    if partons and len(ids - partons) == 1:
        return f"partons and {particle_name(*(ids - partons))}"
    return some([particle_name(i) for i in sorted(ids)], MOST_NAMED)


def _subprocesses(process: Process) -> str:
    ranked = sorted(process.subprocesses, key=lambda s: -s.frequency)
    sizes = [len(c.coordinates) for c in process.channels]
    reactions = Counter(map(_reaction, ranked))
    names = [
        f"{subprocess_name(s)}{_rows(s) if reactions[_reaction(s)] > 1 else ''} "
        f"{100 * s.frequency:.3g} %"
        for s in ranked[:MOST_NAMED]
    ]
    more = len(ranked) - len(names)
    spread = f"{min(sizes)} to {max(sizes)}" if min(sizes) < max(sizes) else f"{sizes[0]}"
    return (
        f"{_number(len(ranked), 'subprocess', 'subprocesses')} in "
        f"{_number(len(sizes), 'channel', 'channels')} of {spread} coordinates: "
        + "; ".join(names) + (f" and {more} more" if more else "")
    )


def _reaction(s: Subprocess) -> tuple[Any, ...]:
    """What `subprocess_name` says of a subprocess."""
    ids = s.structure.pdg_id
    incoming, final = ([ids[r] for r in rows] for rows in (s.structure.incoming, s.structure.final))
    return tuple(incoming), tuple(sorted(final)), s.at_full


def _rows(s: Subprocess) -> str:
    """Resonances of a subprocess, which tell it from others of the same reaction."""
    names = [particle_name(s.structure.pdg_id[r]) for r in s.structure.intermediate]
    return f" (record with {' '.join(sorted(names))})" if names else " (record without resonances)"


def subprocess_name(s: Subprocess) -> str:
    """Reaction, and which of its incoming particles have the full energy."""
    ids = s.structure.pdg_id
    incoming = [ids[r] for r in s.structure.incoming]
    final = [ids[r] for r in s.structure.final]
    if not incoming:
        return " ".join(map(particle_name, final))
    full = [particle_name(i) for i, has in zip(incoming, s.at_full, strict=True) if has]
    name = process_name(incoming, final)
    return f"{name} ({' and '.join(full)} at full energy)" if full else name


def _lifetime(lifetime: Lifetime) -> str:
    """A species and its distribution."""
    kind = "as in the sample, mean" if lifetime.quantiles else "exponential with"
    prompt = f", {100 * lifetime.prompt:.3g} % prompt" if lifetime.prompt > 0 else ""
    of = "" if lifetime.status == 1 else " that decays in the record,"
    of += "" if lifetime.process is None else f" in process {lifetime.process}"
    text = f"{particle_name(lifetime.pdg_id)}{of} {kind} cτ = {lifetime.mean:.4g} mm{prompt}"
    return text if lifetime.law is None else f"{text}, following the conditions"


def _weights(facts: Mapping[str, Any]) -> str:
    events, effective = facts.get("events"), facts.get("effective_events")
    if events is None or effective is None:
        return ""
    if effective >= 0.999 * events and not facts.get("event_weights"):
        return f"equal, {events:,} events"
    negative = facts.get("negative_weights") or 0.0
    signed = f", {100 * negative:.3g} % of them negative" if negative else ""
    if about := facts.get("event_weights"):
        return (
            f"of {events:,} events differ{signed}: the biased density is learned, and weights by "
            f"{about['rule']} with a relative precision of {about['precision']:.2g}"
        )
    return f"of {events:,} events differ{signed}: effective sample size {effective:,}"


def _symmetry(facts: Mapping[str, Any]) -> str:
    parts = []
    for key, name in (("beam_exchange", "exchange of the beams"), ("reflection", "reflection")):
        if facts.get(key):
            parts.append(f"{name} {facts[key]}")
    return "; ".join(parts)


def _not_learned(process: Process, run: RunInfo, facts: Mapping[str, Any]) -> list[str]:
    """Properties of the sample that generated events do not have."""
    found = list(facts.get("not_learned") or [])
    flat = [
        s for s in process.subprocesses
        if s.structure.intermediate
        and not isinstance(process.channels[s.chart].chart, DecayChart)
        and not _has_all_of_the_collision(s, process.channels[s.chart].chart)
    ]  # fmt: skip
    if flat:
        share = sum(s.frequency for s in flat)
        example = max(flat, key=lambda s: s.frequency)
        names = {particle_name(example.structure.pdg_id[r]) for r in example.structure.intermediate}
        found.append(
            f"the record of {_number(len(flat), 'subprocess', 'subprocesses')} "
            f"({100 * share:.3g} % of the events) is not a chain of decays, so that no peak is "
            f"built in: {subprocess_name(example)} by {', '.join(sorted(names))}"
        )
    if not process.is_reconstructed:
        found += _patterns_not_given(process)
    if (unseen := facts.get("unseen_structures") or 0.0) > 0.001:
        found.append(
            f"about {100 * unseen:.2g} % of the cross section is in subprocesses, colour flows or "
            "helicities that the sample lacks"
        )
    if lost := facts.get("events_not_translated"):
        found.append(f"{lost:,} events that could not be translated are left out")
    if bad := facts.get("bad_events_skipped"):
        found.append(f"{bad:,} bad events are left out")
    if not run.cross_section > 0:
        found.append("the cross section is not known")
    return found


def _has_all_of_the_collision(s: Subprocess, chart: Chart) -> bool:
    """Whether the beams' energies are the coordinates of a resonance: it is all that is made."""
    of_all = all(s.structure.leaves(r) == s.structure.final for r in s.structure.intermediate)
    return of_all and isinstance(chart, FixedEnergyChart)


def _patterns_not_given(process: Process) -> list[str]:
    """Colours and helicities that the sample does not state."""
    colours = spins = has_partons = False
    for s in process.subprocesses:
        n = len(s.structure.pdg_id)
        colours |= bool(s.patterns[:, : 2 * n].any())
        spins |= bool((s.patterns[:, 2 * n :] != UNKNOWN_SPIN).any())
        has_partons |= any(abs(i) <= 6 or i == 21 for i in s.structure.pdg_id)
    found = []
    if has_partons and not colours:
        found.append("colour flow is not given, so that Pythia cannot shower the events")
    if not spins:
        found.append("helicities are not given")
    return found


def _cuts(process: Process) -> str:
    """A line for each bound, with its evidence; particles before pairs."""
    cuts = sorted(process.acceptance.cuts, key=lambda cut: len(cut.classes))
    lines = Acceptance(cuts).described()
    if process.conditions is not None:
        lines = [c.described(process.conditions) for c in process.moving_cuts] + lines
    more = len(lines) - _MOST_CUTS
    return "\n".join([*lines[:_MOST_CUTS], *([f"and {more} more"] if more > 0 else [])]) or "none"


def _number(n: int, one: str, several: str) -> str:
    return f"{n:,} {one if n == 1 else several}"
