"""Network architectures, without losses."""
