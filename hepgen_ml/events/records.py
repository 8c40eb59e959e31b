"""Columns of events as awkward record arrays with the behaviours of vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    import awkward as ak

Columns = Mapping[str, npt.NDArray[Any]]


def records(
    counts: npt.NDArray[Any], particles: Columns, events: Columns, **groups: Columns
) -> ak.Array:
    """Make one record an event, see `hepgen_ml.events.sample.EventSample.to_awkward`.

    Parameters
    ----------
    counts : (n,) int array
        Particles of each event.
    particles : mapping of str to (rows,) array
    events : mapping of str to (n,) array
    **groups : mapping of str to (n,) array
        Further columns of events, each group a record; empty ones are left out.
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
    for group, values in groups.items():
        if values:
            # other columns cannot be broadcast to lists of characters
            record[group] = ak.zip({k: ak.from_numpy(v) for k, v in values.items()}, depth_limit=1)
    record["particles"] = ak.zip(columns, with_name="Momentum4D")
    return ak.zip(record, depth_limit=1)
