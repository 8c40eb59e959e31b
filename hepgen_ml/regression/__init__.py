"""Functions of events: weight variations learned with a sample, and regressions of any number."""
