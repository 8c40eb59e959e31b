"""Configuration: every setting with its default, from TOML and ``key=value`` overrides."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from hepgen_ml.errors import UsageError

AUTOMATIC = "auto"
"""Name of the model that the sample decides, see `hepgen_ml.models.choice`."""

_MAX_BYTES = 1 << 20


class Section(BaseModel):
    """Base of the settings of one section.

    Attributes
    ----------
    changeable : set of str
        Settings that may change when a training is resumed, because it does not depend on them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    changeable: ClassVar[frozenset[str]] = frozenset()


class BayesianSection(Section):
    """Base of the settings of models whose weights may have a posterior."""

    bayesian: Literal["off", "last", "all"] = Field(
        "off", description="Weights with a posterior: of the output, or of all linear maps."
    )
    prior_std: float = Field(1.0, gt=0, description="Width of the prior of these weights.")


Settings = TypeVar("Settings", bound=BaseModel)


class NetworkConfig(Section):
    """Size of the networks of any model."""

    width: int = Field(128, ge=8, le=4096, description="Size of the hidden state.")
    blocks: int = Field(4, ge=1, le=64)
    heads: int = Field(4, ge=1, le=64)
    mlp_ratio: int = Field(2, ge=1, le=8)
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Of what each layer of a transformer adds, in training."
    )
    mixtures: int = Field(32, ge=1, le=512, description="Mixture components per coordinate.")


class TrainingConfig(Section):
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
    weights: Literal["auto", "equal", "sample"] = Field(
        "auto",
        description="Weights of generated events: equal, or as in the sample, whose density is "
        "then learned as biased as it is; auto: sample where it is worth less than half of its "
        "events.",
    )
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


class Config(BaseModel):
    """Everything that decides how a surrogate is built and trained.

    Settings of density models are sections of their own, such as ``[flow]``. A model's settings
    live beside it; `hepgen_ml.models.registry` knows them by the names of models and sections.
    `section` gives them; a configuration that names a model has all of its sections.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    model: str = AUTOMATIC
    network: NetworkConfig = NetworkConfig()
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

    @model_validator(mode="before")
    @classmethod
    def _with_sections(cls, data: Any) -> Any:
        """Validate the sections of density models, and add those of the named one."""
        if not isinstance(data, Mapping):
            return data
        for key, kind in (("network", NetworkConfig), ("training", TrainingConfig)):
            _check_names(key, kind, data.get(key))
        model = data.get("model", AUTOMATIC)
        named = _sections_of(model) if isinstance(model, str) else {}
        made = dict(data)
        for key in {**{k: None for k in data if k not in cls.model_fields}, **named}:
            made[key] = _section(key, named.get(key) or _kind_of(key), data.get(key, {}))
        return made

    def section(self, kind: type[Settings]) -> Settings:
        """Settings of a density model, by the class that describes them."""
        for value in (self.__pydantic_extra__ or {}).values():
            if isinstance(value, kind):
                return value
        return kind()

    def fixed_settings(self) -> dict[str, dict[str, Any]]:
        """Settings of the model that may not change when its training is resumed, by section."""
        found = {}
        for key, kind in sections(self.model).items():
            if key not in type(self).model_fields:
                values = self.section(kind).model_dump()
                free = getattr(kind, "changeable", ())
                found[key] = {name: v for name, v in values.items() if name not in free}
        return found

    def with_(self, **changes: Any) -> Config:
        """Copy with top-level or dotted (``training__max_time``) values replaced."""
        data = self.model_dump(exclude_unset=True)  # what was not set may still be chosen
        data = {key: value for key, value in data.items() if value != {}}
        for key, value in changes.items():
            _put(data, key.split("__"), value)
        return _validated(data, "the configuration")


def _registry() -> Any:
    # By name, as a plug-in: settings are below the models and import nothing of them.
    return import_module("hepgen_ml.models.registry")


def sections(model: str) -> dict[str, type[BaseModel]]:
    """Sections that a model of this name has settings in; of all models for `AUTOMATIC`.

    Raises
    ------
    UsageError
        There is no such model.
    """
    return {
        "network": NetworkConfig,
        **(_registry().all_sections() if model == AUTOMATIC else _sections_of(model)),
        "training": TrainingConfig,
    }


def _sections_of(model: str) -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = (
        {} if model == AUTOMATIC else _registry().find(model).sections
    )
    return found


def _kind_of(key: str) -> type[BaseModel]:
    kind: type[BaseModel] | None = _registry().section(key)
    if kind is None:
        known = [*Config.model_fields, *_registry().all_sections()]
        raise ValueError(f"{key[:100]}: no such setting; there are {', '.join(known)}")
    return kind


def _check_names(key: str, kind: type[BaseModel], value: Any) -> None:
    """Name the settings of a section where one is given that it does not have."""
    if not isinstance(value, Mapping):
        return
    unknown = [name for name in value if name not in kind.model_fields]
    if unknown:
        known = ", ".join(f"{key}.{name}" for name in kind.model_fields)
        raise ValueError(
            f"{key}.{str(unknown[0])[:100]}: no such setting; there are {known or 'none'}"
        )


def _section(key: str, kind: type[BaseModel], value: Any) -> BaseModel:
    _check_names(key, kind, value)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(_first_problem(error, key)) from None


def _first_problem(error: ValidationError, *within: str) -> str:
    """Which setting is wrong, and why."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(str(part) for part in (*within, *first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


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
        raise UsageError(
            f"{source}: {_first_problem(error)}", remedy="see docs/cli.md for the settings"
        ) from None
