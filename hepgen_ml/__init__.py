"""Learned event generation for collider physics."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hepgen_ml.files.version import __version__

# Resolved on first use, so that importing the package loads neither torch nor a file library.
_LAZY = {
    "EventSample": "hepgen_ml.events.sample",
    "RunInfo": "hepgen_ml.events.sample",
    "Regressor": "hepgen_ml.regression.regressor",
    "Generator": "hepgen_ml.generation.generator",
    "Selection": "hepgen_ml.events.objects",
    "Tagger": "hepgen_ml.classification.tagger",
    "convert": "hepgen_ml.events.conversion",
    "merge": "hepgen_ml.events.joining",
    "parse_objects": "hepgen_ml.events.objects",
    "read": "hepgen_ml.events.formats",
    "write": "hepgen_ml.events.formats",
}

__all__ = [
    "EventSample",
    "Generator",
    "Regressor",
    "RunInfo",
    "Selection",
    "Tagger",
    "__version__",
    "convert",
    "merge",
    "parse_objects",
    "read",
    "write",
]

if TYPE_CHECKING:
    from hepgen_ml.classification.tagger import Tagger
    from hepgen_ml.events.conversion import convert
    from hepgen_ml.events.formats import read, write
    from hepgen_ml.events.joining import merge
    from hepgen_ml.events.objects import Selection, parse_objects
    from hepgen_ml.events.sample import EventSample, RunInfo
    from hepgen_ml.generation.generator import Generator
    from hepgen_ml.regression.regressor import Regressor


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
