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
        "off",
        description="Which weights have a posterior: none, those of the output (last), or those "
        "of all linear maps (all).",
    )
    prior_std: float = Field(
        1.0, gt=0, description="Standard deviation of the Gaussian prior of these weights."
    )


Settings = TypeVar("Settings", bound=BaseModel)


class NetworkConfig(Section):
    """Size of the networks of any model."""

    width: int = Field(128, ge=8, le=4096, description="Size of the hidden state.")
    blocks: int = Field(
        4, ge=1, le=64, description="Transformer blocks, or residual blocks of an MLP."
    )
    heads: int = Field(4, ge=1, le=64, description="Attention heads of each transformer block.")
    mlp_ratio: int = Field(
        2, ge=1, le=8, description="Width of the feed-forward layers, in units of network.width."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Dropout of the output of each transformer layer in training; 0.1 delays "
        "overfitting of small samples.",
    )
    mixtures: int = Field(
        32, ge=1, le=512, description="Components of each coordinate's mixture density."
    )
    ensemble: int = Field(
        1, ge=1, le=100, description="Number of networks that are trained side by side."
    )


class TrainingConfig(Section):
    """Optimisation."""

    batch_size: int = Field(1024, ge=1, le=2**30, description="Events per step.")
    accumulate: int = Field(
        1,
        ge=1,
        le=2**20,
        description="Pieces in which the gradient of each batch is computed, one after the other, "
        "where it does not fit into memory at once. Processes that train together share them.",
    )
    learning_rate: float = Field(3e-3, gt=0, description="Highest learning rate.")
    weight_decay: float = Field(0.1, ge=0, description="Weight decay of AdamW, on matrices only.")
    warmup: float = Field(
        0.02,
        ge=0,
        lt=1,
        description="Fraction of the training in which the learning rate rises to its highest "
        "value.",
    )
    max_events: int = Field(
        0,
        ge=0,
        le=2**53,
        description="Largest number of training events of each channel (number of jets); rates "
        "are kept. 0: all events.",
    )
    channel_power: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Batches hold channels (numbers of jets) in proportion to their events to "
        "this power; 0: evenly. Rates are kept.",
    )
    channel_boost: float = Field(
        0.0,
        ge=0,
        description="Largest factor by which events of a channel are drawn more often than those "
        "of the largest one; 0: no limit.",
    )
    max_steps: int = Field(40_000, ge=1, le=2**53, description="Largest number of training steps.")
    max_epochs: float = Field(
        200.0,
        gt=0,
        description="Largest number of passes over the training events; mirror images count as "
        "events.",
    )
    max_time: float = Field(
        1200.0, gt=0, description="Largest training time in seconds; --max-time replaces it."
    )
    ema: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="Decay per step of the averaged weights, which generate the events.",
    )
    clip: float = Field(
        5.0, gt=0, description="Largest norm of the gradient; longer ones are scaled down to it."
    )
    validation_fraction: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Fraction of the events that are held out for the validation loss and never "
        "trained on.",
    )
    validation_interval: int = Field(
        500,
        ge=1,
        le=2**53,
        description="Steps between two validations; in small samples fewer, so that there is one "
        "in two passes over the events.",
    )
    patience: int = Field(
        3,
        ge=0,
        le=2**53,
        description="Validations without improvement after which training returns to the best "
        "weights and lets the learning rate fall to zero within a quarter of the training so far; "
        "0: never. Not used in Bayesian and bootstrap trainings.",
    )
    checkpoint_interval: float = Field(60.0, gt=0, description="Seconds between two checkpoints.")
    classifier_rounds: int = Field(
        0,
        ge=0,
        le=100,
        description="How often, after 40 % of the training, a classifier between true and "
        "generated events is trained and its weights enter the loss.",
    )
    classifier_power: float = Field(
        1.0, gt=0, description="Power of the classifier's weights in the loss."
    )
    weights: Literal["auto", "equal", "sample"] = Field(
        "auto",
        description="Weights of generated events. equal: all the same, whatever those of the "
        "sample; sample: the biased density of the events as they are is learned, with weights "
        "that undo the bias; auto: sample where the events are worth less than half as many "
        "events of equal weight.",
    )
    variations: tuple[str, ...] = Field(
        ("*",),
        description="Named weights of the sample that generated events are to have too, by "
        "patterns such as MUR*; [] for none.",
    )
    variations_share: float = Field(
        0.15, gt=0, lt=1, description="Part of the time that is spent on learning these weights."
    )
    exchange_beams: bool = Field(
        True,
        description="Train on mirror images too where both beams are equal, an exact symmetry of "
        "unpolarised beams.",
    )
    reflect: bool = Field(
        False,
        description="Train on events reflected at a plane through the beams too, a symmetry of "
        "processes without parity violation.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Numbers in the transformer blocks in training."
    )
    compile: bool = Field(
        False,
        description="Compile the networks with torch.compile; meant for GPUs, and needs a C++ "
        "compiler.",
    )

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

    model: str = Field(
        AUTOMATIC, description="Name of the density model; auto: the sample decides."
    )
    network: NetworkConfig = Field(
        NetworkConfig(), description="Size of the networks of any model."
    )
    training: TrainingConfig = Field(TrainingConfig(), description="How the model is trained.")
    cuts: tuple[str, ...] = Field(
        (),
        description="Cuts of the sample, such as pt(Jet) > 25: they replace those found for the "
        "same quantity, and hold in every generated event.",
    )
    find_cuts: bool = Field(
        True, description="Look for cuts at the edges of the sample; stated cuts hold in any case."
    )
    resonances: tuple[str, ...] = Field(
        (),
        description="Reconstructed objects that come from the decay of one particle, such as Z: "
        "Muon1 Muon2.",
    )
    conditions: tuple[str, ...] = Field(
        (),
        description="What events depend on, by name: their attributes or parameters of the runs, "
        "such as mass:32.",
    )
    seed: int = Field(0, ge=0, lt=2**62, description="Seed of all random numbers of the training.")

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
    override_settings(data, overrides)
    return _validated(data, "--set" if path is None else str(path))


def override_settings(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put values of ``section.key=value`` into settings by section, in place.

    Raises
    ------
    UsageError
        One sets nothing, or sets a value as a section.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise UsageError(f"{override!r} sets nothing", remedy="write --set section.key=value")
        _put(data, key.strip().split("."), _value(text.strip()))


def training_settings(values: Mapping[str, Any], defaults: TrainingConfig) -> TrainingConfig:
    """Settings of a training with these values instead of its defaults.

    Raises
    ------
    UsageError
        No such setting, or a value out of range.
    """
    try:
        _check_names("training", TrainingConfig, values)
        return TrainingConfig.model_validate(defaults.model_dump() | dict(values))
    except ValidationError as error:
        found = _first_problem(error, "training")
    except ValueError as error:
        found = str(error)
    raise UsageError(found, remedy="hepgen-ml settings training lists them")


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{text[:40]!r} is not a value: {error}", remedy="hepgen-ml settings shows the values"
        ) from None


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UsageError(
                f"{key!r} is a value, not a section", remedy="hepgen-ml settings lists the sections"
            )
    data[keys[-1]] = value


def _validated(data: dict[str, Any], source: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise UsageError(
            f"{source}: {_first_problem(error)}", remedy="hepgen-ml settings lists the settings"
        ) from None
