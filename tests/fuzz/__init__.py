"""A campaign of mutated files, which anyone can run: ``make fuzz N=10000``."""
