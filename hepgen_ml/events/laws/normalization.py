"""Consistency of weights and cross section, as downstream programs use them.

For LHE files with strategy ±3, programs use the cross section of the run and only the sign of a
weight; with ±4 they use the mean weight and ignore the cross section of the run. In other formats
the cross section corresponds to the sum of all weights, which may have any scale.
"""

from __future__ import annotations

import numpy as np

from hepgen_ml.events.sample import EventSample, RunInfo

_SIGMAS = 5.0
_EQUAL = 1e-6  # relative difference of weights of the same size
_UNWEIGHTED = 0.8  # part of the events with the common weight where unweighting left some above it
Result = tuple[str, int, int | None, float, float, str, bool]


class Normalization:
    """Sums of weights for the test, chunk by chunk.

    Parameters
    ----------
    run : RunInfo
    free_weights : bool
        Whether weights may have any scale and processes need no declaration.
    """

    def __init__(self, run: RunInfo, free_weights: bool = False) -> None:
        self.run, self.free_weights = run, free_weights
        self.n = 0
        self.sum, self.sum2 = 0.0, 0.0
        self.smallest, self.largest = np.inf, 0.0
        self._n_smallest = 0
        self._max_weight = {p.process_id: p.max_weight for p in run.processes}
        self._odd: tuple[int, float] | None = None
        self._per_process: dict[int, tuple[int, float, float]] = {}
        self._has_process = True
        self._undeclared: tuple[int, int] | None = None

    def add(self, sample: EventSample, first: int) -> None:
        """Take in a chunk whose first event has the number `first`, from 0."""
        w = sample.events["weight"]
        number = np.arange(first + 1, first + 1 + len(w))
        if not sample.is_reconstructed and not (filled := sample.counts > 0).all():
            # an event without particles is a malformed record, even if its weight is valid
            w, number, sample = w[filled], number[filled], sample[filled]
        if not len(w):
            return
        self.n += len(w)
        self.sum += float(w.sum())
        self.sum2 += float((w**2).sum())
        size = np.abs(w)
        smallest = float(size.min())
        if smallest < (1 - _EQUAL) * self.smallest:
            self.smallest, self._n_smallest = smallest, 0
        self._n_smallest += int((size <= (1 + _EQUAL) * self.smallest).sum())
        self.largest = max(self.largest, float(size.max()))
        if self._odd is None and (off := np.abs(size - size[0]) > 1e-6 * size[0]).any():
            i = int(np.argmax(off))
            self._odd = (int(number[i]), float(w[i]))
        if "process_id" not in sample.events:
            self._has_process = False
            return
        for process in np.unique(sample.events["process_id"]):
            mine = sample.events["process_id"] == process
            if int(process) not in self._max_weight and self._undeclared is None:
                self._undeclared = (int(number[np.argmax(mine)]), int(process))
            n, s, s2 = self._per_process.get(int(process), (0, 0.0, 0.0))
            if len(self._per_process) < 10_000:
                self._per_process[int(process)] = (
                    n + int(mine.sum()),
                    s + float(w[mine].sum()),
                    s2 + float((w[mine] ** 2).sum()),
                )

    def results(self) -> list[Result]:
        """Rows of a LawResult without the number of events."""
        return [self._weights(), self._processes()]

    def _weights(self) -> Result:
        name = "normalisation"
        sigma, strategy = self.run.cross_section, abs(self.run.weight_strategy)
        if not self.n or np.isnan(sigma):
            what = "no events" if not self.n else "the file states no cross section"
            return name, 0, None, 0.0, 0.0, f"not judged: {what}", False
        if not (np.isfinite(sigma) and sigma > 0):
            return name, 1, None, sigma, 0.0, f"the cross section is {sigma:.6g} pb", True
        if self.free_weights:
            if self.sum > 0:
                text = f"weights of mean {self.sum / self.n:.6g} stand for {sigma:.6g} pb"
                return name, 0, None, 0.0, 0.0, text, True
            text = f"the weights add up to {self.sum:.6g}"
            return name, 1, None, abs(self.sum), 0.0, text, True
        if strategy == 4:
            return self._mean_weight(name, sigma)
        if strategy != 3:
            text = f"not judged: weighted events for strategy {self.run.weight_strategy}"
            return name, 0, None, 0.0, 0.0, text, False
        if self._odd is not None or self.largest - self.smallest > _EQUAL * self.largest:
            event, weight = self._odd or (1, self.largest)
            more = self.n - self._n_smallest
            if self._n_smallest >= _UNWEIGHTED * self.n:
                text = (
                    f"partially unweighted, {sigma:.6g} pb: {more} of {self.n} weights are above "
                    f"{self.smallest:.6g}, of which strategy {self.run.weight_strategy} keeps only "
                    "the sign"
                )
                return name, 0, None, 0.0, 0.0, text, True
            text = (
                f"strategy {self.run.weight_strategy} keeps only the sign of a weight, "
                f"but they differ: {weight:.6g} in event {event}"
            )
            return name, 1, event, abs(weight), 1.0, text, True
        if not self.largest > 0:
            return name, 1, 1, 0.0, 1.0, "all weights are 0", True
        unit = abs(self.largest - 1) <= 1e-6
        size = "unit weights" if unit else f"weights of equal size, {self.largest:.6g}"
        return name, 0, None, 0.0, 0.0, f"{size}, {sigma:.6g} pb", True

    def _mean_weight(self, name: str, sigma: float) -> Result:
        mean = self.sum / self.n
        # around the cross section, not the mean: a small sample may lack the few negative weights
        variance = max(0.0, self.sum2 / self.n - min(mean**2, sigma**2))
        stated = np.nan_to_num(self.run.cross_section_error)
        error = float(np.hypot(np.sqrt(variance / self.n), stated))
        allowed = _SIGMAS * error + 1e-5 * sigma
        text = f"mean weight {mean:.6g} pb, cross section {sigma:.6g} pb"
        if abs(mean - sigma) <= allowed:
            return name, 0, None, abs(mean - sigma), allowed, text, True
        if abs(self.sum - sigma) <= _SIGMAS * error * self.n + 1e-5 * sigma:
            text += "; the weights add up to it, but strategy 4 takes their mean"
        return name, 1, None, abs(mean - sigma), allowed, text, True

    def _processes(self) -> Result:
        """Each process of the run has its share of the events."""
        name = "processes"
        total = self.run.cross_section
        if not self._has_process or not self.run.processes or not self.n or not total > 0:
            why = "no process ids" if not self._has_process else "no cross sections to compare with"
            return name, 0, None, 0.0, 0.0, f"not judged: {why}", False
        if self._undeclared is not None and self.free_weights:
            text = "not judged: process ids are labels that this format does not declare"
            return name, 0, None, 0.0, 0.0, text, False
        if self._undeclared is not None:
            event, process = self._undeclared
            text = f"process {process} of event {event} is not among those of the run"
            return name, 1, event, float(process), 0.0, text, True
        worst, worst_text = 0.0, f"{len(self.run.processes)} with their share of the events"
        if not self.sum > 0:
            return name, 0, None, 0.0, 0.0, "not judged: the weights add up to nothing", False
        for subrun in self.run.processes:
            _, s, s2 = self._per_process.get(subrun.process_id, (0, 0.0, 0.0))
            share, expected = s / self.sum, subrun.cross_section / total
            # of a sum of weights over a Poisson number of events, for the share as it should be
            mean2 = self.sum2 / self.sum**2
            variance = max(s2 / self.sum**2, expected * mean2) * max(1e-12, 1 - expected)
            error = float(np.hypot(np.sqrt(variance), np.nan_to_num(subrun.error) / total))
            pull = abs(share - expected) / error if error > 0 else 0.0
            if pull > worst and abs(share - expected) > 1e-6:
                worst = pull
                if pull > _SIGMAS:
                    worst_text = (
                        f"process {subrun.process_id} has {share:.4g} of the weights, "
                        f"its cross section is {expected:.4g} of the total"
                    )
        return name, int(worst > _SIGMAS), None, worst, _SIGMAS, worst_text, True
