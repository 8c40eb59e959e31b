"""Events of Pythia as HepMC3 text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hepgen_adapters.hepmc.text import NOMINAL, escape, tokens
from hepgen_adapters.pythia.record import BYTES_PER_LINE, format_events
from hepgen_adapters.text.memory import PADDING
from hepgen_ml.errors import SampleError

END = b"HepMC::Asciiv3-END_EVENT_LISTING\n\n"
"""Last line of a file."""


def header(names: list[str], tools: tuple[tuple[str, str, str], ...]) -> bytes:
    """First lines of a file: names of weights after the nominal one, and programs."""
    lines = [
        "HepMC::Version 3.02.05",
        "HepMC::Asciiv3-START_EVENT_LISTING",
        "W " + "\\|".join(map(escape, tokens([NOMINAL, *names]))),
    ]
    for tool in tools:
        lines.append("T " + "\\|".join(" ".join(escape(text).split("\\|")) for text in tool))
    return ("\n".join(lines) + "\n").encode()


def text_of(batch: Any, number: int, cross_section: tuple[float, float]) -> bytes:
    """Lines of events.

    Parameters
    ----------
    batch : awkward.Array
        From ``pythia8mc.Pythia.nextBatch``.
    number : int
        Of the first event.
    cross_section : (float, float)
        Value and error in pb; nan where not known.

    Raises
    ------
    SampleError
        Particles of an event are their own ancestors.
    """
    import awkward as ak

    p = batch.prt
    offsets = np.concatenate([[0], np.cumsum(ak.to_numpy(ak.num(p.id)))])
    columns = [ak.to_numpy(ak.flatten(p[n])) for n in ("id", "status", "mother1", "mother2")]
    momentum, place = ak.flatten(p.p), ak.flatten(p.vProd)
    values = [ak.to_numpy(momentum[name]) for name in ("px", "py", "pz", "e")]
    values.append(ak.to_numpy(ak.flatten(p.m)))
    values += [ak.to_numpy(ak.fill_none(place[name], 0.0)) for name in ("px", "py", "pz", "e")]
    sigma, error = cross_section
    rate = ""
    if math.isfinite(sigma):
        rate = f"A 0 GenCrossSection {sigma!r} {error if math.isfinite(error) else 0.0!r} -1 -1\n"
    heads = [
        f"W {' '.join(map(repr, weights))}\n{rate}".encode()
        for weights in ak.to_list(batch.info.weights)
    ]
    head_offsets = np.concatenate([[0], np.cumsum([len(h) for h in heads])])
    size = BYTES_PER_LINE * (int(offsets[-1]) + 2 * len(heads)) + int(head_offsets[-1])
    buffer = np.empty(size + PADDING, dtype=np.uint8)
    length, bad = format_events(
        buffer.ctypes.data, number, offsets.astype(np.int64), *columns,
        np.ascontiguousarray(np.stack(values, axis=1)),
        np.frombuffer(b"".join(heads), dtype=np.uint8), head_offsets.astype(np.int64),
    )  # fmt: skip
    if bad >= 0:
        raise SampleError(f"particles of event {number + bad} of Pythia are their own ancestors")
    return buffer[:length].tobytes()
