"""Whether events are physics: conservation laws, metrics and comparisons."""
