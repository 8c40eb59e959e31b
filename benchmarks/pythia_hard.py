"""Hard processes of Pythia as parton-level samples, to train on or to judge by.

    python benchmarks/pythia_hard.py ttbar_hadronic --out ttbar.lhe.gz -n 400000 --seed 1
    python benchmarks/pythia_hard.py --list

Resonances decay with their spin correlations as far as Pythia has them; there is no shower and no
hadronization. Needs pythia8mc. Runs on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pythia8mc

import hepgen_ml
from hepgen_ml.events.sample import EventSample, RunInfo, Subrun

COMMON = (
    "PartonLevel:all = off", "HadronLevel:all = off", "Random:setSeed = on", "Print:quiet = on",
    "SLHA:verbose = 0", "SLHA:readFrom = 2", "Next:numberCount = 0",
)  # fmt: skip
PARTICLE = ("pdg_id", "status", "mother1", "mother2", "color1", "color2", "px", "py", "pz",
            "energy", "mass", "lifetime", "spin")  # fmt: skip
EVENT = ("process_id", "weight", "scale", "alpha_qed", "alpha_qcd")
STATUS = {-21: -1, -22: 2, 23: 1}
"""Pythia's incoming, intermediate and final particles of a hard process in LHE terms."""
BEFORE = (-11, -12, -13)
"""The whole system, the beams, and what is inside of them."""


@dataclass(frozen=True)
class HardProcess:
    """One process of Pythia.

    Attributes
    ----------
    title : str
    settings : tuple of str
        Beside those that all share.
    slha : str
        Spectrum and decays of new particles.
    """

    title: str
    settings: tuple[str, ...]
    slha: str = ""


def _decay(pdg_id: int, width: float, modes: Sequence[tuple[float, tuple[int, ...]]]) -> str:
    lines = [f"DECAY {pdg_id} {width:.6E}"]
    lines += [
        f"  {fraction:.8E} {len(ids)} " + " ".join(map(str, ids)) for fraction, ids in modes
    ]
    return "\n".join(lines) + "\n"


def _masses(**values: float) -> str:
    rows = "".join(f"  {name[1:]} {mass:.6E}\n" for name, mass in values.items())
    return f"BLOCK MODSEL\n  1 0\nBLOCK MASS\n{rows}"


_QUARKS = (1, 2, 3, 4, 5)

_GLUINO = _masses(_1000021=1500.0, _1000022=200.0, _1000023=400.0, _1000024=400.0) + _decay(
    1000021, 2.0,
    [(0.08, (1000022, q, -q)) for q in _QUARKS]
    + [(0.06, (1000023, q, -q)) for q in _QUARKS]
    + [(0.075, (s * 1000024, s * d, -s * u)) for s in (1, -1) for d, u in ((1, 2), (3, 4))],
) + _decay(
    1000023, 0.5,
    [(0.5, (1000022, 23)), (0.5, (1000022, 25))],
) + _decay(1000024, 0.5, [(1.0, (1000022, 24))]) + _decay(1000022, 0.0, [])  # fmt: skip

_STOP = _masses(_1000006=600.0) + "BLOCK RVLAMUDDIN\n  3 1 2 1.0E-01\n" + _decay(
    1000006, 1.0, [(1.0, (-1, -3))]
)  # fmt: skip

_MIXINGS = "".join(
    f"BLOCK {name}\n" + "".join(f"  {i} {i} 1.0\n" for i in range(1, n + 1))
    for name, n in (("NMIX", 4), ("UMIX", 2), ("VMIX", 2), ("STOPMIX", 2), ("SBOTMIX", 2),
                    ("STAUMIX", 2))
)  # fmt: skip

_CHARGINOS = _MIXINGS + (
    "BLOCK HMIX Q= 1000\n  1 500.\n  2 10.\n  3 245.\n  4 1e6\nBLOCK ALPHA\n  -0.1\n"
    "BLOCK GAUGE Q= 1000\n  1 0.357\n  2 0.652\n  3 1.2\n"
) + _masses(
    _1000022=100.0, _1000023=150.0, _1000024=150.0, _1000025=900.0, _1000035=910.0, _1000037=905.0,
    **{f"_{1000000 * k + q}": 2000.0 for k in (1, 2) for q in range(1, 7)},
) + _decay(
    1000024, 1e-5, [(0.5, (1000022, -11, 12)), (0.5, (1000022, 2, -1))]
) + _decay(
    1000023, 1e-5, [(0.5, (1000022, 13, -13)), (0.5, (1000022, 1, -1))]
) + _decay(1000022, 0.0, [])  # fmt: skip

