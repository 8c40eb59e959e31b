"""Predictions for files: arrays of NumPy, or events with a further named weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hepgen_ml.errors import SampleError, UsageError, about
from hepgen_ml.events.formats import DEFAULT_CHUNK, AtomicWriter, format_of, open_sample
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample
from hepgen_ml.events.weight_groups import declared
from hepgen_ml.files.outputs import naming, refuse_existing, replacing
from hepgen_ml.regression.point_files import NPZ, event_chunks
from hepgen_ml.regression.regressor import Prediction, Regressor


def predict_file(
    regressor: Regressor,
    path: Path,
    out: Path,
    *,
    force: bool = False,
    selection: Selection | None = None,
) -> Prediction:
    """Predict a number of each event of a file, and write it.

    Parameters
    ----------
    regressor : Regressor
    path : Path
        Any event file, or arrays as `read_npz` takes them.
    out : Path
        ``.npz`` with the arrays ``value`` and ``uncertainty``; or an event file that holds the
        events with a weight of the target's name, the prediction times the nominal weight.
    force : bool
        Replace an existing file.
    selection : Selection, optional

    Raises
    ------
    SampleError
        There are no events, or one has other particles than those of the training.
    UsageError
        Predictions of a nominal weight are not a ratio to it, or `path` has arrays only.
    OutputError
        The file exists.
    """
    refuse_existing(out, force=force)
    with about(path, SampleError):
        if out.suffix == NPZ:
            return _arrays(regressor, path, out, selection)
        return _events(regressor, path, out, selection, force)


def _arrays(
    regressor: Regressor, path: Path, out: Path, selection: Selection | None
) -> Prediction:
    found, first = [], 0
    for chunk in event_chunks(path, selection):
        found.append(regressor.predict(chunk, first))
        first += len(chunk)
    whole = _joined(found)
    with naming(out), replacing(out) as place, place.open("wb") as file:
        np.savez(file, value=whole.value, uncertainty=whole.uncertainty)
    return whole


def _events(
    regressor: Regressor, path: Path, out: Path, selection: Selection | None, force: bool
) -> Prediction:
    name = regressor.target.name
    if regressor.target.kind == "weight" or path.suffix == NPZ:
        what = "a nominal weight is not a ratio" if path.suffix != NPZ else "arrays are not events"
        raise UsageError(
            f"cannot be written: {what}", path=out,
            remedy="name a file .npz for values and uncertainties",
        )  # fmt: skip
    format_of(out)  # an error before the work
    reader = open_sample(path, selection=selection)
    found, first = [], 0
    try:
        run = declared(reader.run, {name: name})
        with AtomicWriter([out], run, None, force=force) as writer:
            for chunk in reader.chunks(DEFAULT_CHUNK):
                one = regressor.predict(chunk, first)
                first += len(chunk)
                found.append(one)
                writer.write(_with_weight(chunk, name, one.value * chunk.weight))
            whole = _joined(found)
    finally:
        reader.close()
    return whole


def _joined(found: list[Prediction]) -> Prediction:
    if not any(len(one.value) for one in found):
        raise SampleError("holds no events", remedy="check how it was made")
    return Prediction(*(np.concatenate(c) for c in zip(*found, strict=True)))


def _with_weight(sample: EventSample, name: str, weight: np.ndarray) -> EventSample:
    return EventSample(
        sample.run, sample.offsets, sample.particles, sample.events,
        weights={**sample.weights, name: weight}, scales=sample.scales,
        attributes=sample.attributes,
    )  # fmt: skip
