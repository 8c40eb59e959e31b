"""Exact squared amplitudes of q q~ -> Z + n gluons by pyamplicol, in a Python that has it.

    python -m venv ORACLE && ORACLE/bin/pip install pyamplicol==1.0.1
    ORACLE/bin/python benchmarks/amplitude_worker.py DIR N < points.npy > amplitudes.npy

makes the process in DIR if it is not there (16 s to a minute) and evaluates points (m, N + 3, 4) as
(E, px, py, pz) in the order u, u~, Z, gluons. One process at a time: symbolica, on which pyamplicol
depends and which is proprietary, ends others. hepgen-ml needs neither of the two.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    """Read points, write amplitudes; the processor time for them goes to standard error."""
    directory, n = Path(sys.argv[1]), int(sys.argv[2])
    if not directory.exists():
        process = "u u~ > z" + n * " g"
        command = [str(Path(sys.executable).with_name("pyamplicol")), "generate", process]
        command += [str(directory), "--color-accuracy", "full"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    import pyamplicol

    points = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    points = np.ascontiguousarray(points)  # others are evaluated wrongly without a word
    evaluator = pyamplicol.load(str(directory))
    evaluator.evaluate(points[:10])
    found = []
    begun = time.process_time()
    for start in range(0, len(points), 20_000):
        found.append(np.asarray(evaluator.evaluate(points[start : start + 20_000])))
    seconds = time.process_time() - begun
    values = np.concatenate(found).reshape(len(points), -1).real[:, 0]
    print(seconds, file=sys.stderr)
    out = io.BytesIO()
    np.save(out, values)
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    main()
