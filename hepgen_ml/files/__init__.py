"""Outputs that appear when whole, locks, and stored documents that are checked when read."""
