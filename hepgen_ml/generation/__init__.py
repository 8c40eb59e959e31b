"""New events from a trained surrogate."""