_PP, _EE = "Beams:eCM = 13000", ("Beams:idA = 11", "Beams:idB = -11")
_BARE = "PDF:lepton = off"


def _only(pdg_id: int, products: str, key: str = "onIfAny") -> tuple[str, str]:
    """Open decay modes of a particle."""
    return f"{pdg_id}:onMode = off", f"{pdg_id}:{key} = {products}"


PROCESSES: dict[str, HardProcess] = {
    "ttbar_hadronic": HardProcess(
        "pp → tt̄ → six quarks",
        (_PP, "Top:gg2ttbar = on", "Top:qqbar2ttbar = on", *_only(24, "1 2 3 4 5")),
    ),
    "drell_yan": HardProcess(
        "pp → γ*/Z → μμ, 60 to 120 GeV",
        (_PP, "WeakSingleBoson:ffbar2gmZ = on", "PhaseSpace:mHatMin = 60",
         "PhaseSpace:mHatMax = 120", *_only(23, "13")),
    ),
    "w01j": HardProcess(
        "pp → W → ℓν with no jet or one above 30 GeV",
        (_PP, "WeakSingleBoson:ffbar2W = on", "WeakBosonAndParton:qqbar2Wg = on",
         "WeakBosonAndParton:qg2Wq = on", "PhaseSpace:pTHatMin = 30", *_only(24, "11 13")),
    ),
    "dijets": HardProcess(
        "pp → jj above 50 GeV", (_PP, "HardQCD:all = on", "PhaseSpace:pTHatMin = 50")
    ),
    "dijets_biased": HardProcess(
        "pp → jj above 50 GeV, biased with pT⁴",
        (_PP, "HardQCD:all = on", "PhaseSpace:pTHatMin = 50", "PhaseSpace:bias2Selection = on",
         "PhaseSpace:bias2SelectionPow = 4", "PhaseSpace:bias2SelectionRef = 100"),
    ),
    "photon_jet": HardProcess(
        "pp → γj above 50 GeV",
        (_PP, "PromptPhoton:qg2qgamma = on", "PromptPhoton:qqbar2ggamma = on",
         "PhaseSpace:pTHatMin = 50"),
    ),
    "wz_3l": HardProcess(
        "pp → WZ → eν μμ",
        (_PP, "WeakDoubleBoson:ffbar2ZW = on", *_only(24, "11"), *_only(23, "13")),
    ),
    "h_4l": HardProcess(
        "pp → H → ZZ* → four charged leptons",
        (_PP, "HiggsSM:gg2H = on", *_only(25, "23 23", "onIfMatch"), *_only(23, "11 13")),
    ),
    "vbf_hbb": HardProcess(
        "pp → H qq′ by vector boson fusion, H → bb̄",
        (_PP, "HiggsSM:ff2Hff(t:WW) = on", "HiggsSM:ff2Hff(t:ZZ) = on", *_only(25, "5")),
    ),
    "single_top": HardProcess(
        "pp → tq, t → bℓν",
        (_PP, "Top:qq2tq(t:W) = on", *_only(24, "11 13")),
    ),
    "gluinos": HardProcess(
        "pp → g̃g̃ with all decays",
        (_PP, "SUSY:gg2gluinogluino = on", "SUSY:qqbar2gluinogluino = on"), _GLUINO,
    ),
    "zprime_tt": HardProcess(
        "pp → Z′(2 TeV) → tt̄",
        (_PP, "NewGaugeBoson:ffbar2gmZZprime = on", "Zprime:gmZmode = 3", "32:m0 = 2000",
         *_only(32, "6")),
    ),
    "leptoquarks": HardProcess(
        "pp → leptoquark pairs (1 TeV) → ue ue",
        (_PP, "LeptoQuark:gg2LQLQbar = on", "LeptoQuark:qqbar2LQLQbar = on", "42:m0 = 1000"),
    ),
    "ee_ww": HardProcess(
        "e⁺e⁻ → WW at 240 GeV",
        (*_EE, "Beams:eCM = 240", _BARE, "WeakDoubleBoson:ffbar2WW = on"),
    ),
    "ee_ww_isr": HardProcess(
        "e⁺e⁻ → WW at 240 GeV with radiation",
        (*_EE, "Beams:eCM = 240", "WeakDoubleBoson:ffbar2WW = on"),
    ),
    "ee_zh": HardProcess(
        "e⁺e⁻ → ZH at 240 GeV, Z → μμ, H → bb̄",
        (*_EE, "Beams:eCM = 240", _BARE, "HiggsSM:ffbar2HZ = on", *_only(23, "13"),
         *_only(25, "5")),
    ),
    "ee_zh_isr": HardProcess(
        "e⁺e⁻ → ZH at 240 GeV with radiation, Z → μμ, H → bb̄",
        (*_EE, "Beams:eCM = 240", "HiggsSM:ffbar2HZ = on", *_only(23, "13"), *_only(25, "5")),
    ),
    "ee_qq": HardProcess(
        "e⁺e⁻ → Z → qq̄ at the Z pole",
        (*_EE, "Beams:eCM = 91.19", _BARE, "WeakSingleBoson:ffbar2gmZ = on",
         *_only(23, "1 2 3 4 5")),
    ),
    "dis": HardProcess(
        "ep → eX, 27.5 GeV on 920 GeV, Q² > 25 GeV²",
        ("Beams:idA = 2212", "Beams:idB = 11", "Beams:frameType = 2", "Beams:eA = 920",
         "Beams:eB = 27.5", _BARE, "WeakBosonExchange:ff2ff(t:gmZ) = on",
         "PhaseSpace:Q2Min = 25"),
    ),
    "gamma_gamma": HardProcess(
        "e⁺e⁻ → e⁺e⁻ μμ, photons of the beams",
        (*_EE, "Beams:eCM = 200", "PDF:beamA2gamma = on", "PDF:beamB2gamma = on",
         "Photon:ProcessType = 4", "PhotonCollision:gmgm2mumu = on", "Photon:Q2max = 1",
         "Photon:Wmin = 10", "PhaseSpace:pTHatMin = 2"),
    ),
    "photoproduction": HardProcess(
        "ep → jj above 7 GeV by photons, direct and resolved",
        ("Beams:idA = 2212", "Beams:idB = 11", "Beams:frameType = 2", "Beams:eA = 920",
         "Beams:eB = 27.5", "PDF:beamB2gamma = on", "Photon:ProcessType = 0", "Photon:Q2max = 1",
         "Photon:Wmin = 100", "HardQCD:all = on", "PhotonParton:all = on",
         "PhaseSpace:pTHatMin = 7"),
    ),
    "gamma_p": HardProcess(
        "γp → jj above 7 GeV at 200 GeV, direct and resolved",
        ("Beams:idA = 22", "Beams:idB = 2212", "Beams:eCM = 200", "HardQCD:all = on",
         "PhotonParton:all = on", "PhaseSpace:pTHatMin = 7"),
    ),
    "rpv_stop": HardProcess(
        "pp → stop pairs (600 GeV) → d̄s̄ ds",
        (_PP, "SUSY:gg2squarkantisquark = on", "SUSY:qqbar2squarkantisquark = on",
         "SUSY:idA = 1000006", "SUSY:idB = 1000006"), _STOP,
    ),
    "charginos": HardProcess(
        "pp → χ̃± χ̃⁰₂ (150 GeV) → f f̄′ f f̄ χ̃⁰ χ̃⁰, three-body decays",
        (_PP, "SUSY:qqbar2chi+-chi0 = on", "SUSY:idA = 1000024", "SUSY:idB = 1000023"), _CHARGINOS,
    ),
    "heavy_neutrinos": HardProcess(
        "pp → W_R (3 TeV) → ℓN → ℓℓ jj, N of 0.8 and 1.5 TeV",
        (_PP, "LeftRightSymmmetry:ffbar2WR = on", "9900024:m0 = 3000", "9900012:m0 = 800",
         "9900014:m0 = 1500", *_only(9900024, "9900012 9900014")),
    ),
    "doubly_charged": HardProcess(
        "pp → H⁺⁺H⁻⁻ (500 GeV) → four leptons",
        (_PP, "LeftRightSymmmetry:ffbar2HLHL = on", "9900041:m0 = 500", *_only(9900041, "11 13")),
    ),
    "charmonium": HardProcess(
        "pp → charmonium above 10 GeV, singlets and colour octets",
        (_PP, "Charmonium:all = on", "PhaseSpace:pTHatMin = 10"),
    ),
    "muon_collider": HardProcess(
        "μ⁺μ⁻ → νν̄ H at 10 TeV with radiation",
        ("Beams:idA = -13", "Beams:idB = 13", "Beams:eCM = 10000", "HiggsSM:ff2Hff(t:WW) = on",
         "25:mayDecay = off"),
    ),
    "alp": HardProcess(
        "pp → H → aa → four photons, a of 1 GeV with a lifetime",
        (_PP, "HiggsSM:gg2H = on",
         "9000005:new = a a 1 0 0 1.0 0.0 0.0 0.0 100.0", "9000005:isResonance = false",
         "25:onMode = off", "25:addChannel = 1 1.0 100 9000005 9000005"),
    ),
}  # fmt: skip


