"""Functions of events that are learned with a sample: weight variations."""
