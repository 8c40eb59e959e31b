"""Comparison of generated events with truth, and its report."""
