"""Configuration: every setting with its default, from TOML and ``key=value`` overrides."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hepgen_ml.errors import UsageError

_MAX_BYTES = 1 << 20


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkConfig(_Section):
    """Network of any model; the mixtures are those of JetGPT (arXiv:2305.10475, section 2.3)."""

    width: int = Field(128, ge=8, le=4096, description="Size of the hidden state.")
    blocks: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    mlp_ratio: int = Field(2, ge=1, le=8)
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Of what each layer of a transformer adds, in training."
    )
    mixtures: int = Field(32, ge=1, le=512, description="Components per coordinate.")


DensityName = Literal["mixtures", "gaussian", "von_mises", "bins"]
"""See `hepgen_ml.models.densities`; mixtures are von Mises for angles, Gaussian otherwise."""


class JetGPTConfig(_Section):
    """Densities, order of coordinates and Bayesian weights of JetGPT."""

    density: Literal["mixtures", "bins"] = Field("mixtures", description="Of all coordinates.")
    densities: dict[str, DensityName] = Field(
        default_factory=dict, description="By pattern of names; the first that fits counts."
    )
    bins: int = Field(64, ge=4, le=4096, description="Bins per coordinate.")
    order: tuple[str, ...] = Field(
        (), description="Patterns of names; coordinates that fit none come last."
    )
    bayesian: Literal["off", "last", "all"] = Field(
        "off", description="Weights with a posterior: of the output, or of all linear maps."
    )
    prior_std: float = Field(1.0, gt=0, description="Width of the prior of these weights.")


class SplittingConfig(_Section):
    """Number of jets as part of the likelihood, in `jetgpt-splitting` (arXiv:2412.12074)."""

    max_jets: int = Field(
        0, ge=0, le=1000, description="Most jets to generate; at least the sample's."
    )
    extrapolation: Literal["naive", "truncated", "override", "bootstrap"] = "naive"
    override_weight: float = Field(0.2, ge=0, description="lambda of equation 5.31.")
    pointers: bool = Field(True, description="Place jets relative to the objects before them too.")
    warm_up: float = Field(
        0.5, ge=0, lt=1, description="Fraction of training before bootstrapped events."
    )


class LGATrConfig(_Section):
    """Equivariant networks of `lgatr-cfm` and `gatr-cfm`.

    Sized for minutes of training on a few cores; the papers have 16 channels, 32 scalars,
    6 blocks and 8 heads (arXiv:2405.14806).
    """

    channels: int = Field(8, ge=1, le=1024, description="Multivector channels.")
    scalars: int = Field(32, ge=1, le=4096, description="Scalar channels.")
    blocks: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    reference: Literal["plane", "beams", "none"] = Field(
        "plane", description="What breaks the symmetry to that of the beams."
    )
    time: bool = Field(True, description="Give the time direction as a reference too.")
    reference_tokens: bool = Field(
        False, description="References as tokens of their own instead of channels."
    )


class TrainingConfig(_Section):
    """Optimisation."""

    batch_size: int = Field(1024, ge=1, le=2**30)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.02, ge=0, lt=1, description="Fraction of training spent warming up.")
    max_events: int = Field(
        0,
        ge=0,
        le=2**53,
        description="Use so many of each channel (number of jets) at most; 0: all.",
    )
    channel_power: float = Field(
        1.0, ge=0, le=1, description="Channels are drawn as their events to this power; 0: evenly."
    )
    channel_boost: float = Field(
        0.0, ge=0, description="Largest ratio of the draws of two events by it; 0: any."
    )
    max_steps: int = Field(40_000, ge=1, le=2**53)
    max_epochs: float = Field(200.0, gt=0, description="Passes over the training events.")
    max_time: float = Field(1200.0, gt=0, description="Seconds.")
    ema: float = Field(0.999, ge=0, lt=1, description="Decay per step of the averaged weights.")
    clip: float = Field(5.0, gt=0, description="Largest gradient norm.")
    validation_fraction: float = Field(0.05, gt=0, lt=1)
    validation_interval: int = Field(500, ge=1, le=2**53, description="Steps.")
    patience: int = Field(
        3,
        ge=0,
        le=2**53,
        description="Validations without gain before training ends early; 0: never.",
    )
    checkpoint_interval: float = Field(60.0, gt=0, description="Seconds.")
    classifier_rounds: int = Field(
        0, ge=0, le=100, description="Classifiers that weigh events in the loss, one after another."
    )
    classifier_power: float = Field(1.0, gt=0, description="Power of their weights.")
    exchange_beams: bool = Field(
        True, description="Train on mirror images too where both beams are equal."
    )
    reflect: bool = Field(
        False, description="Train on events reflected at a plane through the beams too."
    )
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = Field(False, description="Networks by torch.compile, for GPUs.")

    @field_validator("channel_boost")
    @classmethod
    def _ratio(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError("is a ratio of the larger to the smaller: 0 or at least 1")
        return value


Solver = Literal["euler", "midpoint", "heun2", "heun3", "rk4", "explicit_adams", "bosh3", "dopri5"]
"""See `hepgen_ml.models.ode`."""


class FlowConfig(_Section):
    """Integration of flow-matching models."""

    solver: Solver = "rk4"
    steps: int = Field(4, ge=1, le=10_000, description="Of solvers with fixed steps.")
    warp: float = Field(1.0, gt=0, description="Above one, smaller steps near the events.")
    tolerance: float = Field(1e-4, gt=0, description="Of bosh3 and dopri5.")
    divergence: Literal["exact", "hutchinson"] = "exact"
    likelihood_solver: Solver = "rk4"
    likelihood_steps: int = Field(10, ge=1, le=10_000)


class Config(_Section):
    """Everything that decides how a surrogate is built and trained."""

    model: Literal[
        "auto", "jetgpt", "jetgpt-splitting", "mlp-cfm", "transformer-cfm", "gatr-cfm", "lgatr-cfm"
    ] = "auto"
    network: NetworkConfig = NetworkConfig()
    jetgpt: JetGPTConfig = JetGPTConfig()
    splitting: SplittingConfig = SplittingConfig()
    lgatr: LGATrConfig = LGATrConfig()
    flow: FlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    cuts: tuple[str, ...] = Field(
        (), description="Cuts to train inside of, beside or instead of those found: pt(Jet) > 25."
    )
    find_cuts: bool = Field(
        True, description="Look for cuts at the edges of the sample; stated ones hold anyway."
    )
    resonances: tuple[str, ...] = Field(
        (), description="Objects of one particle, as in Z: Muon1 Muon2."
    )
    seed: int = Field(0, ge=0, lt=2**62)

    def with_(self, **changes: Any) -> Config:
        """Copy with top-level or dotted (``training__max_time``) values replaced."""
        data = self.model_dump(exclude_unset=True)  # what was not set may still be chosen
        for key, value in changes.items():
            _put(data, key.split("__"), value)
        return _validated(data, "the configuration")


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Configuration from a TOML file and ``section.key=value`` overrides.

    Parameters
    ----------
    path : path-like, optional
        TOML file; what it leaves out has its default.
    overrides : sequence of str
        Values are TOML too: numbers, true, "text" (quotes may be left out).

    Raises
    ------
    UsageError
        Unreadable file, unknown key or a value out of range.
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            with Path(path).open("rb") as file:
                content = file.read(_MAX_BYTES + 1)
            if len(content) > _MAX_BYTES:
                raise ValueError("larger than any configuration")
            data = tomllib.loads(content.decode())
        except OSError as error:
            raise UsageError(
                f"cannot be read: {error.strerror}", path=path, remedy="check the path"
            ) from None
        except (ValueError, RecursionError) as error:
            raise UsageError(f"is not TOML: {error}", path=path, remedy="mend it") from None
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"{override!r} sets nothing", remedy="write --set section.key=value")
        _put(data, key.strip().split("."), _value(text.strip()))
    return _validated(data, "--set" if path is None else str(path))


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{text[:40]!r} is no value: {error}", remedy="see docs/cli.md") from None


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UsageError(f"{key!r} is a value, not a section", remedy="see docs/cli.md")
    data[keys[-1]] = value


def _validated(data: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{source}: {key}: {first['msg']}", remedy="see docs/cli.md for the settings"
        ) from None