def make(name: str, n: int, seed: int = 1) -> EventSample:
    """Generate n events of a process of `PROCESSES`."""
    process = PROCESSES[name]
    pythia = pythia8mc.Pythia("", False)
    commands = [*COMMON, *process.settings, f"Random:seed = {seed}"]
    for line in commands:
        if not pythia.readString(line):
            raise SystemExit(f"Pythia does not know {line!r}")
    if process.slha:
        import tempfile
        from pathlib import Path

        place = Path(tempfile.mkdtemp()) / "spectrum.slha"
        place.write_text(process.slha)
        pythia.readString(f"SLHA:file = {place}")
    if not pythia.init():
        raise SystemExit(f"Pythia does not start {name}")
    offsets, rows, events = [0], [], []
    while len(events) < n:
        if not pythia.next():
            continue
        record, info = pythia.process, pythia.infoPython()
        before = sum(record[i].status() in BEFORE for i in range(record.size()))
        rows.append(np.array([row(record[i], before) for i in range(before, record.size())]))
        offsets.append(offsets[-1] + len(rows[-1]))
        events.append((info.code(), info.weight(), info.QFac(), info.alphaEM(), info.alphaS()))
    info = pythia.infoPython()
    subruns = tuple(
        Subrun(code, 1e9 * info.sigmaGen(code), 1e9 * info.sigmaErr(code), 1.0)
        for code in info.codesHard()
        if info.nAccepted(code)
    )
    columns = dict(zip(EVENT, np.array(events).T, strict=True))
    total = sum(s.cross_section for s in subruns)
    weighted = bool(np.ptp(columns["weight"]) > 0)
    if weighted:
        columns["weight"] *= total / columns["weight"].mean()
    energies = info.eA(), info.eB()
    if pythia.settings.mode("Beams:frameType") == 2:  # Pythia collides in the rest frame
        energies = tuple(pythia.settings.parm(f"Beams:e{side}") for side in "AB")
    beams = (info.idA(), info.idB()), energies
    run = RunInfo(
        *beams, weight_strategy=-4 if weighted else 3, processes=subruns,
        generators=(("Pythia", "8", process.title),),
        header=f"<slha>\n{process.slha}</slha>" if process.slha else "",
    )  # fmt: skip
    return EventSample(
        run, offsets, dict(zip(PARTICLE, np.concatenate(rows).T, strict=True)), columns
    )


def row(p: pythia8mc.Particle, before: int) -> tuple[float, ...]:
    """One particle of a record with so many rows before the incoming ones."""
    mothers = (0, 0)
    if p.status() != -21:
        first, last = p.mother1(), p.mother2() or p.mother1()
        mothers = (first - before + 1, last - before + 1)
    return (p.id(), STATUS[p.status()], *mothers, p.col(), p.acol(), p.px(), p.py(), p.pz(),
            p.e(), p.m(), p.tau(), p.pol())  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("process", nargs="?", choices=PROCESSES, metavar="PROCESS")
    parser.add_argument("--list", action="store_true", help="name the processes")
    parser.add_argument("--out", metavar="FILE.lhe.gz")
    parser.add_argument("-n", type=int, default=100_000, help="events")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.list:
        for name, process in PROCESSES.items():
            print(f"{name:<16}{process.title}")
        return
    if options.process is None or options.out is None:
        parser.error("name a process and --out FILE")
    hepgen_ml.write(make(options.process, options.n, options.seed), options.out)


if __name__ == "__main__":
    main()
