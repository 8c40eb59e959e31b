"""Event samples: columns, formats, sources, merging and conversion. Needs no torch."""
