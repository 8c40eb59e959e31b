"""The model card: a description of a trained model for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hepgen_ml.config import Config
from hepgen_ml.events.sample import RunInfo
from hepgen_ml.process.process import Process


def model_card(
    process: Process,
    config: Config,
    run: RunInfo,
    facts: Mapping[str, Any],
    validation: Mapping[str, Any] | None = None,
) -> str:
    """Markdown description of a model for people; `validation` is what `store_validation` keeps."""
    cuts = "\n".join(f"- {cut} (GeV where it applies)" for cut in process.cuts_in_words)
    energy = sum(run.beam_energy)
    subprocesses = sorted(process.subprocesses, key=lambda s: -s.frequency)
    names = "\n".join(
        f"- {' '.join(str(s.structure.pdg_id[r]) for r in s.structure.incoming)} -> "
        f"{' '.join(str(s.structure.pdg_id[r]) for r in s.structure.final)}: {s.frequency:.4%}"
        for s in subprocesses[:20]
    )
    more = len(subprocesses) - 20
    training = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in facts.items())
    return (
        f"# Event surrogate ({config.model})\n\n"
        f"- beams: {run.beam_pdg_id[0]} and {run.beam_pdg_id[1]} (PDG numbers) at "
        f"{energy:g} GeV in all\n"
        f"- cross section: {_cross_section(run)}\n"
        f"- subprocesses: {len(subprocesses)}\n{_conditions(process)}\n"
        f"## Cuts\n\n{cuts or 'none found'}\n\n"
        f"## Subprocesses\n\n{names}\n"
        + (f"- and {more} more\n" if more > 0 else "")
        + f"\n## Training\n\n{training}\n\n"
        + ("" if validation is None else _validation_section(validation))
        + "Events outside the cuts and subprocesses above are not described by this model.\n"
    )


def _conditions(process: Process) -> str:
    if process.conditions is None:
        return ""
    named = "; ".join(f"{c.name}, {c.range}" for c in process.conditions.each)
    return f"- conditions: {named}\n"


def _cross_section(run: RunInfo) -> str:
    sigma, error = run.cross_section, run.cross_section_error
    if not math.isfinite(sigma):
        return "not known"
    stated = f"{sigma:.8g} +- {error:.2g} pb" if math.isfinite(error) else f"{sigma:.8g} pb"
    return f"{stated}, that of the training sample"


def _validation_section(found: Mapping[str, Any]) -> str:
    """Markdown of a report's summary."""
    rows = []
    for s in found["final_states"]:
        areas = (s[key] for key in ("auc", "auc_full", "auc_floor"))
        cells = " | ".join(f"{a['value']:.4f} ± {a['error']:.4f}" for a in areas)
        chi2 = s["largest_chi2_per_ndf"]
        largest = "none" if chi2 is None else f"{chi2:.2f} ({s['largest_chi2_observable']})"
        rows.append(f"| {s['final_state']}, {s['sample']} | {cells} | {largest} |")
    broken = found["laws"]["broken"]
    rates = "".join(
        f"- {kind}: largest pull {r['worst_pull']:+z.1f} of {r['categories']} ({r['worst']})\n"
        for kind, r in found["rates"].items()
    )
    made = found["generated"]
    return (
        f"## Validation\n\n{made['events']:,} generated events against "
        f"{found['truth']['events']:,} events of truth, {found['date'][:10]}. Areas under the ROC "
        "curve of boosted trees, 0.5 if the samples cannot be separated; the last one is truth "
        "against truth.\n\n"
        "| events | AUC, kinematics | AUC, all inputs | AUC of truth | largest chi2/ndf |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n\n"
        f"- conservation laws: {found['laws']['judged']} judged, "
        f"{'broken: ' + ', '.join(broken) if broken else 'none broken'}\n{rates}"
        f"- generation: {made['events_per_second']:,.0f} events/s on {made['device']}\n\n"
    )
