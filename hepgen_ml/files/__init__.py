"""Outputs that appear when complete, locks, and stored documents that are validated on reading."""
