"""Classifier between two samples: the ratio of their densities, where it deviates, and its use."""

from hepgen_ml.reweighting.reweighter import Reweighter

__all__ = ["Reweighter"]
