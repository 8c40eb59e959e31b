"""Boosted trees as classifiers: grown by scikit-learn, kept and added up as plain arrays."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hepgen_ml.analysis.classifier import quiet_threads
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import FloatArray
from hepgen_ml.networks.compiled import compiled
from hepgen_ml.reweighting.features import Inputs
from hepgen_ml.reweighting.training import Labelled, Schedule

_LEARNING_RATE = 0.05
_LEAVES = 63
_FEATURES = 0.7  # of the columns are offered at each split
_VALIDATION = 0.1
_PATIENCE = 40  # trees
_MOST = 400  # trees of a set
_AT_ONCE = 50  # trees between two checks of the time
_SETS = 2
"""Sets of trees that are averaged; each holds out another tenth for stopping."""

_MAX_NODES = 100_000_000
_BLOCK = 512  # events whose columns stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Trees:
    """Sum of decision trees on observables and labels.

    Nodes of a tree lie in a row, parents before children: the left child, where the column is
    no larger than the threshold, is the next node.

    Attributes
    ----------
    feature : (m,) int16 array
        Column of the condition of an inner node, -1 for leaves.
    value : (m,) float32 array
        Threshold of inner nodes, contribution of leaves to the logit.
    right : (m,) int32 array
        Right child of inner nodes.
    start : (t + 1,) int64 array
        First node of every tree, and m.
    offset : float
        Logit without any tree.
    n_columns : int
        Number of observables and labels.

    Raises
    ------
    ValueError
        Invalid nodes: children outside their tree or before their parent, unknown columns.
    """

    feature: npt.NDArray[np.int16]
    value: npt.NDArray[np.float32]
    right: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    offset: float
    n_columns: int

    def __post_init__(self) -> None:
        m, start = len(self.feature), self.start
        shapes = {self.feature.shape, self.value.shape, self.right.shape}
        if shapes != {(m,)} or start.ndim != 1 or m > _MAX_NODES:
            raise ValueError("trees of impossible sizes")
        if not len(start) or start[0] != 0 or start[-1] != m or np.any(np.diff(start) < 1):
            raise ValueError("trees without nodes")
        if not (math.isfinite(self.offset) and np.all(np.isfinite(self.value))):
            raise ValueError("trees with values that are not numbers")
        inner = np.flatnonzero(self.feature >= 0)
        end = np.repeat(start[1:], np.diff(start))[inner]
        # the left child comes next, so that a right one behind it is also behind its parent: no
        # cycles
        if np.any(self.right[inner] <= inner + 1) or np.any(self.right[inner] >= end):
            raise ValueError("trees with children in wrong places")
        if np.any(self.feature < -1) or np.any(self.feature >= self.n_columns):
            raise ValueError("trees with unknown columns")

    def logits(self, inputs: Inputs) -> Tensor:
        """Logits (n,) float64 of truth against generated.

        Raises
        ------
        SampleError
            Events with other columns than those of the training.
        """
        x = _columns(inputs)
        if x.shape[1] != self.n_columns:
            raise SampleError(
                f"the events have {x.shape[1]} observables, the classifier has {self.n_columns}",
                remedy="weight events of the same kind as those that it was trained on",
            )
        total = np.full(len(x), self.offset)
        _add(x, self.feature, self.value, self.right, self.start, total)
        return torch.from_numpy(total)

    def state_dict(self) -> dict[str, Tensor]:
        """Arrays as tensors."""
        return {
            **{n: torch.from_numpy(getattr(self, n)) for n in ("feature", "value", "right")},
            "start": torch.from_numpy(self.start),
            "offset": torch.tensor(self.offset, dtype=torch.float64),
            "n_columns": torch.tensor(self.n_columns),
        }

    @classmethod
    def restored(cls, tensors: Mapping[str, Tensor]) -> Trees:
        """Trees from their `state_dict`.

        Raises
        ------
        KeyError, ValueError, RuntimeError
            Not what `state_dict` gives.
        """
        kinds = {"feature": np.int16, "value": np.float32, "right": np.int32, "start": np.int64}
        arrays = {name: tensors[name].numpy() for name in kinds}
        if any(arrays[name].dtype != kind for name, kind in kinds.items()):
            raise ValueError("trees of other number types")
        return cls(
            **arrays,
            offset=float(tensors["offset"]),
            n_columns=int(tensors["n_columns"]),
        )

    @classmethod
    def average(cls, models: list[Any]) -> Trees:
        """Mean of sets of trees of scikit-learn.

        Parameters
        ----------
        models : list of HistGradientBoostingClassifier
            Fitted classifiers of two classes, without categorical columns and missing values.
        """
        found = [step[0].nodes for model in models for step in model._predictors]
        start = np.cumsum([0, *(len(nodes) for nodes in found)])
        nodes = np.concatenate(found)
        first = np.repeat(start[:-1], np.diff(start))
        leaf = nodes["is_leaf"] > 0
        place = np.arange(len(nodes)) - first
        if not np.array_equal(nodes["left"][~leaf], place[~leaf] + 1):
            raise ValueError("scikit-learn orders the nodes of its trees in an unknown way")
        value = np.where(leaf, nodes["value"] / len(models), _below(nodes["num_threshold"]))
        return cls(
            np.where(leaf, -1, nodes["feature_idx"]).astype(np.int16),
            value.astype(np.float32),
            np.where(leaf, 0, nodes["right"] + first).astype(np.int32),
            start.astype(np.int64),
            float(np.mean([model._baseline_prediction for model in models])),
            int(models[0].n_features_in_),
        )


def boosting() -> tuple[Any, Any]:
    """``HistGradientBoostingClassifier`` and ``threadpool_limits``.

    Raises
    ------
    UsageError
        scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    except ImportError as missing:
        raise UsageError(
            "training boosted trees needs scikit-learn",
            remedy="pip install 'hepgen-ml[validation]', or use --network mlp",
        ) from missing
    return HistGradientBoostingClassifier, threadpool_limits


