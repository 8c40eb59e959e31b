"""Probability densities over the coordinates of a process."""
