"""Training loop, data split and checkpoints."""
