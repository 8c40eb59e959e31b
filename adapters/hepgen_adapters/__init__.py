"""File formats and partner programs, one file each, found through entry points."""
