"""Columns of events as awkward record arrays with the behaviours of vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    import awkward as ak

Columns = Mapping[str, npt.NDArray[Any]]


def records(
    counts: npt.NDArray[Any], particles: Columns, events: Columns, weights: Columns
) -> ak.Array:
    """Make one record an event, see `hepgen_ml.events.sample.EventSample.to_awkward`.

    Parameters
    ----------
    counts : (n,) int array
        Particles of each event.
    particles : mapping of str to (rows,) array
    events, weights : mapping of str to (n,) array
    """
    import awkward as ak
    import vector

    vector.register_awkward()
    names = {"energy": "E"}
    columns = {
        names.get(name, name): ak.unflatten(values, counts)
        for name, values in particles.items()
        if name != "mass"  # mass is derived by vector; the stored column would clash
    }
    record: dict[str, Any] = dict(events)
    if weights:
        record["weights"] = ak.zip(weights)
    record["particles"] = ak.zip(columns, with_name="Momentum4D")
    return ak.zip(record, depth_limit=1)
