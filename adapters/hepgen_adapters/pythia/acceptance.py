"""Acceptance of events by Pythia, and the resulting cross section."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hepgen_adapters.pythia.module import configured
from hepgen_adapters.pythia.source import classes
from hepgen_ml.errors import InputError, SampleError
from hepgen_ml.events.sample import EventSample

_PB_PER_MB = 1e9


@dataclass(frozen=True)
class ShowerResult:
    """Result of showering a sample with Pythia.

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
        """Number of events that Pythia rejected."""
        return self.n_events - self.n_accepted

    @property
    def acceptance(self) -> float:
        """Fraction of events accepted; nan without events."""
        return self.n_accepted / self.n_events if self.n_events else float("nan")


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
    commands = [
        "Random:setSeed = on",
        f"Random:seed = {seed}",
        f"HadronLevel:all = {'on' if hadronize else 'off'}",
        f"PartonLevel:MPI = {'on' if multiparton else 'off'}",
        # give up where the events give up, not after ten failures in a row
        "Main:timesAllowErrors = 1000000000",
        *settings,
    ]
    refusal: InputError | SampleError = SampleError(
        "Pythia refuses the run information of the sample",
        remedy="check beams, processes and weight strategy",
    )
    if not isinstance(source, EventSample):
        path = Path(source)
        if not path.is_file():
            raise InputError("no such file", path=path, remedy="check the path")
        commands += ["Beams:frameType = 4", f"Beams:LHEF = {path.resolve()}"]
        refusal = InputError(
            "Pythia refuses the file", path=path, remedy="see `hepgen-ml check` for its defects"
        )
    pythia = configured(commands)
    if isinstance(source, EventSample):
        classes()["LHAupSample"](source).attach(pythia)
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
        n_offered = len(source)  # also those that Pythia skipped silently
    else:
        n_offered = max(n_offered, int(info.nTried()) if n is None else n_offered)
    return ShowerResult(
        n_offered,
        n_accepted,
        info.sigmaGen() * _PB_PER_MB,
        info.sigmaErr() * _PB_PER_MB,
        weight_sum,
    )
