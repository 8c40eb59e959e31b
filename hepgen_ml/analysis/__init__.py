"""Measurements on events: final states, observables, conservation laws, comparisons."""
