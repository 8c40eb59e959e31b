"""Description of a trained model in plain values."""

from __future__ import annotations

from typing import Any

from hepgen_ml.events.run import finite_or_none
from hepgen_ml.files.garbage import uncollected
from hepgen_ml.models.storage import TrainedModel
from hepgen_ml.process.understanding import subprocess_name, understood
from hepgen_ml.reweighting.named_weights.ratios import WeightRatios


@uncollected()
def describe(model: TrainedModel, ratios: WeightRatios | None = None) -> dict[str, Any]:
    """Facts about a model, as plain values for `hepgen-ml info`."""
    process, run = model.process, model.run
    return {
        "model": model.config.model,
        "parameters": model.surrogate.n_parameters,
        "beams": list(run.beam_pdg_id),
        "beam_energy": list(run.beam_energy),
        "cross_section": finite_or_none(run.cross_section),
        "cross_section_error": finite_or_none(run.cross_section_error),
        "subprocesses": [
            {
                "name": subprocess_name(s),
                "process_id": s.structure.process_id,
                "incoming": [s.structure.pdg_id[r] for r in s.structure.incoming],
                "final": [s.structure.pdg_id[r] for r in s.structure.final],
                "frequency": s.frequency,
                "patterns": len(s.patterns),
                **({"full_energy": list(s.full_energy)} if any(s.at_full) else {}),
            }
            for s in process.subprocesses
        ],
        "understood": [list(pair) for pair in understood(process, run, model.facts)],
        **({} if process.conditions is None else {
            "conditions": [
                {"name": c.name, "values": c.range, "levels": list(c.levels)}
                for c in process.conditions.each
            ],
        }),
        "cuts": process.cuts_in_words,
        "evidence": process.acceptance.described(),
        "coordinates": [[c.name for c in ch.coordinates] for ch in process.channels],
        "weight_variations": [
            {"name": w.name, "description": w.text, "constant": w.constant, **w.facts}
            for w in (ratios.weights if ratios is not None else [])
        ],
        "training": model.facts,
        "config": model.config.model_dump(),
    }  # fmt: skip
