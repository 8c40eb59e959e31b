"""Small valid inputs of every kind, made by the package itself."""

from __future__ import annotations

import contextlib
import gzip
from dataclasses import dataclass
from pathlib import Path

from hepgen_ml.config import load_config
from hepgen_ml.events.formats import read, write
from hepgen_ml.generation.generator import Generator
from hepgen_ml.training.encoded import encode_sample
from tests.fuzz import mutations
from tests.lhe_files import END, EVENT, INIT, WEIGHTED
from tests.object_files import object_sample
from tests.samples import toy_top_pairs

SETTINGS = (
    "network.width=16", "network.blocks=1", "network.heads=2", "network.mixtures=2",
    "training.max_steps=4", "training.batch_size=64", "training.validation_interval=2",
)  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Inputs that are damaged and tried alike.

    Attributes
    ----------
    name : str
    share : float
        Of the campaign.
    file : str
        Name of the damaged file.
    commands : tuple of tuple of str
        Arguments of the command line; ``{}`` stands for the file or its directory.
    mutation : Mutation
    is_directory : bool
        Whether the commands take the directory that the file is in.
    """

    name: str
    share: float
    file: str
    commands: tuple[tuple[str, ...], ...]
    mutation: mutations.Mutation
    is_directory: bool = False


def _text(data: bytes, rng: object) -> bytes:
    return mutations.several(data, rng, mutations.OF_TEXT)  # type: ignore[arg-type]


def _bytes(data: bytes, rng: object) -> bytes:
    return mutations.several(data, rng, mutations.OF_BYTES)  # type: ignore[arg-type]


_READ = (("info", "{}"), ("check", "{}"), ("convert", "{}", "--out", "{out}", "--force"))
_OBJECTS = ("--objects", "Muon:0-2,Jet:0-10")
_GENERATE = (("info", "{}"), ("generate", "--model", "{}", "-n", "20", "--out", "{out}", "--force"))
_RESUME = ("train", "--from", "{sample}", "--out", "{}", "--resume", *(
    word for s in SETTINGS for word in ("--set", s)
))  # fmt: skip

KINDS = (
    Kind("lhe", 0.25, "a.lhe", _READ, _text),
    Kind("lhe.gz", 0.1, "a.lhe.gz", _READ, mutations.inside),
    Kind("hepmc", 0.2, "a.hepmc", _READ, _text),
    Kind("hepmc.gz", 0.05, "a.hepmc.gz", _READ, mutations.inside),
    Kind("root", 0.15, "a.root", _READ, _bytes),
    Kind("root objects", 0.08, "b.root", (("info", "{}", *_OBJECTS),), _bytes),
    Kind("model", 0.08, "model/config.json", _GENERATE, mutations.document, True),
    Kind("weights", 0.04, "model/model.safetensors", _GENERATE, mutations.tensors, True),
    Kind("encoded", 0.04, "sample.safetensors", (("train", "--from", "{}", "--out", "{outdir}",
         "--force", *_RESUME[6:]),), mutations.tensors),
    Kind("checkpoint", 0.01, "interrupted/checkpoint.safetensors", (_RESUME,), mutations.tensors,
         True),
)  # fmt: skip


def make(directory: Path) -> None:
    """Write the valid inputs into a directory."""
    text = INIT + 3 * EVENT + WEIGHTED + 2 * EVENT + END
    (directory / "a.lhe").write_text(text)
    (directory / "a.lhe.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    partons = toy_top_pairs(1200, seed=3)
    write(partons[:6], directory / "a.hepmc")
    write(partons[:6], directory / "a.hepmc.gz")
    write(partons[:6], directory / "a.root")
    write(object_sample(12), directory / "b.root")
    encode_sample([write_and_name(partons, directory / "training.lhe")]).save(
        directory / "sample.safetensors"
    )
    encoded, config = str(directory / "sample.safetensors"), load_config(None, SETTINGS)
    Generator.train(encoded, out=directory / "model", config=config, device="cpu")

    def stop(stage: str, *_: object) -> None:
        if stage == "train":
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        Generator.train(
            encoded, out=directory / "interrupted", device="cpu", progress=stop,
            config=config.with_(training__max_steps=1_000_000),
        )  # fmt: skip


def write_and_name(sample: object, path: Path) -> str:
    """Name of a file that holds a sample."""
    write(sample, path)  # type: ignore[arg-type]
    assert len(read(path))
    return str(path)
