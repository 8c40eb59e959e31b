"""Cuts that follow from others, as a table of what implies what."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from hepgen_ml.phase_space.cuts import Cut
from hepgen_ml.phase_space.edges import is_fixed
from hepgen_ml.phase_space.leading import LEADING, LEPTON, places
from hepgen_ml.phase_space.made import OF_DECAYS, base_class
from hepgen_ml.phase_space.observables import ALL, JETS, Key, of_whole
from hepgen_ml.phase_space.smallest import Seen

_ABOVE_IMPLIED = 1.25
"""Lower cuts on masses and sums are above this multiple of the smallest value that cuts in
transverse momenta and Delta R allow."""

_ABOVE_LOWER_RANK = 1.04
"""Cuts on the leading particles of a class are above this multiple of those on what is below."""

_HALF = 0.95
"""Part of half of the largest mass above which the end of transverse momenta follows from it."""

_ABOVE_PT = 1.00001
"""Cuts on the transverse momentum without masses are above this multiple of those with masses."""

_IMPLIED_BY_HAT = 0.9
"""Cuts on transverse momenta below this multiple of one without masses may be those of few heavy
quarks that follow from it."""

_EQUAL = 5e-3
"""Relative difference of cuts on the transverse momenta of two particles that balance."""

Cuts = Mapping[Key, Cut]
Memory = Mapping[Key, Seen]


def without_implied(cuts: Sequence[Cut], seen: Memory) -> list[Cut]:
    """Cuts except those that follow from others, see `_TABLE`."""
    left = {(c.observable, c.classes): c for c in cuts}
    for observable, low, high, follows in _TABLE:
        for key, cut in list(left.items()):
            if cut.observable != observable or not follows(cut, left, seen):
                continue
            left[key] = replace(
                cut,
                low=-math.inf if low else cut.low,
                high=math.inf if high else cut.high,
                evidence=(None if low else cut.evidence[0], None if high else cut.evidence[1]),
            )
        left = {key: c for key, c in left.items() if math.isfinite(c.low) or math.isfinite(c.high)}
    return list(left.values())


def _low(cuts: Cuts, observable: str, *classes: str) -> float:
    cut = cuts.get((observable, classes))
    return 0.0 if cut is None else max(cut.low, 0.0)


def _contents(seen: Seen) -> Collection[tuple[str, ...]]:
    """Classes of what is added or ordered.

    Of equal particles that may all be those of a decay, the collision makes one.
    """
    known = [
        some for some in seen.contents
        if not some or not all(name.endswith(OF_DECAYS) for name in some)
    ]  # fmt: skip
    return known or seen.contents


def _momenta(cuts: Cuts, names: Sequence[str]) -> list[float]:
    """Smallest transverse momenta of particles of these classes, with those by rank."""
    pt = [_low(cuts, "pt", name) for name in names]
    for observable, (label,) in (key for key in cuts if key[0] in LEADING):
        own = places(names, label)[LEADING.index(observable) :]
        if own:  # of this and of every earlier rank there is one
            pt[own[0]] = max(pt[own[0]], _low(cuts, observable, label))
    return pt


def _by_momenta_and_distance(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    pt = [_low(cuts, "pt", name) for name in cut.classes]
    angle = min(_low(cuts, "delta_r", *cut.classes), math.pi)
    least = math.sqrt(2 * math.prod(pt) * (1 - math.cos(angle))) if len(pt) == 2 else 0.0
    own = seen["mass", cut.classes]
    if own.alone and math.isfinite(own.threshold):  # they balance
        least = max(least, math.hypot(own.threshold, 2 * max(pt)))
    return cut.low <= _ABOVE_IMPLIED * least


def _by_half_of_a_mass(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    name = cut.classes[0]
    highs = [c.high for c in cuts.values()
             if c.observable == "mass" and (name in c.classes or ALL in c.classes)]  # fmt: skip
    return cut.high >= _HALF * min(highs, default=math.inf) / 2


def _by_half_of_all(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """The transverse momentum of a pair that recoils against all the others."""
    whole = cuts.get(("mass", (ALL,)))
    return whole is not None and cut.high >= _HALF * whole.high / 2


def _by_own_momenta(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    own = [cuts["pt", (name,)] for name in cut.classes if ("pt", (name,)) in cuts]
    low, high = max((c.low for c in own), default=0), min((c.high for c in own), default=math.inf)
    return not (cut.low > max(low * _ABOVE_PT, 0.0) or cut.high < high / _ABOVE_PT)


def _by_momenta_without_masses(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """Where the particles are always one of two."""
    name = cut.classes[0]
    hats = [c for c in cuts.values() if c.observable == "pt_hat" and name in c.classes]
    n = sum(c.classes.count(name) * seen["pt_hat", c.classes].entries for c in hats)
    ended = math.isinf(cut.high) or all(math.isfinite(c.high) for c in hats)
    begun = all(cut.low <= max(_least(c, seen), _IMPLIED_BY_HAT * c.low) for c in hats)
    return n >= seen["pt", cut.classes].entries and begun and ended


def _least(hat: Cut, seen: Memory) -> float:
    """Smallest transverse momentum with masses; a bound that uses their sum alone."""
    if not hat.low > 0:
        return -math.inf
    threshold = seen["mass", hat.classes].threshold
    return hat.low * max(0.0, 1 - (threshold / (2 * hat.low)) ** 2)


def _by_mass_of_all(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """The mass of two particles that are all of a collision."""
    whole = cuts.get(("mass", (ALL,)))
    return (
        whole is not None and cut.classes != (ALL,) and seen["mass", cut.classes].alone
        and _equal(whole.low, cut.low) and _equal(whole.high, cut.high)
    )  # fmt: skip


def _by_all_momenta(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """Of whole collisions: by the cuts on all that is added."""
    if not of_whole(cut.observable, cut.classes):
        return False
    own = seen[cut.observable, cut.classes]
    contents = _contents(own)
    # none of the momenta, which balance, is larger than the sum of the others
    least = min(max(sum(pt), 2 * max(pt, default=0.0))
                for pt in (_momenta(cuts, names) for names in contents))  # fmt: skip
    masses = own.threshold if math.isfinite(own.threshold) else 0.0
    least = math.hypot(least, masses)
    if cut.classes == (ALL,):
        least = max(least, masses + _low(cuts, "ht", "j"))
    if cut.observable == "mass":
        parts = (c for c in cuts.values() if c.observable == "mass" and c is not cut)
        of_parts = (c.low for c in parts if not seen["mass", c.classes].alone)
        least = max(least, _low(cuts, "ht", ALL), *of_parts, 0.0)
    return cut.low <= _ABOVE_IMPLIED * least


def _by_sum_of_jets(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """Where there is nothing else."""
    jets = cuts.get(("ht", ("j",)))
    same = jets is not None and _equal(jets.low, cut.low) and _equal(jets.high, cut.high)
    return cut.classes == (ALL,) and same


def _by_what_jets_balance(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """The sum of jets that recoil against a particle or a pair with the same cut."""
    return cut.classes == ("j",) and any(
        _equal(c.low, cut.low) for c in cuts.values()
        if c.observable in ("pt", "pt_pair") and not JETS.intersection(map(base_class, c.classes))
    )  # fmt: skip


def _by_sum(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """What is as large as the sum, or as half of it."""
    highs = [c.high for c in cuts.values() if c.observable == "ht"]
    return cut.high >= _HALF * min(highs, default=math.inf) / 2


def _by_the_recoil(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """Where particles that decay always balance one other, of a class with the same cut."""
    own, final = seen["pt", cut.classes], seen.get(("abs_eta", cut.classes))
    if not own.alone or (final is not None and final.entries):
        return False
    alike = [
        c for c in cuts.values()
        if c.observable == "pt" and c.classes != cut.classes and _equal(c.low, cut.low)
        and _equal(c.high, cut.high)
    ]  # fmt: skip
    return sum(seen["pt", c.classes].entries for c in alike) >= own.entries


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_EQUAL)


def _by_lower_ranks(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """That of a leading particle: by those of the next ones, of all, or of a smaller class."""
    (label,) = cut.classes
    rank, several, least, balanced = LEADING.index(cut.observable), False, [], []
    for names in _contents(seen[cut.observable, cut.classes]):
        own = [names[i] for i in places(names, label)]
        several |= len({*map(base_class, own)} if label == LEPTON else own) > 1
        pt = sorted((_low(cuts, "pt", name) for name in own), reverse=True)
        least.append(pt[rank])
        # one particle that those of this and the next ranks have to balance together
        other = [_low(cuts, "pt", name) for name in names if name not in own]
        other += [max(pt[0], _low(cuts, "pt1", label))] if rank else []
        alone = other[0] if rank + len(names) - len(own) == 1 else 0.0
        balanced.append(max(least[-1], alone / (len(own) - rank)))
    below = max(min(least), *(_low(cuts, name, label) for name in LEADING[rank + 1 :]), 0.0)
    by_balance = min(balanced) > min(least) and cut.low <= _ABOVE_IMPLIED * min(balanced)
    return not several or cut.low <= _ABOVE_LOWER_RANK * below or by_balance


def _by_resonance(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """That of a pair which a resonance always becomes: by the transverse momentum of this."""
    return seen[cut.observable, cut.classes].named and any(
        _equal(c.low, cut.low) and _equal(c.high, cut.high)
        for c in cuts.values() if c.observable == "pt"
    )  # fmt: skip


def _by_own_momentum(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """An energy of particles without mass."""
    return cut.low <= _ABOVE_IMPLIED * _low(cuts, "pt", *cut.classes)


def _by_light_cone_momenta(cut: Cut, cuts: Cuts, seen: Memory) -> bool:
    """The energy of a beam and a smallest momentum transfer bound the angle."""
    if not any((name, cut.classes) in cuts for name in ("plus", "minus")):
        return False
    own = seen["abs_eta", cut.classes]
    return not is_fixed(own.high.rows[[0, 3]], own.entries)


_TABLE: tuple[tuple[str, bool, bool, Callable[[Cut, Cuts, Memory], bool]], ...] = (
    ("mass", True, True, _by_mass_of_all),
    ("mass", True, False, _by_momenta_and_distance),
    ("mass", True, False, _by_all_momenta),
    ("ht", True, False, _by_all_momenta),
    ("ht", True, False, _by_what_jets_balance),
    ("ht", True, True, _by_sum_of_jets),
    ("pt", False, True, _by_half_of_a_mass),
    ("pt_hat", False, True, _by_half_of_a_mass),
    ("pt", False, True, _by_sum),
    ("pt_pair", False, True, _by_sum),
    ("pt_pair", False, True, _by_half_of_all),
    ("pt_pair", True, True, _by_resonance),
    ("pt_hat", True, True, _by_own_momenta),
    ("pt", True, True, _by_momenta_without_masses),
    ("pt", True, True, _by_the_recoil),
    *((name, True, False, _by_lower_ranks) for name in LEADING),
    ("energy", True, False, _by_own_momentum),
    ("abs_eta", False, True, _by_light_cone_momenta),
)
"""Observable, whether its lower and its upper bound go, and if they follow from the other cuts. In
this order: what is implied implies nothing further on."""
