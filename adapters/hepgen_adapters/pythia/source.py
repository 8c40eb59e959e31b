"""Events for a Pythia in the same process, through its class ``LHAup``."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hepgen_adapters.pythia.module import load_pythia
from hepgen_ml.errors import SampleError, UsageError
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample, RunInfo

if TYPE_CHECKING:
    from typing import Any as _LHAup

    from hepgen_ml.generation.generator import Generator
else:
    _LHAup = object  # Pythia's class takes this place when one of the classes is used

_NEEDED = (
    "pdg_id", "status", "mother1", "mother2", "color1", "color2",
    "px", "py", "pz", "energy", "mass",
)  # fmt: skip
_OPTIONAL = (("lifetime", 0.0), ("spin", UNKNOWN_SPIN))
_EVENT = (
    ("process_id", 0), ("weight", 1.0), ("scale", -1.0), ("alpha_qed", -1.0), ("alpha_qcd", -1.0),
)  # fmt: skip
_PIECE = 1_000  # events turned into Python numbers at a time

_KEPT: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
"""Sources by the Pythia that reads them: Pythia itself holds no reference."""

Row = tuple[tuple[Any, ...], list[tuple[Any, ...]], dict[str, float]]
"""Event, particles and named weights."""


class Source(_LHAup):  # type: ignore[misc]
    """A run and a stream of its events."""

    def __init__(self, run: RunInfo, events: Iterable[EventSample]) -> None:
        super().__init__()
        self._run, self._rows = run, _rows(events)
        self._pythia: weakref.ref[Any] | None = None
        self._n = 0

    def feed(self, sample: EventSample) -> None:
        """Provide these events next, instead of the remaining ones."""
        self._rows = _rows(sample.chunks(_PIECE))

    def attach(self, pythia: Any) -> None:
        """Register as the source of a Pythia object that is not initialised yet.

        Named weights reach Pythia in this way only.

        Raises
        ------
        UsageError
            The object is not a Pythia, or another one reads from this source, which would divide
            the events.
        """
        if not isinstance(pythia, load_pythia().Pythia):
            raise UsageError(
                f"events cannot be handed to {type(pythia).__name__!r}",
                remedy="name an object of pythia8mc.Pythia",
            )
        if self._pythia is not None and self._pythia() not in (None, pythia):
            raise UsageError(
                "another Pythia receives these events already", remedy="make a source for each"
            )
        self._pythia = weakref.ref(pythia)
        _KEPT[pythia] = self
        pythia.readString("Beams:frameType = 5")
        pythia.setLHAupPtr(self)

    def setInit(self) -> bool:  # noqa: N802  Pythia's name
        """Beams, strategy and processes."""
        if self._n:
            raise UsageError(
                "some of these events were showered already", remedy="make a new source"
            )
        run = self._run
        for beam, k in ((self.setBeamA, 0), (self.setBeamB, 1)):
            beam(run.beam_pdg_id[k], run.beam_energy[k], run.pdf_group[k], run.pdf_set[k])
        self.setStrategy(run.weight_strategy)
        for process in run.processes:
            self.addProcess(
                process.process_id, process.cross_section, process.error, process.max_weight
            )
        return True

    def setEvent(self, process_id: int = 0) -> bool:  # noqa: N802  Pythia's name
        """Next event; False after the last."""
        row = next(self._rows, None)
        if row is None:
            return False
        self._n += 1
        head, particles, weights = row
        self.setProcess(*head)
        for particle in particles:
            self.addParticle(*particle)
        incoming = [q for q in particles if q[1] == -1]
        if len(incoming) == 2:
            first, second = sorted(incoming, key=lambda q: -q[8])
            energy = self._run.beam_energy
            x1, x2 = first[9] / (energy[0] or 1.0), second[9] / (energy[1] or 1.0)
            self.setIdX(first[0], second[0], x1, x2)
            self.setPdf(first[0], second[0], 0.0, 0.0, head[2], 0.0, 0.0, False)
        if weights:
            self._book(weights, head[1])
        return True

    def _book(self, weights: dict[str, float], nominal: float) -> None:
        """Hand over named weights, which Pythia holds beside the event."""
        pythia = None if self._pythia is None else self._pythia()
        if pythia is None:
            return
        module = load_pythia()
        # Pythia multiplies them with the nominal weight
        values = [w / nominal if nominal else 0.0 for w in weights.values()]
        pythia.infoPython().setLHEF3EventInfo(
            {}, {}, [], module.LHAscales(), module.LHAweights(), module.LHArwgt(),
            values, list(weights), "", nominal,
        )  # fmt: skip


class LHAupSample(Source):
    """Events of a sample in memory.

    Parameters
    ----------
    sample : EventSample
        Parton-level, with all particle columns but lifetime and spin required.

    Raises
    ------
    SampleError
        A column is missing.
    """

    def __init__(self, sample: EventSample) -> None:
        missing = [name for name in _NEEDED if name not in sample.particles]
        if missing:
            raise SampleError(
                f"showering needs {', '.join(missing)}, which this sample does not have",
                remedy="use a parton-level sample",
            )
        super().__init__(sample.run, sample.chunks(_PIECE))


class LHAupGenerator(Source):
    """Events of a trained model, generated on request of Pythia, in constant memory.

    Parameters
    ----------
    model : Generator, or path-like
        A trained model, its directory, or the name of one in the package.
    n : int
        Events; then ``pythia.next()`` is at the end of the file.
    seed : int, optional
        The events are those of `Generator.stream` with this seed and number, and of
        ``hepgen-ml generate``.
    **options
        Of `Generator.stream`: ``posterior``, ``weights``, ``unweight``.

    Raises
    ------
    ModelError
        There is no such model.
    SampleError
        The model makes reconstructed objects.
    UsageError
        No events are asked for.

    Examples
    --------
    ::

        pythia = pythia8mc.Pythia()
        LHAupGenerator("ttbar01j", n=10_000, seed=1).attach(pythia)
        pythia.init()
        while pythia.next():
            ...
    """

    def __init__(
        self,
        model: Generator | str | Path,
        *,
        n: int,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        from hepgen_ml.generation.generator import Generator

        if n < 1:  # Pythia would hear of it with the first event
            raise UsageError(f"cannot generate {n} events", remedy="ask for at least one")
        generator = model if isinstance(model, Generator) else Generator.load(model)
        if generator.process.is_reconstructed:
            raise SampleError(
                "the model generates reconstructed objects, which are showered already",
                remedy="use a model of partons",
            )
        run = generator.run_of(**options)
        super().__init__(run, generator.stream(n, seed=seed, chunk=_PIECE, **options))


@cache
def classes() -> Mapping[str, type]:
    """`Source`, `LHAupSample` and `LHAupGenerator` with Pythia's ``LHAup`` as their base, by name.

    Raises
    ------
    UsageError
        Pythia is not installed.
    """
    base = load_pythia().LHAup
    return {
        kind.__name__: type(kind.__name__, (kind, base), {"__doc__": kind.__doc__})
        for kind in (Source, LHAupSample, LHAupGenerator)
    }


def _rows(events: Iterable[EventSample]) -> Iterator[Row]:
    """Events one by one as Python numbers."""
    for chunk in events:
        columns = [chunk.particles[name].tolist() for name in _NEEDED]
        n_rows = int(chunk.offsets[-1])
        for name, missing in _OPTIONAL:
            column = chunk.particles.get(name)
            columns.append([missing] * n_rows if column is None else column.tolist())
        particles = list(zip(*columns, strict=True))
        offsets = chunk.offsets.tolist()
        scalars = [
            chunk.events[name].tolist() if name in chunk.events else [missing] * len(chunk)
            for name, missing in _EVENT
        ]
        named = [values.tolist() for values in chunk.weights.values()]
        for i, head in enumerate(zip(*scalars, strict=True)):
            weights = {name: values[i] for name, values in zip(chunk.weights, named, strict=True)}
            yield head, particles[offsets[i] : offsets[i + 1]], weights
