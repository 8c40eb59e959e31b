"""Network architectures, without losses.

Those with the class attribute ``compiles = True`` are compiled by torch where a training asks
for it.
"""
