"""Lorentz-equivariant geometric-algebra transformer: algebra, layers, network."""

from hepgen_ml.networks.lgatr.algebra import Multivectors
from hepgen_ml.networks.lgatr.layers import Symmetry
from hepgen_ml.networks.lgatr.network import LGATr

__all__ = ["LGATr", "Multivectors", "Symmetry"]
