"""Generation cuts: found in a sample, enforced on generated events.

A cut shows as an edge in the distribution of an observable: close to it the
density is finite and then ends. Without a cut the distribution runs out
gradually, or the edge is a natural bound such as zero. Both are told apart by
the spacings of the most extreme values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.errors import UsageError
from hepgen_ml.events.objects import JET, OBJECTS
from hepgen_ml.phase_space.coordinates import (
    azimuth,
    invariant_mass_squared,
    pseudorapidity,
    transverse_momentum,
    wrap,
)

EXTREMES = 64
"""How many extreme values of an observable an edge is judged from, first."""

_SCALE, _MOST = 64, 1024
"""Then as many as one in so many entries, and at most: the edge that a jet radius sets is soft
at its very end."""

_STRAIGHT, _STRAIGHT_SOFT = 0.72, 0.66
"""Largest position of the middle value between first and last; halfway for a sharp edge."""

_MOST_OF_DECAYS = 65_536
"""Smallest values kept of pairs that come from one resonance."""

_VALUES = 1_000_000
"""Values of pairs that are computed together; bounds the memory."""

_STAYS = 3e-3
"""By which part an edge may move between slow and fast pairs and still be a cut."""

MIN_ENTRIES = 500
"""Fewest values from which a cut is inferred at all."""

_STRAY, _STRAY_GAP, _STRAY_STRAIGHT = 1e-4, 20.0, 0.6
"""Part of the entries that may lie beyond an edge (a bad event or two), by how many mean
spacings of the others at least, and how straight these must be: tails have stray values too."""

_ABOVE_THRESHOLD = 1.1
"""Lower cuts on masses are above this many times the sum of the masses: what begins closer to
that sum ends there by itself."""

_LIGHT = frozenset([1, 2, 3, 4, 5, 21])
_RELATIVES = {"4": "j", "5": "j", "13": "11"}
"""Classes that generators cut alike, by one of them."""

_LEPTONS = frozenset(map(str, range(11, 17)))


def flavour_class(pdg_id: int, mass: float) -> str:
    """Class of particles that share their cuts.

    Light quarks (massless ones, b included) and gluons are ``j``, as in run
    cards; reconstructed jets are ``Jet``; other particles are named by the absolute value
    of their PDG number.
    """
    if abs(pdg_id) == JET:
        return "Jet"
    if abs(pdg_id) in _LIGHT and mass < 1.0:
        return "j"
    return str(abs(pdg_id))


@dataclass(frozen=True)
class Cut:
    """One bound: `low` <= observable <= `high` for every particle or pair of the classes.

    Attributes
    ----------
    observable : str
        ``pt``, ``abs_eta``, and ``plus`` and ``minus``, the light-cone momenta E + pz and E - pz,
        of a particle, ``delta_r`` or ``mass`` of a pair. The momentum transfer from a
        beam of fixed energy E along -z to a particle is Q² = 2 E (E' + pz') up to masses.
    classes : tuple of str
        Flavour classes, one or two.
    low, high : float
        GeV for momenta and masses; infinite where there is no bound.
    """

    observable: str
    classes: tuple[str, ...]
    low: float = -math.inf
    high: float = math.inf

    def __str__(self) -> str:
        name = f"{self.observable}({', '.join(self.classes)})"
        left = "" if math.isinf(self.low) else f"{self.low:g} <= "
        right = "" if math.isinf(self.high) else f" <= {self.high:g}"
        return f"{left}{name}{right}"


_SINGLE = ("pt", "abs_eta", "plus", "minus")
"""Observables of one particle, the last two of leptons alone."""

_OF_PAIRS = ("delta_r", "mass")

_CUT = re.compile(r"\s*(pt|abs_eta|plus|minus|delta_r|mass)\s*\(([^()]*)\)\s*(<|>)=?\s*(\S+)\s*")


def parse_cut(text: str) -> Cut:
    """Cut as in ``pt(Jet) > 25`` or ``delta_r(Jet, Jet) > 0.4``.

    Parameters
    ----------
    text : str
        An observable of one class (``pt``, ``abs_eta``, ``plus``, ``minus``) or two (``delta_r``,
        ``mass``), ``<`` or
        ``>``, and a number. Classes are collections (``Muon``), ``j`` for light quarks and
        gluons, or PDG numbers.

    Raises
    ------
    UsageError
        Anything else.

    Examples
    --------
    >>> str(parse_cut("delta_r(Jet, Muon) > 0.4"))
    '0.4 <= delta_r(13, Jet)'
    """
    match = _CUT.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        names = [name.strip() for name in match[2].split(",")]
        classes = tuple(sorted(_class_named(name) for name in names))
        if len(classes) != (1 if match[1] in _SINGLE else 2):
            raise ValueError(text)
        value = float(match[4])
        if not math.isfinite(value):
            raise ValueError(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no cut",
            remedy="write pt(Jet) > 25, abs_eta(Jet) < 4.5, delta_r(Jet,Muon) > 0.4 or "
            "mass(Muon,Muon) > 60",
        ) from None
    if match[3] == ">":
        return Cut(match[1], classes, low=value)
    return Cut(match[1], classes, high=value)


def _class_named(name: str) -> str:
    if name in ("j", "Jet"):
        return name
    return str(abs(OBJECTS[name] if name in OBJECTS else int(name)))


Key = tuple[str, tuple[str, ...]]
"""Observable and classes."""


def particle_observables(
    p: Tensor,
    labels: Sequence[str],
    wanted: Collection[Key] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    single: bool = True,
) -> dict[Key, Tensor]:
    """All observables that a cut may bound.

    Parameters
    ----------
    p : (events, n, 4) tensor
    labels : sequence of n str
        Flavour classes.
    wanted : collection of Key, optional
        Compute these only.
    pairs : sequence of (int, int), optional
        Compute pair observables of these only.
    single : bool
        Compute observables of single particles.

    Returns
    -------
    dict
        (observable, classes) to (events, k) tensor of the k particles or pairs.
    """
    pt, eta = transverse_momentum(p), pseudorapidity(p)
    columns: dict[str, Callable[[list[int]], Tensor]] = {
        "pt": lambda i: pt[:, i],
        "abs_eta": lambda i: eta[:, i].abs(),
        "plus": lambda i: p[:, i, 3] + p[:, i, 2],
        "minus": lambda i: p[:, i, 3] - p[:, i, 2],
    }
    found: dict[Key, list[Any]] = {}
    for i, label in enumerate(labels if single else ()):
        for name in _SINGLE if label in _LEPTONS else _SINGLE[:2]:
            found.setdefault((name, (label,)), []).append(i)
    for i, j in combinations(range(len(labels)), 2) if pairs is None else pairs:
        classes = tuple(sorted((labels[i], labels[j])))
        for name in _OF_PAIRS:
            found.setdefault((name, classes), []).append((i, j))
    return {
        key: columns[key[0]](at) if key[0] in _SINGLE else pair_observable(key[0], p, at)
        for key, at in found.items()
        if wanted is None or key in wanted
    }


def pair_observable(name: str, p: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Observable (events, k) of k pairs of the particles (events, n, 4)."""
    i, j = ([pair[k] for pair in pairs] for k in (0, 1))
    if name == "mass":
        return torch.sqrt(invariant_mass_squared(p[:, i] + p[:, j]).clamp_min(0.0))
    eta, phi = pseudorapidity(p), azimuth(p)
    return torch.hypot(eta[:, i] - eta[:, j], wrap(phi[:, i] - phi[:, j]))


