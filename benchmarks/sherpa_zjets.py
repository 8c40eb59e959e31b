"""Make Z + jets with Sherpa: showered and hadronised events as HepMC3, and their objects.

    python benchmarks/sherpa_zjets.py --python SHERPA/bin/python --dir sherpa -n 60000
    hepgen-ml train 'sherpa/zjets_*.hepmc.gz' --objects Muon:2,Jet:0-10 --out model
    python benchmarks/zjets.py --sample sherpa/sherpa_zjets.root --model auto --out model

pp -> Z/gamma* -> mu mu + 0, 1, 2 jets at 13 TeV, matrix elements merged at 20 GeV (CKKW), 66 to
116 GeV, with shower, hadronisation and radiation off the muons, without multi-parton interactions.
The events of `--python`, an interpreter that has Sherpa's module (`pip install --pre sherpa-mc`,
Python 3.12 or 3.13), are files of 3000 in HepMC3, each with a seed of its own; those that are there
are kept, so that an interrupted command goes on. What `zjets.py` reads, two bare muons and anti-kT
jets (0.4) above 20 GeV, is written to sherpa_zjets.root. Integration takes minutes, once.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
from pathlib import Path

import hepgen_ml
from hepgen_ml.events.objects import Selection, parse_objects

ENERGY = 6500.0  # GeV, of each beam
CARD = f"""BEAMS: 2212
BEAM_ENERGIES: {ENERGY:g}
MI_HANDLER: None
MODEL: SM
PARTICLE_DATA:
  5: {{Massive: false}}
PROCESSES:
- 93 93 -> 13 -13 93{{2}}:
    Order: {{QCD: 0, EW: 2}}
    CKKW: 20
    2->2-3:
      Integration_Error: 0.02
    2->4:
      Integration_Error: 0.05
SELECTORS:
- [Mass, 13, -13, 66, 116]
"""
WORKER = Path(__file__).with_name("sherpa_worker.py")
OBJECTS = "Muon:2,Jet:0-10"
PART = 3_000
SITE = "import sysconfig; print(sysconfig.get_paths()['platlib'])"


def make(python: str, directory: Path, n: int, seed: int) -> list[Path]:
    """HepMC3 files with n events or a few more, those that exist included."""
    found = subprocess.run([python, "-c", SITE], check=True, capture_output=True, text=True)
    libraries = Path(found.stdout.strip()) / "lib64" / "SHERPA-MC"
    if not libraries.is_dir():
        raise SystemExit(f"{python} has no Sherpa: pip install --pre sherpa-mc (Python 3.12, 3.13)")
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "Sherpa.yaml").write_text(CARD)
    paths = [directory / f"zjets_{seed + k}.hepmc.gz" for k in range(-(-n // PART))]
    for k, path in enumerate(paths):
        if path.exists():
            continue
        begun, log = time.perf_counter(), directory / f"zjets_{seed + k}.log"
        command = [python, str(WORKER), "Sherpa.yaml", path.name, str(PART), str(seed + k),
                   str(ENERGY)]  # fmt: skip
        with log.open("w") as output:
            done = subprocess.run(
                command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        if done.returncode or not path.exists():
            raise SystemExit(f"Sherpa stopped: see {log}")
        print(f"{path}: {PART / (time.perf_counter() - begun):.0f} events/s", flush=True)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", required=True, metavar="FILE", help="interpreter with Sherpa")
    parser.add_argument("--dir", required=True, metavar="DIR", type=Path)
    parser.add_argument("-n", type=int, default=60_000, help="events")
    parser.add_argument("--seed", type=int, default=1, help="of the first file")
    options = parser.parse_args()
    paths = make(options.python, options.dir.resolve(), options.n, options.seed)
    selection = Selection(parse_objects(OBJECTS))
    root = options.dir / "sherpa_zjets.root"
    done = hepgen_ml.convert(paths, root, selection=selection, force=True)
    sigma, error = done.run.cross_section, done.run.cross_section_error
    print(f"{root}: {done.n_events} events, {sigma:.1f} ± {error:.1f} pb")


if __name__ == "__main__":
    main()
