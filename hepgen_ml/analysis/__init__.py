"""Measurements on events: final states, observables, comparisons."""
