"""Jets to learn from: what taggers require of them, and their division into parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hepgen_ml.classification.storage import LONGEST_NAME, MOST_CLASSES
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.jets import Jets, joined

log = logging.getLogger(__name__)

LEAST_JETS = 20
"""Minimum number of jets of each class."""


def features_of(jets: Mapping[str, Jets]) -> tuple[str, ...]:
    """Features of the constituents of all classes."""
    if len(jets) < 2:
        raise SampleError(
            f"a tagger needs more than {len(jets)} class of jets",
            remedy="give two classes at least, --class NAME=FILE each",
        )
    given: list[object] = list(jets)  # scripts may name classes by numbers
    for name in given:
        if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME:
            raise UsageError(
                f"the name of a class, {str(name)[:50]!r}, is not a text of 1 to {LONGEST_NAME} "
                "characters", remedy="give another name",
            )  # fmt: skip
    if len(jets) > MOST_CLASSES:
        raise UsageError(
            f"{len(jets)} classes are too many", remedy=f"{MOST_CLASSES} are possible"
        )
    first = next(iter(jets.values()))
    for name, some in jets.items():
        if len(some) < LEAST_JETS:
            raise SampleError(
                f"class {name!r} has {len(some)} jets",
                remedy=f"give at least {LEAST_JETS}, or check its file and label",
            )
        if some.names != first.names:
            raise SampleError(
                f"constituents of {name!r} have {listed(some.names)}, others "
                f"{listed(first.names)}",
                remedy="read all classes with the same --features",
            )
        require_usable(some, f"class {name!r}")
    return first.names


def require_usable(jets: Jets, where: str) -> None:
    """Raise `SampleError` for invalid jets, which a script may pass but readers never return."""
    if len(jets) and int(jets.counts.min()) < 1:
        raise SampleError(f"{where} has jets without constituents", remedy="leave them out")
    if not (np.isfinite(jets.momenta).all() and np.isfinite(jets.features).all()):
        raise SampleError(f"{where} has numbers that are not finite", remedy="leave such jets out")


def listed(features: tuple[str, ...]) -> str:
    """Features in words."""
    return f"the numbers {', '.join(features)}" if features else "no numbers beside momenta"


def split_to_train(
    jets: Mapping[str, Jets], fraction: float, seed: int, most: int
) -> tuple[Jets, Jets]:
    """Jets to train on and to validate with, in random order, with their labels."""
    parts = []
    for i, some in enumerate(reversed(split_off(jets, fraction, seed, 1))):
        together = joined([hardest(j, most).with_label(name) for name, j in some.items()])
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(8, i)))
        parts.append(together[rng.permutation(len(together))])
    return parts[0], parts[1]


def split_off(
    jets: Mapping[str, Jets], fraction: float, seed: int, key: int = 0
) -> tuple[dict[str, Jets], dict[str, Jets]]:
    """A random part of the jets of every class, and the rest.

    The rest has no jet that equals one of the part, also of another class: such jets would make a
    test look better, or worse, than the tagger is.
    """
    some: dict[str, npt.NDArray[np.int64]] = {}
    rest: dict[str, npt.NDArray[np.int64]] = {}
    number = _numbers(jets)
    for i, (name, all_) in enumerate(jets.items()):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7, key, i)))
        order = rng.permutation(len(all_))
        n = max(int(fraction * len(all_)), 1)
        some[name], rest[name] = np.sort(order[:n]), np.sort(order[n:])
    tested = [number[name][rows] for name, rows in some.items()]
    chosen = np.concatenate(tested) if tested else np.zeros(0, dtype=np.int64)
    lost = 0
    for name, rows in rest.items():
        rest[name] = rows[~np.isin(number[name][rows], chosen)]
        lost += len(rows) - len(rest[name])
    if lost:
        log.warning(
            "%d jets occur more than once, in one class or in several: those that equal a jet to "
            "test or validate with are not trained on", lost,
        )  # fmt: skip
    one, other = ({name: jets[name][rows] for name, rows in part.items()} for part in (some, rest))
    return one, other


def require_enough(jets: Mapping[str, Jets], rest: Mapping[str, Jets]) -> None:
    """Raise `SampleError` if a class has too few jets left beside those for a test."""
    for name, some in rest.items():
        if len(some) < LEAST_JETS:
            raise SampleError(
                f"class {name!r} has {len(jets[name])} jets, {len(some)} without those for the "
                "test and their copies",
                remedy=f"give more: at least {LEAST_JETS} are needed, or check its file and label",
            )


def hardest(jets: Jets, most: int) -> Jets:
    """Jets with so many of their constituents at most; they are in falling order."""
    counts = jets.counts
    if not len(jets) or counts.max() <= most:
        return jets
    place = np.arange(len(jets.momenta)) - np.repeat(jets.offsets[:-1], counts)
    kept = place < most
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, most))]).astype(np.int64)
    return replace(jets, offsets=offsets, momenta=jets.momenta[kept], features=jets.features[kept])


def _numbers(jets: Mapping[str, Jets]) -> dict[str, npt.NDArray[np.int64]]:
    """A number for each jet; equal jets have the same."""
    ends = np.cumsum([len(some) for some in jets.values()], dtype=np.int64)
    if not jets:
        return {}
    if any(not len(some) or some.counts.min() < 1 for some in jets.values()):
        each = np.split(np.arange(ends[-1]), ends[:-1])
        return dict(zip(jets, each, strict=True))
    sums = [np.add.reduceat(some.momenta, some.offsets[:-1], axis=0) for some in jets.values()]
    counts = np.concatenate([some.counts for some in jets.values()])
    keys = np.column_stack([np.concatenate(sums), counts])
    number = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return dict(zip(jets, np.split(number, ends[:-1]), strict=True))
