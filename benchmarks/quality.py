"""Judge generated events against truth that training never saw.

    python benchmarks/quality.py --truth FILE... (--generated FILE... | --model DIR)

Prints, per final state, the AUC of a gradient-boosted classifier and chi2/ndf
of every observable, beside the same numbers for truth against truth; and how
well final states, subprocesses, colour flows and helicities keep their
frequencies. The conservation laws are `hepgen-ml check`'s business.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import hepgen_ml
from hepgen_ml.errors import HepgenError
from hepgen_ml.validation.comparison import compare


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--truth", nargs="+", required=True, metavar="FILE")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--generated", nargs="+", metavar="FILE")
    source.add_argument("--model", metavar="DIR", help="generate with this model")
    parser.add_argument("-n", type=int, metavar="N", help="use N generated events at most")
    parser.add_argument("--bins", type=int, default=50, help="of each observable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", metavar="FILE", help="draw the comparison (.png, .pdf)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers")
    options = parser.parse_args()
    try:
        truth = hepgen_ml.read(options.truth)
        if options.model:
            generator = hepgen_ml.Generator.load(options.model)
            generated = generator.sample(options.n or 100_000, seed=options.seed)
        else:
            generated = hepgen_ml.read(options.generated, max_events=options.n)
        result = compare(truth, generated, n_bins=options.bins, seed=options.seed, progress=_say)
        print(result.summary())
        print(f"{result.seconds:.1f} s")
        if options.json:
            Path(options.json).write_text(json.dumps(result.to_dict(), indent=1) + "\n")
        if options.figure:
            from hepgen_ml.validation.figures import overview, save

            save(overview(truth, generated), options.figure)
    except HepgenError as error:
        print(f"quality.py: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
