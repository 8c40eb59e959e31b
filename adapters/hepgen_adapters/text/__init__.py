"""Compiled handling of text: words in memory, and numbers as decimal digits."""
