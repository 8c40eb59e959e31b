"""Events of a sample that obey cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from hepgen_ml.events.sample import EventSample
from hepgen_ml.phase_space.cut_text import parse_cut
from hepgen_ml.phase_space.cuts import Acceptance, Cut, flavour_class, tighter
from hepgen_ml.phase_space.origins import named_apart, of_each_origin
from hepgen_ml.process.encoded import final_momenta
from hepgen_ml.process.origins import origins_for
from hepgen_ml.process.structure import tables

Cuts = Sequence[Cut | str]
"""Cuts, or their texts."""


def parsed(cuts: Cuts) -> tuple[Cut, ...]:
    """Cuts from what the user has written.

    Raises
    ------
    UsageError
        A text is not a cut.
    """
    return tuple(parse_cut(cut) if isinstance(cut, str) else cut for cut in cuts)


def inside_cuts(
    cuts: Cuts,
) -> Callable[[EventSample], npt.NDArray[np.bool_]] | None:
    """Mask of the events of a sample that obey all these cuts or their texts; None without any."""
    if not cuts:
        return None
    stated = parsed(cuts)
    each = of_each_origin(stated, named_apart(stated))
    return partial(inside, acceptance=Acceptance(tighter(each)))


def inside(sample: EventSample, acceptance: Acceptance) -> npt.NDArray[np.bool_]:
    """Mask (n,) of the events of a sample whose final state obeys all cuts."""
    passes = np.zeros(len(sample), dtype=bool)
    found = list(tables(sample))
    origins = origins_for(acceptance, {structure for structure, _, _ in found})
    origins.apart = named_apart(acceptance.cuts)
    if origins.apart:
        origins.add(structure for structure, _, _ in found)
    for structure, events, table in found:
        final = final_momenta(table, structure.final)
        classes = [
            origins.label(
                structure, r, flavour_class(structure.pdg_id[r], float(table["mass"][0, r]))
            )
            for r in structure.final
        ]
        made = origins.made(structure, classes)
        passes[events] = acceptance.passes(final, classes, made).numpy()
    return passes
