"""Quality of a flow or diffusion against the number of network evaluations per event.

    python benchmarks/evaluations.py --model DIR --truth FILE

Samples the same trained network with different solvers and numbers of steps, and prints the AUC
of a gradient-boosted classifier against held-out truth, the root mean square distance of the
end points from those of 200 evaluations for the same base draws (standardised coordinates), and
the rate. The first line is truth against truth. The random steps of a diffusion (`ancestral`) lead
elsewhere than its other solvers: their distance says nothing.
"""

from __future__ import annotations

import argparse
import time

import torch

import hepgen_ml
from hepgen_ml.analysis.classifier import classifier_auc
from hepgen_ml.analysis.observables import observables
from hepgen_ml.models.diffusion.ddpm import Diffusion
from hepgen_ml.models.flow.flow_matching import FlowMatching

# Published setting first: rk4 with 50 steps.
POINTS = [("rk4", 50), ("rk4", 6), ("rk4", 4), ("rk4", 3), ("midpoint", 12), ("midpoint", 8),
          ("midpoint", 4), ("euler", 24), ("euler", 12)]  # fmt: skip
DIFFUSION = [("rk4", 50), ("ancestral", 1), ("rk4", 6), ("rk4", 4), ("rk4", 3), ("rk4", 2),
             ("dpm2m", 24), ("dpm2m", 12), ("ddim", 48), ("ddim", 24), ("ddim", 12)]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--truth", required=True, metavar="FILE")
    parser.add_argument("-n", type=int, default=30_000, help="events of each sample")
    parser.add_argument("--points", nargs="+", metavar="SOLVER:STEPS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = hepgen_ml.Generator.load(options.model, device="cpu")
    flow = generator.surrogate.density
    if not isinstance(flow, FlowMatching):
        raise SystemExit(f"{options.model} is no flow and no diffusion")
    points = DIFFUSION if isinstance(flow, Diffusion) else POINTS
    if options.points:
        points = [(s, int(k)) for s, k in (point.split(":") for point in options.points)]
    truth = hepgen_ml.read(options.truth)
    half = len(truth) // 2
    true = observables(truth[:half])
    show("truth", 0, "", true, observables(truth[half:]), options)
    subprocess = torch.multinomial(
        torch.from_numpy(generator.process.frequencies), 2000, replacement=True,
        generator=torch.Generator().manual_seed(options.seed),
    )  # fmt: skip
    reference = None
    for solver, steps in points:
        flow.settings = flow.settings.model_copy(update={"solver": solver, "steps": steps})
        with torch.inference_mode():
            ends = flow.sample_z(subprocess, torch.Generator().manual_seed(1))
        reference = ends if reference is None else reference
        distance = torch.remainder(ends - reference + torch.pi, 2 * torch.pi) - torch.pi
        begun = time.monotonic()
        generated = generator.sample(options.n, seed=options.seed)
        rate = options.n / (time.monotonic() - begun)
        text = f"distance {distance.square().mean().sqrt():.1e}, {rate:6.0f} events/s"
        show(solver, flow.evaluations, text, true, observables(generated), options)


def show(solver, evaluations, text, true, made, options) -> None:
    areas = []
    for signature, table in true.items():
        auc = classifier_auc(table, made[signature], n_events=options.n, seed=options.seed)
        areas.append(f"{signature}: {auc.value:.4f} ± {auc.error:.4f}")
    print(f"{solver:>9} {evaluations:4d} evaluations: AUC {', '.join(areas)}; {text}", flush=True)


if __name__ == "__main__":
    main()
