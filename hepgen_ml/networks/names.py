"""Names of the networks of whole events; loads no torch, so that help texts can list them."""

EVENT_NETWORKS = ("mlp", "deep-sets", "transformer", "gap", "gatr", "lgatr")
"""See `hepgen_ml.networks.event_networks`."""

REFERENCES = ("none", "time", "beams", "beams+time", "plane", "plane+time")
"""Directions that define a frame for an equivariant network."""
