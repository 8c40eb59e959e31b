"""Named weights of a sample, as ratios to the nominal weight, gathered while it is encoded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import EventSample, RunInfo
from hepgen_ml.files import documents

log = logging.getLogger(__name__)

ALL = ("*",)
"""Patterns that choose every named weight."""

_MOST_NUMBERS = 2**28
"""Largest number of ratios (1 GiB); of a larger sample a random subset of events is kept."""

_RARELY = 0.01
"""Fraction of events that may lack a weight; they are left out of the learning of weights."""

_LOST = 0.05
"""Fraction of events that may lack any of the weights that are learned."""


@dataclass
class Variations:
    """Ratios of named weights to the nominal weight.

    Attributes
    ----------
    texts : dict of str to str
        Name of each of the K weights, in order, and its description.
    groups : str
        Inside of ``<initrwgt>`` that declares them, as the sample has it.
    ratio : (m, K) float32 tensor
    rows : (m,) int64 tensor
        Encoded events that they belong to.
    """

    texts: dict[str, str]
    groups: str
    ratio: Tensor
    rows: Tensor

    @property
    def names(self) -> list[str]:
        """Names of the weights."""
        return list(self.texts)

    def chosen(self, patterns: Sequence[str]) -> Variations | None:
        """Weights whose names match any of the patterns; None without weights.

        Raises
        ------
        UsageError
            A pattern matches none of the names.
        """
        wanted = matching(self.texts, patterns)
        columns = [k for k, name in enumerate(self.names) if name in wanted]
        if not columns:
            return None
        if len(columns) == len(self.texts):
            return self
        texts = {name: self.texts[name] for name in wanted}
        return Variations(texts, self.groups, self.ratio[:, columns], self.rows)

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for the file of an encoded sample."""
        return {"variation_ratio": self.ratio, "variation_rows": self.rows.to(torch.int32)}

    def to_config(self) -> dict[str, Any]:
        """Plain JSON values that go with `tensors`."""
        texts = [[name, text] for name, text in self.texts.items()]
        return {"texts": texts, "groups": self.groups}

    @classmethod
    def restored(
        cls, document: dict[str, Any], tensors: dict[str, Tensor], n_events: int
    ) -> Variations:
        """Inverse of `to_config` and `tensors`; raises ValueError or KeyError."""
        about = VariationsDocument.model_validate(document)
        ratio, rows = tensors["variation_ratio"], tensors["variation_rows"]
        texts = dict(about.texts)
        if ratio.shape != (len(rows), len(texts)) or ratio.dtype != torch.float32 or not len(rows):
            raise ValueError("variation_ratio: not a ratio for each event and weight")
        if not bool(ratio.isfinite().all()):
            raise ValueError("variation_ratio: holds a number that is not finite")
        if rows.dtype.is_floating_point or not bool(((rows >= 0) & (rows < n_events)).all()):
            raise ValueError("variation_rows: an event that does not exist")
        return cls(texts, about.groups, ratio, rows.long())


class VariationsDocument(documents.Document):
    """Stored form of `Variations`, without its tensors."""

    texts: list[tuple[documents.Text, documents.LongText]]
    groups: documents.LongText


def matching(texts: Mapping[str, str], patterns: Sequence[str]) -> list[str]:
    """Names of weights whose name or description match any of the patterns, in their order.

    MadGraph names weights by numbers and describes them as ``MUR=0.5 MUF=1.0``.

    Parameters
    ----------
    texts : mapping of str to str
        Names and descriptions.
    patterns : sequence of str
        With ``*`` and ``?``; small and capital letters are the same.

    Raises
    ------
    UsageError
        A pattern, except the one for all weights, matches no name.
    """
    names = list(texts)

    def fits(name: str, pattern: str) -> bool:
        given = pattern.strip().lower()
        glob = given.replace("[", "[[]")  # brackets are characters of names
        return any(
            given == text or fnmatchcase(text, glob)
            for text in (t.strip().lower() for t in (name, texts[name] or name))
        )

    for pattern in patterns:
        if pattern not in ALL and not any(fits(name, pattern) for name in names):
            some = ", ".join(name[:40] for name in names[:5])
            known = f"{some}{', …' if len(names) > 5 else ''}" if names else "none"
            raise UsageError(
                f"no named weight of the sample matches {pattern[:60]!r}; it has {known}",
                remedy="choose some of these with --weights, or leave it out for all of them"
                if names
                else "leave --weights out",
            )
    return [name for name in names if any(fits(name, p) for p in patterns)]


