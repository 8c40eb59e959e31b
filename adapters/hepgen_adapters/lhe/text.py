"""Compiled formatting of `<event>` blocks: columns straight into text."""

# mypy: disallow-untyped-decorators=False
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np
from numba import njit

from hepgen_adapters.text import memory as _lhe_memory
from hepgen_adapters.text import numbers as _lhe_numbers
from hepgen_adapters.text.memory import load_float, load_int, opaque, source_version, store8
from hepgen_adapters.text.numbers import format_float, format_int
from hepgen_ml.networks.compiled import compiled

# Upper bounds of the text of one particle and of one event without names and attributes.
PARTICLE_BYTES = 6 * 12 + 7 * 27 + 8
EVENT_BYTES = 256
VALUE_BYTES = 48

_OPEN, _CLOSE = (np.frombuffer(t, dtype=np.uint8) for t in (b"<event", b"</event>\n"))
_RWGT, _END_RWGT = (np.frombuffer(t, dtype=np.uint8) for t in (b"<rwgt>\n", b"</rwgt>\n"))
_END_WGT = np.frombuffer(b"</wgt>\n", dtype=np.uint8)
_SCALES, _END_SCALES = (np.frombuffer(t, dtype=np.uint8) for t in (b"<scales", b"></scales>\n"))


@njit
def _put(address, text, start, stop):
    for i in range(start, stop):
        store8(address, text[i])
        address += 1
    return address


@njit(forceinline=True)
def _aligned(address, value):
    """A blank, a sign or one more blank, and the number."""
    store8(address, np.uint8(32))
    store8(address + 1, np.uint8(32))
    return format_float(address + (1 if np.signbit(value) else 2), value)


@njit(forceinline=True)
def _short(address, value):
    """Like `_aligned`, but ``1.`` for integers of one digit; for masses, lifetimes, spins."""
    size = abs(value)
    if size < 10.0 and size == np.floor(size):
        store8(address, np.uint8(32))
        store8(address + 1, np.uint8(45 if np.signbit(value) else 32))
        store8(address + 2, np.uint8(48 + np.int64(size)))
        store8(address + 3, np.uint8(46))
        return address + 4
    return _aligned(address, value)


def _build(version):
    @compiled(nogil=True)
    def format_events(
        out, first, last, offsets, columns, process_id, event_floats,
        attributes, attribute_bounds, weights, weight_tags, weight_bounds,
        scales, scale_tags, scale_bounds,
    ):  # fmt: skip
        """Write events `first` to `last`; returns the number of bytes.

        Parameters
        ----------
        out : int
            Address of the text, with room as the constants of this module say.
        offsets : (n + 1,) int64 array
        columns : (13,) int64 array
            Addresses of the particle columns, six of int32 and seven of float64.
        process_id : (n,) int32 array
        event_floats : (4, n) float64 array
            weight, scale, alpha_qed, alpha_qcd.
        attributes, attribute_bounds : uint8 array, (n + 1,) or (0,) int64 array
            Text behind ``<event``, ready to print.
        weights, scales : (names, n) float64 array
            nan where an event has none.
        weight_tags, weight_bounds, scale_tags, scale_bounds : uint8 array, int64 array
            Text in front of each value.
        """
        if version == 0:  # part of the cache's key
            return -1
        address = out
        for event in range(first, last):
            address = _put(address, _OPEN, 0, len(_OPEN))
            if len(attribute_bounds):
                start, stop = attribute_bounds[event], attribute_bounds[event + 1]
                address = _put(address, attributes, start, stop)
            store8(address, np.uint8(62))
            store8(address + 1, np.uint8(10))
            address = format_int(address + 2, offsets[event + 1] - offsets[event])
            store8(address, np.uint8(32))
            address = format_int(address + 1, np.int64(process_id[event]))
            for i in range(opaque(4)):
                address = _aligned(address, event_floats[i, event])
            store8(address, np.uint8(10))
            address += 1
            for row in range(offsets[event], offsets[event + 1]):
                for i in range(opaque(6)):
                    address = format_int(address, np.int64(load_int(columns[i] + 4 * row)))
                    store8(address, np.uint8(32))
                    address += 1
                address -= 1
                for i in range(opaque(4)):
                    address = _aligned(address, load_float(columns[6 + i] + 8 * row))
                for i in range(opaque(3)):
                    address = _short(address, load_float(columns[10 + i] + 8 * row))
                store8(address, np.uint8(10))
                address += 1
            found = False
            for i in range(weights.shape[0]):
                value = weights[i, event]
                if not np.isnan(value):
                    if not found:
                        address = _put(address, _RWGT, 0, len(_RWGT))
                        found = True
                    address = _put(address, weight_tags, weight_bounds[i], weight_bounds[i + 1])
                    address = format_float(address, value)
                    address = _put(address, _END_WGT, 0, len(_END_WGT))
            if found:
                address = _put(address, _END_RWGT, 0, len(_END_RWGT))
            found = False
            for i in range(scales.shape[0]):
                value = scales[i, event]
                if not np.isnan(value):
                    if not found:
                        address = _put(address, _SCALES, 0, len(_SCALES))
                        found = True
                    address = _put(address, scale_tags, scale_bounds[i], scale_bounds[i + 1])
                    address = format_float(address, value)
                    store8(address, np.uint8(34))
                    address += 1
            if found:
                address = _put(address, _END_SCALES, 0, len(_END_SCALES))
            address = _put(address, _CLOSE, 0, len(_CLOSE))
        return address - out

    return format_events


format_events = _build(source_version(_lhe_memory, _lhe_numbers))