def grow(
    events: Labelled,
    schedule: Schedule,
    *,
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[Trees, dict[str, float]]:
    """Train boosted trees until their validation loss no longer decreases.

    Parameters
    ----------
    events : Labelled
    schedule : Schedule
        Only its seconds count.
    seed : int
    progress : callable
        Called with the completed fraction.

    Returns
    -------
    trees : Trees
    facts : dict
        ``trees`` of all sets and their mean best ``validation_loss``; ln 2: no difference.

    Raises
    ------
    UsageError
        scikit-learn is not installed.
    SampleError
        Negative weights: the loss is unbounded below if they dominate in a leaf.
    """
    classifier, limits = boosting()
    require_no_negative(events)
    weight = events.weight.double().numpy()
    x, y = _columns(events.inputs), events.truth.numpy() > 0.5
    workers = min(_SETS, torch.get_num_threads())
    seconds = schedule.seconds * workers / _SETS
    fractions = [0.0] * _SETS

    def one(k: int) -> Any:
        begun = time.monotonic()
        model = classifier(
            learning_rate=_LEARNING_RATE,
            max_iter=_AT_ONCE,
            max_leaf_nodes=_LEAVES,
            min_samples_leaf=min(100, max(len(x) // 40, 1)),
            l2_regularization=1.0,
            max_features=_FEATURES,
            early_stopping=True,
            validation_fraction=_VALIDATION,
            n_iter_no_change=_PATIENCE,
            random_state=_SETS * seed + k,
            warm_start=True,
        )
        while True:
            # one thread for each set: on a busy machine the trees' own threads wait for each other
            with limits(limits=1, user_api="openmp"):
                model.fit(x, y, None if np.ptp(weight) == 0 else weight)
            over = (time.monotonic() - begun) / seconds
            fractions[k] = max(min(over, 1.0), model.n_iter_ / _MOST)
            progress(sum(fractions) / _SETS)
            if model.n_iter_ < model.max_iter or model.n_iter_ >= _MOST or over >= 1:
                return model
            model.max_iter += _AT_ONCE

    with ThreadPoolExecutor(workers) as pool, quiet_threads():
        models = list(pool.map(one, range(_SETS)))
    progress(1.0)
    facts = {
        "trees": float(sum(m.n_iter_ for m in models)),
        "validation_loss": -float(np.mean([np.max(m.validation_score_) for m in models])),
    }
    return Trees.average(models), facts


def require_no_negative(events: Labelled) -> None:
    """Refuse events with negative weights."""
    if bool((events.weight < 0).any()):
        raise SampleError(
            "boosted trees do not take negative weights", remedy="use --network mlp for these"
        )


def _columns(inputs: Inputs) -> npt.NDArray[np.float32]:
    """Observables and labels (n, k)."""
    columns = torch.cat([inputs.values, inputs.labels.float()], dim=1)
    return np.ascontiguousarray(columns.numpy())


def _below(threshold: FloatArray) -> FloatArray:
    """Thresholds rounded down to single precision; comparisons with single x are the same."""
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
    return np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)


@compiled(nogil=True)
def _add(x, feature, value, right, start, total):  # type: ignore[no-untyped-def]
    """Add the leaf values of all trees to the totals (n,) of events x (n, k)."""
    for low in range(0, len(x), _BLOCK):
        high = min(low + _BLOCK, len(x))
        for tree in range(len(start) - 1):
            for event in range(low, high):
                node = start[tree]
                while feature[node] >= 0:
                    if x[event, feature[node]] <= value[node]:
                        node += 1
                    else:
                        node = right[node]
                total[event] += value[node]
