"""Pythia 8 as a consumer: whether it showers the events, and with which cross section.

Pythia is optional (``pip install hepgen-ml[pythia]``). It repairs many defects
silently, so that acceptance comes on top of `hepgen_ml.analysis.laws`, never
instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepgen_ml.errors import InputError, SampleError, UsageError
from hepgen_ml.events.sample import UNKNOWN_SPIN, EventSample

_PB_PER_MB = 1e9


@dataclass(frozen=True)
class ShowerResult:
    """What Pythia made of a sample.

    Attributes
    ----------
    n_events : int
        Events offered.
    n_accepted : int
        Events showered (and hadronized) without an error.
    cross_section, error : float
        As Pythia reports them, in pb.
    weight_sum : float
        Sum of Pythia's nominal event weights.
    """

    n_events: int
    n_accepted: int
    cross_section: float
    error: float
    weight_sum: float

    @property
    def n_failed(self) -> int:
        """Events that Pythia gave up on."""
        return self.n_events - self.n_accepted

    @property
    def acceptance(self) -> float:
        """Fraction of events accepted; nan without events."""
        return self.n_accepted / self.n_events if self.n_events else float("nan")


def load_pythia() -> Any:
    """Import the optional module ``pythia8mc``.

    Raises
    ------
    UsageError
        If it is not installed.
    """
    try:
        import pythia8mc
    except ImportError as error:
        raise UsageError(
            "Pythia is not installed", remedy="pip install 'hepgen-ml[pythia]'"
        ) from error
    return pythia8mc


def shower_acceptance(
    source: str | Path | EventSample,
    n: int | None = None,
    *,
    hadronize: bool = True,
    multiparton: bool = False,
    seed: int = 1,
    settings: Sequence[str] = (),
) -> ShowerResult:
    """Shower events with Pythia and count those that it accepts.

    Parameters
    ----------
    source : path-like or EventSample
        An LHE file, plain or gzipped, or events in memory.
    n : int, optional
        Stop after so many events.
    hadronize : bool
        Shower and hadronize; otherwise only the shower.
    multiparton : bool
        Multi-parton interactions, many times slower.
    seed : int
        Of Pythia's random numbers, 1 to 900000000.
    settings : sequence of str
        Further Pythia settings such as ``"PartonLevel:FSR = off"``.

    Returns
    -------
    ShowerResult

    Raises
    ------
    UsageError
        Pythia is not installed, or does not know a setting.
    InputError
        The file does not exist or Pythia refuses its header.
    SampleError
        The sample in memory lacks columns or Pythia refuses its run information.
    """
    module = load_pythia()
    pythia = module.Pythia("", False)
    commands = [
        "Print:quiet = on",
        "SLHA:verbose = 0",
        "Random:setSeed = on",
        f"Random:seed = {seed}",
        f"HadronLevel:all = {'on' if hadronize else 'off'}",
        f"PartonLevel:MPI = {'on' if multiparton else 'off'}",
        # give up where the events give up, not after ten failures in a row
        "Main:timesAllowErrors = 1000000000",
        *settings,
    ]
    source_of_events = None
    if isinstance(source, EventSample):
        source_of_events = lha_source(source)  # Pythia holds no reference of its own
        commands.append("Beams:frameType = 5")
        pythia.setLHAupPtr(source_of_events)
        refusal: InputError | SampleError = SampleError(
            "Pythia refuses the run information of the sample",
            remedy="check beams, processes and weight strategy",
        )
    else:
        path = Path(source)
        if not path.is_file():
            raise InputError("no such file", path=path, remedy="check the path")
        commands += ["Beams:frameType = 4", f"Beams:LHEF = {path.resolve()}"]
        refusal = InputError(
            "Pythia refuses the file", path=path, remedy="see `hepgen-ml check` for its defects"
        )
    for command in commands:
        if not pythia.readString(command):
            raise UsageError(f"Pythia does not know the setting {command!r}", remedy="correct it")
    if not pythia.init():
        raise refusal

    info = pythia.infoPython()
    n_offered = n_accepted = 0
    weight_sum = 0.0
    while n is None or n_offered < n:
        accepted = pythia.next()
        if not accepted and pythia.infoPython().atEndOfFile():
            break
        n_offered += 1
        if accepted:
            n_accepted += 1
            weight_sum += pythia.infoPython().weight()
    info = pythia.infoPython()
    if n is None and isinstance(source, EventSample):
        n_offered = len(source)  # also those that Pythia passed over without a word
    else:
        n_offered = max(n_offered, int(info.nTried()) if n is None else n_offered)
    return ShowerResult(
        n_offered,
        n_accepted,
        info.sigmaGen() * _PB_PER_MB,
        info.sigmaErr() * _PB_PER_MB,
        weight_sum,
    )


def lha_source(sample: EventSample) -> Any:
    """Events in memory as Pythia's ``LHAup``, for ``Beams:frameType = 5``.

    Parameters
    ----------
    sample : EventSample
        Parton-level, with all particle columns but lifetime and spin required.

    Returns
    -------
    pythia8mc.LHAup
        Keep a reference as long as Pythia uses it.

    Raises
    ------
    SampleError
        If a column is missing.
    UsageError
        If Pythia is not installed.
    """
    module = load_pythia()
    p, e, run = sample.particles, sample.events, sample.run
    needed = ["pdg_id", "status", "mother1", "mother2", "color1", "color2"]
    needed += ["px", "py", "pz", "energy", "mass"]
    missing = [name for name in needed if name not in p]
    if missing:
        raise SampleError(
            f"showering needs {', '.join(missing)}, which this sample does not have",
            remedy="use a parton-level sample",
        )

    class Source(module.LHAup):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._events = self._stream()

        def _stream(self) -> Any:
            for chunk in sample.chunks(1000):
                rows = [chunk.particles[name].tolist() for name in needed]
                n_rows = int(chunk.offsets[-1])
                for name, value in (("lifetime", 0.0), ("spin", UNKNOWN_SPIN)):
                    column = chunk.particles.get(name)
                    rows.append([value] * n_rows if column is None else column.tolist())
                particles = list(zip(*rows, strict=True))
                offsets = chunk.offsets.tolist()
                scalars = [
                    chunk.events[name].tolist() if name in e else [default] * len(chunk)
                    for name, default in (
                        ("process_id", 0),
                        ("weight", 1.0),
                        ("scale", -1.0),
                        ("alpha_qed", -1.0),
                        ("alpha_qcd", -1.0),
                    )
                ]
                for i, head in enumerate(zip(*scalars, strict=True)):
                    yield head, particles[offsets[i] : offsets[i + 1]]

        def setInit(self) -> bool:  # noqa: N802  Pythia's name
            for beam, k in ((self.setBeamA, 0), (self.setBeamB, 1)):
                beam(run.beam_pdg_id[k], run.beam_energy[k], run.pdf_group[k], run.pdf_set[k])
            self.setStrategy(run.weight_strategy)
            for process in run.processes:
                self.addProcess(
                    process.process_id, process.cross_section, process.error, process.max_weight
                )
            return True

        def setEvent(self, process_id: int = 0) -> bool:  # noqa: N802  Pythia's name
            event = next(self._events, None)
            if event is None:
                return False
            head, particles = event
            self.setProcess(*head)
            for particle in particles:
                self.addParticle(*particle)
            incoming = [q for q in particles if q[1] == -1]
            if len(incoming) == 2:
                first, second = incoming
                self.setIdX(
                    first[0],
                    second[0],
                    first[9] / (run.beam_energy[0] or 1.0),
                    second[9] / (run.beam_energy[1] or 1.0),
                )
                self.setPdf(first[0], second[0], 0.0, 0.0, head[2], 0.0, 0.0, False)
            return True

    return Source()
