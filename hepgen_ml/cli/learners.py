"""Contents of directories of regressions, taggers and classifiers, for ``hepgen-ml info``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from hepgen_ml.cli.console import stdout_console
from hepgen_ml.cli.quantities import duration
from hepgen_ml.cli.tables import two_columns
from hepgen_ml.errors import ModelError

_REGRESSION, _TAGGER, _CLASSIFIER = (
    f"{name}.safetensors" for name in ("regression", "tagger", "classifier")
)
_PLANS = {"regression.json": "regress", "tagging.json": "tag train", "training.json": "train"}

_MOST = 8
"""Names that are listed in a row of a table."""


def described(directory: Path) -> dict[str, Any] | None:
    """Plain values about a regression, tagger or classifier; None for other directories.

    Raises
    ------
    ModelError
        It is damaged, or a training in it is not finished.
    """
    names = set(os.listdir(directory))
    if "config.json" in names:
        return None
    if _REGRESSION in names:
        from hepgen_ml.regression.regressor import Regressor

        return Regressor.load(directory).described()
    if _TAGGER in names:
        from hepgen_ml.classification.tagger import Tagger

        return Tagger.load(directory, "cpu").described()
    if _CLASSIFIER in names:
        from hepgen_ml.reweighting.reweighter import Reweighter

        return {"kind": "classifier", **Reweighter.load(directory).facts}
    for plan, verb in _PLANS.items():
        if plan in names:
            raise ModelError(
                "holds an unfinished training", path=directory,
                remedy=f"continue with `hepgen-ml {verb} --resume` and the original options",
            )  # fmt: skip
    return None


def show(path: Path, found: Mapping[str, Any]) -> None:
    """Print what `described` found."""
    table = two_columns(str(path))
    for name, value in {
        "regression": _regression, "tagger": _tagger, "classifier": _classifier,
    }[found["kind"]](found).items():  # fmt: skip
        table.add_row(name, Text(value))
    stdout_console().print(table)


def _regression(found: Mapping[str, Any]) -> dict[str, str]:
    facts, target = found["training"], found["target"]
    learned = {"ratio": "over the nominal weight", "weight": "the nominal weight"}.get(
        target["kind"], ""
    )
    scale = "its logarithm, " if target["logarithmic"] else ""
    return {
        "regression": f"{found['network']}, {found['parameters']:,} parameters"
        + (f", {found['members']} networks" if found["members"] > 1 else "")
        + (", last layer with a posterior" if found["bayesian"] else ""),
        "target": ", ".join(part for part in (target["name"], learned) if part),
        "learned as": f"{scale}mean {target['mean']:.6g}, width {target['std']:.6g}",
        "events of": _some(found["final_states"], "; "),
        "inputs": "momenta and particles"
        + "".join(f", {name}" for name in found["columns"]),
        "size of network": _sizes(found["sizes"]),
        "trained": f"{facts['events']:,} events, {facts['steps']:,} steps in "
        f"{duration(facts['seconds'])}, loss {facts['loss']}, seed {facts['seed']}",
        "held out": f"{facts['held_out_events']:,} events: median error "
        f"{facts['median_error']:.3%}, 99 % below {facts['error_99']:.2%}, mean squared error "
        f"{facts['mse']:.3g}",
        "calibration": f"pulls of width {facts['pull_width']:.2f}; from small to large target: "
        + ", ".join(f"{w:.2f}" for w in facts["pull_widths"]),
    }


def _tagger(found: Mapping[str, Any]) -> dict[str, str]:
    facts = found["training"]
    jets = [f"{name} ({n:,} jets)" for name, n in facts["jets"].items()]
    rows = {
        "tagger": f"{found['network']}, {facts['parameters']:,} parameters",
        "classes": _some(jets),
        "inputs": {
            "kinematic": "momenta, and logarithms and angles relative to the jet",
            "momenta": "momenta",
        }[found["inputs"]]
        + "".join(f", {name}" for name in found["features"]),
        "constituents": f"the {found['most']} hardest of each jet",
        "size of network": _sizes(found["sizes"]),
        "trained": f"{facts['steps']:,} steps ({facts['passes']:.4g} passes) in "
        f"{duration(facts['seconds'])}",
        "validation loss": f"{facts['validation_loss']:.4f}",
    }
    if facts["fine_tuned_from"]:
        rows["fine-tuned from"] = f"a tagger of {_some(facts['fine_tuned_from'])}"
    return rows


def _classifier(found: Mapping[str, Any]) -> dict[str, str]:
    groups = found.get("groups", {})
    names = [c["name"] for c in found.get("conditions", ())]
    return {
        "classifier": f"{found['network']}, {found['folds']} folds",
        "inputs": "observables and momenta"
        + (", flavours, helicities, colours, scales" if found["full"] else "")
        + "".join(f", {name}" for name in names),
        "events": f"{found.get('truth_events', 0):,} of the truth, "
        f"{found.get('generated_events', 0):,} generated",
        "final states": _some(list(groups), "; "),
        "effective sample size": f"{found.get('effective_sample_size', 0.0):.1%}",
    }


def _some(names: list[str], separator: str = ", ") -> str:
    more = f" … ({len(names)})" if len(names) > _MOST else ""
    return separator.join(names[:_MOST]) + more


def _sizes(sizes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sizes.items()) or "default"
