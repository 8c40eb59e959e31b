"""Networks from sets of particles to numbers: amplitudes, weights, labels of events and jets.

`build` makes one by name; all are called alike, as `EventNetwork` describes.
"""

from hepgen_ml.networks.event_networks.base import EventNetwork
from hepgen_ml.networks.event_networks.registry import build, sizes

__all__ = ["EventNetwork", "build", "sizes"]
