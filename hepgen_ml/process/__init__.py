"""A process as learned from its events: subprocesses, channels, charts, scales."""
