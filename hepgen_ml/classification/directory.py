"""The directory of a tagger."""

from __future__ import annotations

from collections.abc import Iterable

from hepgen_ml.events.jets import Jets
from hepgen_ml.files.directories import Contents
from hepgen_ml.training.learner_directory import LearnerDirectory, fingerprint_of

FILE = "tagger.safetensors"
"""The finished tagger."""

DIRECTORY = LearnerDirectory(
    Contents("a tagger", finished=FILE, plan="tagging.json"),
    "other jets, another network, seed or first tagger",
)


def fingerprint(parts: Iterable[Jets], about: object) -> str:
    """Hash of jets and of the settings that a training depends on."""
    some = list(parts)
    columns = [c for jets in some for c in (jets.offsets, jets.momenta, jets.features)]
    return fingerprint_of(columns, (about, [jets.label.tolist() for jets in some]))
