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

import numpy as np
from split import divide

import hepgen_ml
from hepgen_ml.events.objects import Selection, parse_objects
from hepgen_ml.events.sample import EventSample
from hepgen_ml.files.model_files import CARD, CONFIG, VALIDATION, WEIGHTS
from hepgen_ml.models.included import PRETRAINED

LICENCE = "of the model: BSD 3-Clause, as the package; that of the sample is not stated"


MOST_GENERATED = 50_000
"""Generated events that judge a model, if there are as many to compare with."""


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
    cross_section : str
        Of the sample where its files do not state it, in pb.
    settings : tuple of str
        That are not the defaults.
    """

    sample: str
    provenance: str
    minutes: float
    fraction: float = 0.75
    objects: str = ""
    cross_section: str = ""
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
        "1460.9+-0.9",
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
        10,
    ),
}


def events(path: Path, recipe: Recipe) -> EventSample:
    """All events of a file."""
    selection = Selection(parse_objects(recipe.objects)) if recipe.objects else None
    return hepgen_ml.read(path, selection=selection)


def parts(directory: Path, name: str) -> tuple[Path, Path]:
    """Files of the events to train on and of those that judge, made if need be."""
    recipe = MODELS[name]
    suffix = ".root" if recipe.objects else ".lhe.gz"
    train, truth = (directory / f"{name}_{part}{suffix}" for part in ("learned", "truth"))
    if not (train.exists() and truth.exists()):
        source = Path(os.environ.get("HEPGEN_ML_DATA", "")) / recipe.sample
        if not source.is_file():
            raise SystemExit(f"{source} is missing: set HEPGEN_ML_DATA")
        sample = events(source, recipe)
        for path, rows in zip((train, truth), divide(len(sample), recipe.fraction), strict=True):
            hepgen_ml.write(sample[rows], path, force=True)
    return train, truth


def _objects(name: str) -> list[str]:
    recipe = MODELS[name]
    options = {"--objects": recipe.objects, "--cross-section": recipe.cross_section}
    return [word for option, value in options.items() if value for word in (option, value)]


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
    facts = {
        "command": f"python benchmarks/pretrained.py train {name} --minutes "
        f"{minutes or recipe.minutes:g}",
        "commit": _commit(),
    }
    (directory / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")


def judge(directory: Path, name: str) -> None:
    """Store the model as the package holds it, and validate this by events that only judge.

    What is stored is `directory`/`name`_stored, the report `directory`/`name`_report.
    """
    recipe = MODELS[name]
    _, truth = parts(directory, name)
    generator = hepgen_ml.Generator.load(directory / name, device="cpu")
    generator.facts |= {
        "sample_files": [f"a random {recipe.fraction:.3g} of the events of {recipe.sample}"],
        "sample": recipe.provenance,
        "licence": LICENCE,
        **json.loads((directory / f"{name}.json").read_text()),
    }
    stored = directory / f"{name}_stored"
    generator.save(stored, force=True, half=True)
    sample = events(truth, recipe)
    generator.facts["half_precision"] = shift(generator, stored, sample)
    generator.save(stored, force=True, half=True)
    command = [
        sys.executable, "-m", "hepgen_ml", "validate", "--model", stored.name, "--truth",
        truth.name, "--out", f"{name}_report", "--force", *_objects(name),
        "--events", str(min(len(sample), MOST_GENERATED)),
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=directory)
    summary = json.loads((stored / VALIDATION).read_text())
    for s in summary["final_states"]:
        areas = "; ".join(
            f"{key} {s[key]['value']:.4f} ± {s[key]['error']:.4f} "
            f"({s[key + '_floor']['value']:.4f})" for key in ("auc", "auc_full")
        )  # fmt: skip
        print(
            f"{name}: {s['final_state']}, {s['sample']}: {areas}; largest chi2/ndf "
            f"{s['largest_chi2_per_ndf']} in {s['largest_chi2_observable']} "
            f"({s['largest_chi2_per_ndf_floor']}); laws broken: {summary['laws']['broken']}"
        )


def shift(
    generator: hepgen_ml.Generator, stored: Path, sample: EventSample, n: int = 10_000
) -> str:
    """What half precision changes of the log density of held-out events, in words."""
    sample = sample[np.random.default_rng(1).permutation(len(sample))[:n]]
    rounded = hepgen_ml.Generator.load(stored, device="cpu")
    a, b = (g.log_prob(sample) for g in (generator, rounded))
    known = np.isfinite(a) & np.isfinite(b)
    difference = b[known] - a[known]
    error = a[known].std() / np.sqrt(known.sum())
    return (
        f"changes the mean log density of {known.sum()} held-out events by "
        f"{difference.mean():+.2g} (its statistical error is {error:.2g}), that of one event by "
        f"{difference.std():.2g} (root mean square), {np.abs(difference).max():.2g} at most"
    )


def install(directory: Path, name: str) -> None:
    """Copy a judged model into the package."""
    stored, place = directory / f"{name}_stored", PRETRAINED / name
    if not (stored / VALIDATION).is_file():
        raise SystemExit(f"{stored} has not been judged")
    hepgen_ml.Generator.load(stored, device="cpu")
    for part in (WEIGHTS, CONFIG, CARD, VALIDATION):
        if part != WEIGHTS and str(directory.resolve()) in (stored / part).read_text():
            raise SystemExit(f"{stored / part} names {directory.resolve()}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for part in (WEIGHTS, CARD, VALIDATION, CONFIG):
        shutil.copyfile(stored / part, place / part)
    size = sum(file.stat().st_size for file in PRETRAINED.rglob("*") if file.is_file())
    print(f"{place}; all models take {size / 1e6:.1f} MB")


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=("train", "judge", "install"))
    parser.add_argument("names", nargs="+", choices=MODELS, metavar="NAME")
    parser.add_argument("--dir", type=Path, default=Path("models"))
    parser.add_argument("--minutes", type=float, help="of training, if not those of the recipe")
    options = parser.parse_args()
    options.dir.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        if options.verb == "train":
            train(options.dir, name, options.minutes)
        else:
            {"judge": judge, "install": install}[options.verb](options.dir, name)


if __name__ == "__main__":
    main()
