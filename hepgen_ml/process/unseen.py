"""Structures of events that a sample lacks: their total rate, and the events that have them.

A structure is the subprocess with its record, colours and helicities. A model knows those of its
training sample alone.
"""

from __future__ import annotations

import torch

from hepgen_ml.events.sample import EventSample
from hepgen_ml.process.encoded import Encoded
from hepgen_ml.process.process import Process

MOST_UNSEEN = 0.01
"""Fraction of the cross section in missing structures up to which there is no warning."""


def unseen_share(encoded: Encoded) -> float:
    """Estimate of the fraction of the cross section in structures that the sample lacks.

    It is the fraction of the sample in structures that occur once: a structure is missing after the
    removal of one of its events exactly if it has no other (I. J. Good, Biometrika 40 (1953) 237,
    after A. M. Turing). Events count by the size of their weights.
    """
    if not len(encoded):
        return 0.0
    kinds = torch.stack([encoded.subprocess, encoded.pattern], 1)
    _, kind, counts = torch.unique(kinds, dim=0, return_inverse=True, return_counts=True)
    size = encoded.weight.abs().double()
    return float(size[counts[kind] == 1].sum() / size.sum().clamp_min(1e-300))


def unseen_warning(share: float) -> str:
    """Warning about such a fraction of the cross section."""
    return (
        f"about {100 * share:.2g} % of the cross section is in subprocesses, colour flows or "
        "helicities that the sample lacks (estimated from those that occur only once): generated "
        "events will lack them, and their log_prob is -inf; a larger sample contains more of them"
    )


def unknown_share(process: Process, sample: EventSample) -> float:
    """Fraction of events, by the size of their weights, whose structure a process lacks."""
    size = abs(sample.weight)
    total = float(size.sum())
    return float(size[~process.knows(sample)].sum()) / total if total > 0 else 0.0


def unknown_warning(share: float) -> str:
    """Warning if a model lacks the structures of such a fraction of events."""
    return (
        f"{100 * share:.2g} % of these events are of subprocesses, colour flows or helicities that "
        "the training sample of the model lacks: it never generates such events, weights cannot "
        "compensate for that, and their log_prob is -inf; if this matters, train on more events"
    )
