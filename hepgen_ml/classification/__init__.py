"""Taggers: classes of jets learned from their constituents."""

from hepgen_ml.classification.tagger import Tagger

__all__ = ["Tagger"]
