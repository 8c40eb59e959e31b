"""Cuts on the particles that collisions make and those that decays make, where they differ.

Generators may cut on the jets, leptons and photons that a collision makes and not on those of
decays (``cut_decays = False``). Memory is kept apart by origin, particles of decays under the name
``j of decays``; classes whose cuts do not differ are joined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from hepgen_ml.phase_space.cuts import Cut
from hepgen_ml.phase_space.made import OF_COLLISION, OF_DECAYS, base_class
from hepgen_ml.phase_space.observables import Key, base_key, of_any_origin
from hepgen_ml.phase_space.smallest import Seen

_OF_COLLISION = ("pt", "abs_eta", "energy", "delta_r", "mass")
_OF_DECAYS = ("pt", "abs_eta", "delta_r")
"""Observables with cuts that depend on the origin; masses of decay products have edges without."""

_DIFFERENT = 20.0
"""Mean spacings between a bound and that of particles of any origin, if it is another."""


def final_name(label: str, apart: Collection[str]) -> str:
    """Name of a class in a memory, with its origin if it is one of those kept apart."""
    base = base_class(label)
    if base not in apart:
        return base
    return base + (OF_DECAYS if label.endswith(OF_DECAYS) else OF_COLLISION)


def renamed(seen: Mapping[Key, Seen], name: Callable[[str], str]) -> dict[Key, Seen]:
    """Memory under other names of classes, joined where these are equal."""
    parts: dict[Key, list[Seen]] = {}
    for key, one in seen.items():
        whole = of_any_origin(*key)
        own = key if whole else (key[0], tuple(sorted(map(name, key[1]))))
        parts.setdefault(own, []).append(one.with_contents(name) if whole else one)
    return {
        key: some[0] if len(some) == 1 else Seen.joined(some, threshold=min)
        for key, some in parts.items()
    }


def by_origin(
    seen: Mapping[Key, Seen], alike: Callable[[Key], Key]
) -> Iterator[dict[Key, Seen]]:
    """Memory of what collisions make, of what decays make, and of pairs of both.

    Without families of classes (`alike` has the same value for these) of one origin.
    """
    origins: dict[Key, set[float]] = {}
    parts: dict[float, dict[Key, Seen]] = {0.0: {}, 0.5: {}, 1.0: {}}
    for key, one in seen.items():
        if not one.entries or of_any_origin(*key):
            continue
        part = sum(name.endswith(OF_DECAYS) for name in key[1]) / len(key[1])
        origins.setdefault(alike(key), set()).add(part)
        if key[0] in (_OF_DECAYS if part else _OF_COLLISION):
            parts[part][key] = one
    for some in parts.values():
        yield {key: one for key, one in some.items() if len(origins[alike(key)]) > 1}


def of_own(cuts: Sequence[Cut], common: Sequence[Cut], stated: Sequence[Cut]) -> list[Cut]:
    """Cuts of particles of one origin, without bounds that those of any origin have.

    Nor those that the user states for any origin.
    """
    of_any = {(c.observable, c.classes): c for c in common}
    own = []
    for cut in cuts:
        key = base_key((cut.observable, cut.classes))
        same = [c for c in stated if (c.observable, c.classes) == key]
        other = of_any.get(key, Cut(*key))
        why_low, why_high = cut.evidence
        low, high = cut.low, cut.high
        if why_low is None or any(math.isfinite(c.low) for c in same) or not (
            low - other.low > _DIFFERENT * why_low.width / why_low.near
        ):  # fmt: skip
            low, why_low = -math.inf, None
        if why_high is None or any(math.isfinite(c.high) for c in same) or not (
            other.high - high > _DIFFERENT * why_high.width / why_high.near
        ):  # fmt: skip
            high, why_high = math.inf, None
        if why_low or why_high:
            own.append(replace(cut, low=low, high=high, evidence=(why_low, why_high)))
    return own


def kept_apart(own: Sequence[Cut], seen: Mapping[Key, Seen]) -> frozenset[str]:
    """Classes that occur with both origins and have a cut that depends on it."""
    named = {base_class(name) for cut in own for name in cut.classes}
    occurring = {name for key, one in seen.items() if one.entries for name in key[1]}
    return frozenset(n for n in named if {n, n + OF_DECAYS} <= occurring)


def with_origins(cuts: Sequence[Cut], seen: Mapping[Key, Seen]) -> list[Cut]:
    """Cuts on particles of any origin as cuts on those of each origin in a memory."""
    keys: dict[Key, list[Key]] = {}
    for key in seen:
        keys.setdefault(base_key(key), []).append(key)
    found = []
    for cut in cuts:
        own = cut.observable, cut.classes
        for key in [own] if of_any_origin(*own) else keys.get(own, [own]):
            found.append(replace(cut, classes=key[1]))
    return found


def of_each_origin(cuts: Sequence[Cut], apart: Collection[str]) -> list[Cut]:
    """Cuts on classes that are kept apart as cuts on those of each origin, if they name none."""
    found = []
    for cut in cuts:
        names = [
            [c + OF_COLLISION, c + OF_DECAYS] if c in apart else [c] for c in cut.classes
        ]  # fmt: skip
        if of_any_origin(cut.observable, cut.classes):
            names = [[c] for c in cut.classes]
        for classes in sorted({tuple(sorted(some)) for some in product(*names)}):
            found.append(replace(cut, classes=classes))
    return found


def named_apart(cuts: Sequence[Cut]) -> frozenset[str]:
    """Classes whose origin some cuts name."""
    return frozenset(base_class(c) for cut in cuts for c in cut.classes if c != base_class(c))


def with_own(cuts: Sequence[Cut], own: Sequence[Cut]) -> list[Cut]:
    """Cuts whose bounds those of particles of one origin replace."""
    found = {(c.observable, c.classes): c for c in cuts}
    for cut in own:
        key = cut.observable, cut.classes
        other = found.get(key, Cut(*key))
        low = cut if math.isfinite(cut.low) else other
        high = cut if math.isfinite(cut.high) else other
        found[key] = Cut(*key, low.low, high.high, (low.evidence[0], high.evidence[1]))
    return list(found.values())


def named(cut: Cut, apart: Collection[str]) -> Cut:
    """A cut with the names of classes that are kept apart."""
    return replace(cut, classes=tuple(sorted(final_name(c, apart) for c in cut.classes)))
