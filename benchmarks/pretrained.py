"""Train, judge and install the models that come with the package.

    python benchmarks/pretrained.py train zjets --dir models      # a fixed part of its sample
    python benchmarks/pretrained.py judge zjets --dir models      # by the other part
    python benchmarks/pretrained.py install zjets --dir models    # into hepgen_ml/pretrained

Samples lie in the directory that HEPGEN_ML_DATA names. Each is split at random, always in the same
way, into events to train on and events that only judge: nothing is chosen with these. `judge`
stores the weights in half precision, measures what this changes of the density of events that
training never saw, and validates the model as it is stored. `install` copies it with its card.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from split import divide

import hepgen_ml
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample

OURS = "made for this package, released under its licence"


@dataclass(frozen=True)
class Recipe:
    """How a model of the package is made.

    Attributes
    ----------
    sample : str
        File in the directory that HEPGEN_ML_DATA names.
    provenance : str
        What made it.
    minutes : float
        Of training.
    fraction : float
        Of the events that it is trained on.
    objects : str
        Of reconstructed events.
    settings : tuple of str
        That are not the defaults.
    """

    sample: str
    provenance: str
    minutes: float
    fraction: float = 0.75
    objects: str = ""
    settings: tuple[str, ...] = ()


MODELS = {
    "ttbar01j": Recipe(
        "ttbar01j_train.lhe.gz",
        "pp -> t t~ and t t~ j at 13 TeV, MadGraph5_aMC@NLO 3.7.1, leading order, nn23lo1",
        20,
        0.667,
    ),
    "zjets": Recipe(
        "zjets_train.root",
        "pp -> Z -> mu mu with 0 to 6 anti-kT jets (R = 0.4, pT > 20 GeV, |eta| < 5) at 13 TeV, "
        "Pythia 8.317 with shower and hadronization, without multi-parton interactions",
        33,
        0.8,
        "Muon:2,Jet:0-6",
        ("jetgpt.bayesian=last",),
    ),
    "ttbar_hadronic": Recipe(
        "ttbar_hadronic_train.lhe.gz",
        "pp -> t t~ -> b q q'~ b~ q q'~ at 13 TeV, Pythia 8.317, hard process",
        22,
    ),
    "drellyan": Recipe(
        "drellyan_train.lhe.gz",
        "pp -> gamma*/Z -> mu mu, 60 to 120 GeV, at 13 TeV, Pythia 8.317, hard process",
        8,
    ),
    "ttbar2j": Recipe(
        "ttbar2j_train.lhe.gz",
        "pp -> t t~ j j at 13 TeV, MadGraph5_aMC@NLO 3.7.1, leading order, nn23lo1",
        15,
    ),
}


def parts(directory: Path, name: str) -> tuple[Path, Path]:
    """Files of the events to train on and of those that judge, made if need be."""
    recipe = MODELS[name]
    suffix = ".root" if recipe.objects else ".lhe.gz"
    train, truth = (directory / f"{name}_{part}{suffix}" for part in ("learned", "truth"))
    if not (train.exists() and truth.exists()):
        source = Path(os.environ.get("HEPGEN_ML_DATA", "")) / recipe.sample
        if not source.is_file():
            raise SystemExit(f"{source} is missing: set HEPGEN_ML_DATA")
        selection = Selection(parse_objects(recipe.objects)) if recipe.objects else None
        sample = hepgen_ml.read(source, selection=selection)
        for path, rows in zip((train, truth), divide(len(sample), recipe.fraction), strict=True):
            hepgen_ml.write(sample[rows], path, force=True)
    return train, truth


def _objects(name: str) -> list[str]:
    return ["--objects", MODELS[name].objects] if MODELS[name].objects else []


def train(directory: Path, name: str, minutes: float | None) -> None:
    """Train by the command line, in the model directory `directory`/`name`."""
    recipe = MODELS[name]
    learned, _ = parts(directory, name)
    settings = [part for setting in recipe.settings for part in ("--set", setting)]
    arguments = [
        "train", "--from", str(learned), *_objects(name), *settings,
        "--max-time", f"{60 * (minutes or recipe.minutes):g}s", "--out", str(directory / name),
    ]  # fmt: skip
    command = [sys.executable, "-m", "hepgen_ml", *arguments]
    subprocess.run(command, check=True)
    facts = {"command": " ".join(["hepgen-ml", *arguments]), "commit": _commit()}
    (directory / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("train",))
    parser.add_argument("names", nargs="+", choices=MODELS, metavar="NAME")
    parser.add_argument("--dir", type=Path, default=Path("models"))
    parser.add_argument("--minutes", type=float, help="of training, if not those of the recipe")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        train(options.dir, name, options.minutes)


if __name__ == "__main__":
    main()
