"""Storage of a regression: one file of tensors with a document that is validated on reading."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, Strict

from hepgen_ml.errors import ModelError
from hepgen_ml.files import documents
from hepgen_ml.files.outputs import naming
from hepgen_ml.files.probe import ProbeDocument
from hepgen_ml.files.tensors import load_tensors, restored, save_tensors
from hepgen_ml.regression.calibration import Calibration
from hepgen_ml.regression.model import Network, Settings, network_settings
from hepgen_ml.regression.points import (
    COLUMNS,
    MOST_KINDS,
    MOST_PARTICLES,
    MOST_SIGNATURES,
    Encoder,
)
from hepgen_ml.regression.targets import Kind, Target

_KIND, _VERSION = "hepgen-ml regression", 1

_GENERAL = ("name", "n_scalars", "n_out", "n_particles", "n_globals")
"""Settings of a network that are not its sizes."""

Parts = tuple[Encoder, Target, list[Network], Calibration, dict[str, Any]]
"""Of a `Regressor`."""


def sizes_of(network: Network) -> dict[str, Any]:
    """Sizes of a network, by the names that its settings have for them."""
    return {k: v for k, v in network.network.settings.items() if k not in _GENERAL}


def save_regression(
    path: Path,
    encoder: Encoder,
    target: Target,
    networks: list[Network],
    calibration: Calibration,
    facts: dict[str, Any],
    outputs: dict[str, Any],
) -> None:
    """Write the parts of a `Regressor` and its `probe` outputs; its directory is made if need be.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    tensors = {
        f"{i}.{name}": tensor
        for i, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }
    document = {
        "kind": _KIND, "version": _VERSION, "network": networks[0].network.settings,
        "bayesian": networks[0].head is not None, "members": len(networks),
        "particles": [[incoming, pdg] for incoming, pdg in encoder.kinds],
        "signatures": [list(s) for s in encoder.signatures],
        "columns": list(encoder.columns), "target": asdict(target),
        "calibration": list(calibration.coefficients), "facts": facts, **outputs,
    }  # fmt: skip
    with naming(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, tensors, document)


def load_regression(path: Path) -> tuple[Parts, ProbeDocument | None]:
    """Read what `save_regression` wrote.

    Raises
    ------
    ModelError
        Missing, damaged, or of a newer version.
    """
    if not path.is_file():
        raise ModelError(
            "holds no regression", path=path.parent,
            remedy="make one with `hepgen-ml regress --from FILE --target NAME --out DIR`",
        )  # fmt: skip
    tensors, document = load_tensors(path)
    with documents.reading(path):
        if document.get("kind") != _KIND:
            raise ValueError("no regression")
        about = RegressionDocument.model_validate(document)
        if about.version > _VERSION:
            raise ValueError(f"of version {about.version}, this program knows {_VERSION}")
        encoder = about.encoder()
        sizes = {k: v for k, v in about.network.items() if k not in _GENERAL}
        expected = network_settings(
            encoder, Settings(network=str(about.network["name"]), sizes=sizes)
        )
        networks = [
            restored(lambda: Network(expected, about.bayesian), {
                name.partition(".")[2]: tensor for name, tensor in tensors.items()
                if name.partition(".")[0] == str(i)
            })
            for i in range(about.members)
        ]  # fmt: skip
    target = Target(**about.target.model_dump())
    a, b, c, d = about.calibration
    facts = dict(document["facts"])
    return (encoder, target, networks, Calibration((a, b, c, d)), facts), about.probe


class TargetDocument(documents.Document):
    """Stored form of `Target`."""

    name: documents.Text
    kind: Kind
    logarithmic: documents.Truth
    mean: documents.Number
    std: documents.Positive


Place = Annotated[int, Strict(), Field(ge=0, lt=MOST_KINDS)]
Particle = tuple[documents.Truth, documents.Integer]


class FactsDocument(documents.Document):
    """Facts about the training and the accuracy for held-out events that are shown."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, documents.Fact]

    network: documents.Text
    loss: documents.Text
    events: documents.Count
    steps: documents.Count
    seed: documents.Count
    seconds: documents.Amount
    held_out_events: documents.Count
    mse: documents.Amount
    median_error: documents.Amount
    error_99: documents.Amount
    pull_width: documents.Amount
    pull_widths: list[documents.Amount]


class RegressionDocument(documents.Document):
    """Contents of the file apart from tensors."""

    version: documents.Count
    network: dict[documents.Text, documents.Text | documents.Truth | documents.Integer]
    bayesian: documents.Truth
    members: Annotated[int, Strict(), Field(ge=1, le=100)]
    particles: Annotated[list[Particle], Field(min_length=1, max_length=MOST_KINDS)]
    signatures: Annotated[
        list[Annotated[list[Place], Field(min_length=1, max_length=MOST_PARTICLES)]],
        Field(min_length=1, max_length=MOST_SIGNATURES),
    ]
    columns: list[documents.Text]
    target: TargetDocument
    calibration: Annotated[list[documents.Number], Field(min_length=4, max_length=4)]
    facts: FactsDocument
    probe: ProbeDocument | None = None

    def encoder(self) -> Encoder:
        """Kinds of events of the training."""
        if not set(self.columns) <= set(COLUMNS):
            raise ValueError("columns that no event has")
        if max(max(s) for s in self.signatures) >= len(self.particles):
            raise ValueError("events of particles that are not described")
        return Encoder(
            tuple((bool(a), int(b)) for a, b in self.particles),
            tuple(tuple(s) for s in self.signatures), tuple(self.columns),
        )  # fmt: skip