class Acceptance:
    """The cuts of a process.

    Parameters
    ----------
    cuts : sequence of Cut
    """

    def __init__(self, cuts: Sequence[Cut] = ()) -> None:
        self.cuts = tuple(cuts)
        self._by_key = {(c.observable, c.classes): c for c in self.cuts}

    def pt_min(self, label: str) -> float:
        """Smallest transverse momentum of a flavour class, 0 without a cut."""
        cut = self._by_key.get(("pt", (label,)))
        return 0.0 if cut is None or math.isinf(cut.low) else cut.low

    def passes(self, p: Tensor, labels: Sequence[str]) -> Tensor:
        """Mask (events,) of final states (events, n, 4) inside every cut."""
        good = torch.ones(len(p), dtype=torch.bool, device=p.device)
        if not self.cuts:
            return good
        for key, values in particle_observables(p, labels, self._by_key).items():
            cut = self._by_key[key]
            good &= ((values >= cut.low) & (values <= cut.high)).all(-1)
        return good

    def to_config(self) -> list[dict[str, Any]]:
        """Plain JSON values; infinite bounds are None."""
        return [
            {
                "observable": c.observable,
                "classes": list(c.classes),
                "low": None if math.isinf(c.low) else c.low,
                "high": None if math.isinf(c.high) else c.high,
            }
            for c in self.cuts
        ]

    @classmethod
    def from_config(cls, config: Sequence[dict[str, Any]]) -> Acceptance:
        """Inverse of `to_config`."""
        return cls(
            [
                Cut(
                    c["observable"],
                    tuple(c["classes"]),
                    -math.inf if c["low"] is None else float(c["low"]),
                    math.inf if c["high"] is None else float(c["high"]),
                )
                for c in config
            ]
        )


