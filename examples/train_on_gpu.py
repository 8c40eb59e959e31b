"""Train larger surrogates on a GPU, from an encoded sample alone.

    hepgen-ml encode --from-lhe unweighted.lhe.gz --out sample.safetensors    # where the files are
    python examples/train_on_gpu.py sample.safetensors --model lgatr-cfm      # where the GPU is

The second machine needs torch, numpy, pydantic and safetensors, for flows torchdiffeq, and the
folder hepgen_ml beside this script's folder or installed; no file library. The result is a model
directory like any other. With several GPUs, `torchrun --nproc-per-node 4` instead of `python`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

try:
    import hepgen_ml  # noqa: F401
except ModuleNotFoundError:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from hepgen_ml.config import load_config
from hepgen_ml.errors import HepgenError
from hepgen_ml.generation.generator import Generator
from hepgen_ml.training.launched import SPEAKS, launched

# Batches that fill a GPU, and the sizes of the papers.
PRESETS: dict[str, dict[str, Any]] = {
    "jetgpt": {"network.width": 192, "network.blocks": 6, "network.heads": 6,
               "training.batch_size": 4096, "training.learning_rate": 2e-3},
    "lgatr-cfm": {"lgatr.channels": 16, "lgatr.scalars": 32, "lgatr.blocks": 6, "lgatr.heads": 8,
                  "training.batch_size": 2048, "training.learning_rate": 1e-3,
                  "training.compile": "true"},
    "transformer-cfm": {"network.width": 192, "network.blocks": 6, "network.heads": 6,
                        "training.batch_size": 4096, "training.learning_rate": 1e-3},
}  # fmt: skip


def main() -> int:
    """Train and say where the model is."""
    parser = argparse.ArgumentParser(description="train on a GPU from an encoded sample")
    parser.add_argument("sample", type=Path, help="made by `hepgen-ml encode`")
    parser.add_argument("--model", default="lgatr-cfm", help="density model (%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("hepgen-model"), metavar="DIR",
        help="directory of the model (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto (%(default)s)")
    parser.add_argument(
        "--max-time", type=float, default=480.0, metavar="SECONDS",
        help="seconds of training (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--max-epochs", type=float, default=60.0, metavar="N",
        help="largest number of passes over the events (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE",
        help="one setting, as of hepgen-ml train; may be repeated",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="continue the training in --out")
    parser.add_argument("--force", action="store_true", help="replace the model in --out")
    options = parser.parse_args()
    first = launched().rank == 0  # of several processes that torchrun has started
    level = logging.INFO if first else logging.CRITICAL
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout)
    preset = [f"{key}={value}" for key, value in PRESETS.get(options.model, {}).items()]
    limits = [f"training.max_time={options.max_time}", f"training.max_epochs={options.max_epochs}"]
    try:
        config = load_config(None, [f"model={options.model}", *preset, *limits, *options.set])
        generator = Generator.train(
            options.sample, out=options.out, config=config, device=options.device,
            resume=options.resume, force=options.force,
        )  # fmt: skip
    except HepgenError as error:
        if getattr(error, SPEAKS, first):
            print(f"train_on_gpu.py: {error}", file=sys.stderr)
        return error.exit_code
    if first:
        print(f"{options.out}: validation loss {generator.facts['validation_loss']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