class VariationCollector:
    """Gathers the ratios of named weights, chunk by chunk, in bounded memory.

    Parameters
    ----------
    patterns : sequence of str
        Weights to keep.
    seed : int
        Seed of the choice of events, if not all can be kept.

    Attributes
    ----------
    not_learned : list of str
        Sentences about weights that `found` leaves out.
    """

    def __init__(self, patterns: Sequence[str], seed: int) -> None:
        self.patterns = tuple(patterns)
        self._rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(7,)))
        self._names: list[str] | None = None
        self._ratio: list[npt.NDArray[np.float32]] = []
        self._rows: list[npt.NDArray[np.int64]] = []
        self._draw: list[npt.NDArray[np.float64]] = []
        self._share, self._n_kept = 1.0, 0
        self.not_learned: list[str] = []

    def add(self, chunk: EventSample, events: npt.NDArray[np.int64], first: int) -> None:
        """Take in a chunk.

        Parameters
        ----------
        chunk : EventSample
        events : (m,) int array
            Events of the chunk that could be encoded.
        first : int
            Number of the first of them among all encoded events.
        """
        if not self.patterns or not len(events):
            return
        if self._names is None:
            texts = {name: chunk.run.weight_names.get(name, "") for name in chunk.weights}
            self._names = matching(texts, self.patterns)
        if not self._names:
            return
        draw = self._rng.random(len(events))
        keep = np.flatnonzero(draw < self._share)
        absent = np.full(len(chunk), np.nan)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            nominal = chunk.weight[events[keep]]
            self._ratio.append(np.stack([
                (chunk.weights.get(name, absent)[events[keep]] / nominal).astype(np.float32)
                for name in self._names
            ], axis=1))  # fmt: skip
        self._rows.append(first + keep)
        self._draw.append(draw[keep])
        self._n_kept += len(keep)
        while self._n_kept * len(self._names) > _MOST_NUMBERS:
            self._thin()

    def _thin(self) -> None:
        self._share /= 2
        for k, draw in enumerate(self._draw):
            stay = draw < self._share
            self._ratio[k], self._rows[k] = self._ratio[k][stay], self._rows[k][stay]
            self._draw[k] = draw[stay]
        self._n_kept = sum(map(len, self._draw))

    def found(self, run: RunInfo) -> Variations | None:
        """All ratios; None if the sample has no named weights or none are wanted.

        Raises
        ------
        SampleError
            A weight that was requested by name is missing in many of the events.
        """
        if not self._names or not self._ratio:
            return None
        ratio, rows = np.concatenate(self._ratio), np.concatenate(self._rows)
        good = np.isfinite(ratio)
        missing = 1 - good.mean(0)
        usable = _with_few_lost(good)
        for k in np.flatnonzero(~usable):
            name, part = self._names[k], missing[k]
            text = f"the named weight {name[:60]!r} is not a number in {100 * part:.3g} % of events"
            if part <= _RARELY:
                text += " and others in different ones"
            if self.patterns != ALL:
                raise SampleError(
                    text, remedy="choose other weights with --weights, or none with --no-weights"
                )
            log.warning("%s: it is not learned", text)
            self.not_learned.append(text)
        if not usable.any():
            return None
        whole = good[:, usable].all(1)
        if lost := int((~whole).sum()):
            log.warning(
                "%d events lack some of the named weights, or have a nominal weight of zero or one "
                "beyond 1e38 times it: weights are learned from the others (leave weights out with "
                "--weights or --no-weights)", lost,
            )  # fmt: skip
        names = [name for name, fine in zip(self._names, usable, strict=True) if fine]
        return Variations(
            {name: run.weight_names.get(name, "") for name in names},
            run.weight_groups,
            torch.from_numpy(np.ascontiguousarray(ratio[whole][:, usable])),
            torch.from_numpy(rows[whole]),
        )


def _with_few_lost(good: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Weights (K,) that few events (m, K) lack, and of which few events lack any."""
    missing = 1 - good.mean(0)
    order = np.argsort(missing, kind="stable")
    bad = ~good[:, order]
    first = np.where(bad.any(1), bad.argmax(1), bad.shape[1])
    lost = np.cumsum(np.bincount(first, minlength=bad.shape[1] + 1)[:-1])
    usable = np.zeros(len(missing), dtype=bool)
    usable[order] = lost <= _LOST * len(good)
    return usable & (missing <= _RARELY)