def tighter(cuts: Sequence[Cut]) -> list[Cut]:
    """One cut for each observable, with the tightest of all bounds."""
    found: dict[tuple[str, tuple[str, ...]], Cut] = {}
    for cut in cuts:
        key = (cut.observable, cut.classes)
        other = found.get(key, cut)
        found[key] = Cut(*key, max(cut.low, other.low), min(cut.high, other.high))
    return list(found.values())


class _DecayEdges:
    """The smallest values of pairs from one resonance, with the transverse momenta of the pairs."""

    def __init__(self) -> None:
        self.ends = (math.inf, -math.inf)
        self.n = 0
        self._rows: npt.NDArray[np.float64] = np.zeros((2, 0))

    def add(self, values: npt.NDArray[np.float64], pt: npt.NDArray[np.float64]) -> None:
        """Take in values and transverse momenta of pairs."""
        good = np.isfinite(values)
        if not good.any():
            return
        rows = np.stack([values[good], pt[good]])
        self.n += rows.shape[1]
        self.ends = min(self.ends[0], float(rows[0].min())), max(self.ends[1], float(rows[0].max()))
        joined = np.concatenate([self._rows, rows], axis=1)
        self._rows = joined[:, np.argsort(joined[0], kind="stable")[:_MOST_OF_DECAYS]]

    def halves(self) -> list[npt.NDArray[np.float64]]:
        """The smallest tenth of the values, sorted: of slow pairs, and of fast ones."""
        some = self._rows[:, : max(self.n // 10, 4 * _MOST)]
        fast = some[1] > np.median(some[1])
        return [some[0, ~fast], some[0, fast]]


class FinalStates(NamedTuple):
    """Final states that are made of particles of the same classes.

    Attributes
    ----------
    p : (events, n, 4) tensor
    labels : sequence of n str
        Flavour classes.
    balanced : bool
        Whether transverse momenta add up to zero.
    decays : collection of (int, int)
        Pairs that come from one resonance.
    """

    p: Tensor
    labels: Sequence[str]
    balanced: bool = True
    decays: Collection[tuple[int, int]] = ()


class CutFinder:
    """Finds cuts in a stream of events, keeping only the extreme values it has seen."""

    def __init__(self) -> None:
        self._low: dict[tuple[str, tuple[str, ...]], npt.NDArray[np.float64]] = {}
        self._high: dict[tuple[str, tuple[str, ...]], npt.NDArray[np.float64]] = {}
        self._entries: dict[tuple[str, tuple[str, ...]], int] = {}
        self.classes: set[str] = set()
        self._threshold: dict[tuple[str, tuple[str, ...]], float] = {}
        self._of_decays: dict[Key, _DecayEdges] = {}
        self._known: set[tuple[Any, ...]] = set()

    def add(
        self,
        p: Tensor,
        labels: Sequence[str],
        *,
        balanced: bool = True,
        decays: Collection[tuple[int, int]] = (),
    ) -> None:
        """Take in final states (events, n, 4) of particles with these classes, see `add_all`."""
        self.add_all([FinalStates(p, labels, balanced, decays)])

    def add_all(self, states: Sequence[FinalStates]) -> None:
        """Take in final states of any classes, those of equal length together.

        Of two particles whose transverse momenta balance, Delta R is above pi without any cut.
        Pairs that come from one resonance (`decays`) have edges by the kinematics of its decay,
        which move with the momentum of the pair: only one that stays is a cut.
        """
        groups: dict[tuple[int, bool], list[FinalStates]] = {}
        for state in states:
            self._register(state)
            if len(state.p):
                groups.setdefault((len(state.labels), state.balanced), []).append(state)
        for (n, balanced), some in groups.items():
            left_out = {"delta_r"} if balanced and n == 2 else set()
            for part in _bounded(some, max(1, _VALUES // max(math.comb(n, 2), 1))):
                self._add_together(part, left_out)

    def _register(self, state: FinalStates) -> None:
        """Make places for all observables, in an order that depends on the sample alone."""
        labels, decays = tuple(state.labels), frozenset(state.decays)
        if (labels, decays, state.balanced) in self._known:
            return
        self._known.add((labels, decays, state.balanced))
        self.classes.update(labels)
        for label in labels:
            for name in _SINGLE if label in _LEPTONS else _SINGLE[:2]:
                self._entries.setdefault((name, (label,)), 0)
        for ij in combinations(range(len(labels)), 2):
            classes = tuple(sorted(labels[i] for i in ij))
            for name in _OF_PAIRS:
                if ij in decays:
                    self._of_decays.setdefault((name, classes), _DecayEdges())
                elif self._is_judged(name, classes, state):
                    self._entries.setdefault((name, classes), 0)

    @staticmethod
    def _is_judged(name: str, classes: Sequence[str], state: FinalStates) -> bool:
        if name == "delta_r":
            return not (state.balanced and len(state.labels) == 2)
        return "Jet" not in classes  # no analysis cuts there, and jets have no threshold

    def _add_together(self, states: Sequence[FinalStates], left_out: Collection[str]) -> None:
        """Take in final states of one length."""
        p = torch.cat([state.p for state in states])
        names = sorted({label for state in states for label in state.labels})
        number = {name: k for k, name in enumerate(names)}
        sizes = np.array([len(state.p) for state in states])
        classes = np.array([[number[label] for label in state.labels] for state in states])
        each = np.repeat(classes, sizes, axis=0)
        eta = pseudorapidity(p).numpy()
        leptons = np.array([name in _LEPTONS for name in names])[each]
        energy, pz = p[..., 3].numpy(), p[..., 2].numpy()
        for name, values, mask in (
            ("pt", transverse_momentum(p).numpy(), None),
            ("abs_eta", np.abs(eta), None),
            ("plus", energy + pz, leptons),
            ("minus", energy - pz, leptons),
        ):
            chosen = slice(None) if mask is None else mask
            for code, (some,) in _by_code(each[chosen].ravel(), values[chosen].ravel()):
                self._add_values((name, (names[code],)), some)
        pairs = list(combinations(range(p.shape[1]), 2))
        if not pairs:
            return
        first, second = np.array(pairs).T
        low, high = np.minimum(classes[:, first], classes[:, second]), np.maximum(
            classes[:, first], classes[:, second]
        )
        code = low * len(names) + high
        decays = np.array([[ij in state.decays for ij in pairs] for state in states])
        self._add_thresholds(p[torch.from_numpy(np.cumsum(sizes) - sizes)], names, code, pairs)
        of_one, codes = np.repeat(decays, sizes, axis=0), np.repeat(code, sizes, axis=0)
        pt = transverse_momentum(p[:, first] + p[:, second]).numpy() if of_one.any() else None
        for name in _OF_PAIRS:
            values = pair_observable(name, p, pairs).numpy()
            for c, (some,) in _by_code(codes[~of_one], values[~of_one]):
                key = name, (names[c // len(names)], names[c % len(names)])
                if name in left_out or (name == "mass" and "Jet" in key[1]):
                    continue
                self._add_values(key, some)
            if pt is None:
                continue
            for c, (some, speed) in _by_code(codes[of_one], values[of_one], pt[of_one]):
                classes_of = names[c // len(names)], names[c % len(names)]
                self._of_decays[name, classes_of].add(some, speed)

    def _add_values(self, key: Key, values: npt.NDArray[np.float64]) -> None:
        """Take in values of one observable."""
        values = values[np.isfinite(values)]
        self._entries[key] = self._entries.get(key, 0) + len(values)
        low = np.concatenate([self._low.get(key, values[:0]), values])
        high = np.concatenate([self._high.get(key, values[:0]), values])
        self._low[key] = _smallest(low, _MOST + 1)
        self._high[key] = -_smallest(-high, _MOST + 1)

    def _add_thresholds(
        self,
        p: Tensor,
        names: Sequence[str],
        code: npt.NDArray[np.int64],
        pairs: Sequence[tuple[int, int]],
    ) -> None:
        """Sums of masses of pairs (events, k), of which each has a code, by their classes."""
        masses = torch.sqrt(invariant_mass_squared(p).clamp_min(0.0)).numpy()
        i, j = np.array(pairs).T
        for c, (sums,) in _by_code(code.ravel(), (masses[:, i] + masses[:, j]).ravel()):
            key = "mass", (names[c // len(names)], names[c % len(names)])
            threshold = float(sums.min())
            self._threshold[key] = min(threshold, self._threshold.get(key, threshold))

    def range(
        self, observable: str, classes: tuple[str, ...], stated: Sequence[Cut] = ()
    ) -> tuple[float, float]:
        """Ends of an observable: the cuts if there are any, infinite else."""
        key = (observable, tuple(sorted(classes)))
        cut = Cut(*key)
        if self._entries.get(key, 0) >= MIN_ENTRIES:
            n = self._entries[key]
            cut = Cut(*key, _lower_edge(self._low[key], n), -_lower_edge(-self._high[key], n))
        same = [c for c in stated if (c.observable, c.classes) == key]
        (cut,) = tighter([cut, *same])
        return cut.low, cut.high

    def acceptance(self, stated: Sequence[Cut] = (), *, light_cone: bool = False) -> Acceptance:
        """The cuts whose edges are populated, and those that someone states.

        Parameters
        ----------
        stated : sequence of Cut
        light_cone : bool
            Look at light-cone momenta, too: where a beam has a fixed energy, cuts in the momentum
            transfer are edges of these.

        Raises
        ------
        UsageError
            A stated cut on particles that the events do not have.
        """
        for cut in stated:
            missing = [c for c in cut.classes if c not in self.classes]
            if missing:
                raise UsageError(
                    f"no particle is of class {missing[0]!r}, so {str(cut)!r} cuts nothing",
                    remedy=f"the classes are {', '.join(sorted(self.classes))}",
                )
        cuts: list[Cut] = []
        for key, entries in self._entries.items():
            if entries < MIN_ENTRIES:
                continue
            observable, classes = key
            if observable in ("plus", "minus") and not light_cone:
                continue
            low, high = self._edges(key, self._low[key], self._high[key], entries)
            if key in self._of_decays:  # cuts hold for these pairs, too
                ends = self._of_decays[key].ends
                low = -math.inf if ends[0] < low else low
                high = math.inf if ends[1] > high else high
            if not (math.isinf(low) and math.isinf(high)):
                cuts.append(Cut(observable, classes, low, high))
        cuts += self._that_stay({(c.observable, c.classes) for c in cuts})
        cuts += self._of_relatives(cuts)
        return Acceptance(tighter([*cuts, *stated]))

    def _edges(
        self,
        key: Key,
        low_values: npt.NDArray[np.float64],
        high_values: npt.NDArray[np.float64],
        entries: int,
    ) -> tuple[float, float]:
        """Lower and upper edge of an observable by its extreme values, infinite without any."""
        observable = key[0]
        # A power of the observable whose density is flat at zero without a cut, so that a
        # natural lower bound is recognised as an edge at zero.
        power = 1.0 if observable == "abs_eta" else 2.0
        low, high = -math.inf, math.inf
        if observable != "abs_eta":
            natural = self._threshold.get(key, 0.0) ** power
            low = _lower_edge(low_values**power, entries, natural) ** (1 / power)
            if observable == "mass" and low < _ABOVE_THRESHOLD * self._threshold.get(key, 0.0):
                low = 0.0
        # A mass without a lower cut ends at the collision energy by nature, not by choice.
        if observable == "abs_eta" or (observable == "mass" and low > 0):
            high = -_lower_edge(-high_values, entries)
        return (low if low > 0 else -math.inf), high

    def _that_stay(self, known: Collection[Key]) -> list[Cut]:
        """Cuts on pairs of decays: lower edges that are the same for slow and for fast pairs."""
        found = []
        for key, edges in self._of_decays.items():
            if key in known or key[0] == "mass":
                continue  # masses of resonances have ranges of their own
            halves = [half for half in edges.halves() if len(half) >= MIN_ENTRIES]
            lows = [self._edges(key, half, half, edges.n // 2)[0] for half in halves]
            stays = len(lows) == 2 and 0 < max(lows) <= (1 + _STAYS) * min(lows)
            if stays and min(lows) <= edges.ends[0]:
                found.append(Cut(*key, low=min(lows)))
        return found

    def _of_relatives(self, cuts: Sequence[Cut]) -> list[Cut]:
        """Cuts of classes with few entries that generators cut like others, if none is outside.

        Charm and bottom quarks with masses are jets as others are; electrons and muons are cut
        alike.
        """
        found = []
        known = {(c.observable, c.classes) for c in cuts}
        for cut in cuts:
            for key, entries in self._entries.items():
                alike = key[0] == cut.observable and [_RELATIVES.get(c, c) for c in key[1]] == [
                    _RELATIVES.get(c, c) for c in cut.classes
                ]
                if not alike or key in known or not 0 < entries < MIN_ENTRIES:
                    continue
                if cut.observable == "mass":
                    continue  # thresholds are those of each class
                decays = self._of_decays.get(key)
                ends = (math.inf, -math.inf) if decays is None else decays.ends
                low = min(float(self._low[key][0]), ends[0])
                high = max(float(self._high[key][-1]), ends[1])
                if low >= cut.low and high <= cut.high:
                    known.add(key)
                    found.append(Cut(key[0], key[1], cut.low, cut.high))
        return found


def _by_code(
    code: npt.NDArray[np.int64], *values: npt.NDArray[np.float64]
) -> Iterator[tuple[int, list[npt.NDArray[np.float64]]]]:
    """Values (m,) of each code (m,)."""
    order = np.argsort(code, kind="stable")
    found, starts = np.unique(code[order], return_index=True)
    columns = [np.split(v[order], starts[1:]) for v in values]
    for k, c in enumerate(found.tolist()):
        yield c, [column[k] for column in columns]


def _bounded(states: Sequence[FinalStates], most: int) -> Iterator[list[FinalStates]]:
    """Final states in groups of at most so many events, none split that is smaller."""
    group: list[FinalStates] = []
    n = 0
    for state in states:
        for part in state.p.split(most):
            if n + len(part) > most and group:
                yield group
                group, n = [], 0
            group.append(state._replace(p=part))
            n += len(part)
    if group:
        yield group


def _smallest(values: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.float64]:
    if len(values) > k:
        values = np.partition(values, k - 1)[:k]
    return np.sort(values)


def _lower_edge(
    values: npt.NDArray[np.float64], entries: int, natural: float | None = None
) -> float:
    """Edge below the smallest values (sorted), if there is one.

    Near an edge the k-th smallest value grows linearly with k; in an
    exponential tail it grows like log k.

    Parameters
    ----------
    values : (k,) array
        Squared values of the observable where a natural bound is given.
    entries : int
        How many values there are in all.
    natural : float, optional
        Bound that the observable has without any cut, squared.

    Returns
    -------
    float
        The edge; without one 0 (natural bound given) or -inf.
    """
    scales = ((EXTREMES, _STRAIGHT), (min(entries // _SCALE, _MOST), _STRAIGHT_SOFT))
    strays = [0, *(k for k in (1, 2, 4) if k <= _STRAY * entries)]
    for k, (n, straight) in product(strays, scales):
        some = values[k : k + n + 1]
        first = float(some[0])
        span = float(some[-1] - first)
        if k > 0:
            straight = _STRAY_STRAIGHT
            if first - values[k - 1] < _STRAY_GAP * span / n:
                continue
        if n >= EXTREMES and span > 0 and some[len(some) // 2] - first <= straight * span:
            break
    else:
        return -math.inf if natural is None else 0.0
    low = first - 6 * span / (len(some) - 1)
    if natural is None:
        return _roundest(low, first)
    if low <= natural:
        return 0.0
    return _roundest(math.sqrt(low), math.sqrt(first)) ** 2


def _roundest(low: float, high: float) -> float:
    """Number with the fewest digits in [low, high]: people set cuts to 20, 0.4 or 4.5."""
    size = max(abs(low), abs(high))
    for digits in range(4):
        for step in (10.0, 5.0, 2.0, 1.0):
            unit = step * 10.0 ** (math.floor(math.log10(size)) - digits)
            candidate = math.floor(high / unit + 1e-9) * unit
            if low <= candidate <= high:
                return float(f"{candidate:.12g}")
    return low + (high - low) * 5 / 6
