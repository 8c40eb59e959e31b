"""Configuration: every setting with its default, from TOML and ``key=value`` overrides."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hepgen_ml.config.problems import first_problem, no_such_setting, section_in_words
from hepgen_ml.config.sections import (
    BayesianSection,
    NetworkConfig,
    Section,
    TrainingConfig,
    refuse_flag,
)
from hepgen_ml.errors import UsageError

__all__ = [
    "AUTOMATIC", "BayesianSection", "Config", "NetworkConfig", "Section", "TrainingConfig",
    "load_config", "override_settings", "sections", "training_settings",
]  # fmt: skip

AUTOMATIC = "auto"
"""Name that stands for a model chosen by the sample, see `hepgen_ml.models.choice`."""

_MAX_BYTES = 1 << 20


Settings = TypeVar("Settings", bound=BaseModel)


class Config(BaseModel):
    """Everything that decides how a surrogate is built and trained.

    Settings of density models are sections of their own, such as ``[flow]``. A model's settings
    live beside it; `hepgen_ml.models.registry` knows them by the names of models and sections.
    `section` gives them; a configuration that names a model has all of its sections.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    model: str = Field(
        AUTOMATIC, description="Name of the density model; auto: chosen for the sample."
    )
    network: NetworkConfig = Field(
        NetworkConfig(), description="Size of the networks."
    )
    training: TrainingConfig = Field(TrainingConfig(), description="Training of the model.")
    cuts: tuple[str, ...] = Field(
        (),
        description="Cuts of the sample, such as pt(Jet) > 25. They replace cuts found for the "
        "same observable, and hold in every generated event.",
    )
    find_cuts: bool = Field(
        True, description="Search cuts at the edges of the sample, in addition to stated cuts."
    )
    resonances: tuple[str, ...] = Field(
        (),
        description="Reconstructed objects that come from the decay of one particle, such as Z: "
        "Muon1 Muon2.",
    )
    conditions: tuple[str, ...] = Field(
        (),
        description="Quantities on which events depend, by name: attributes of events, or "
        "parameters of the runs, such as mass:32.",
    )
    seed: int = Field(0, ge=0, lt=2**62, description="Seed of all random numbers of the training.")

    @field_validator("seed", mode="before")
    @classmethod
    def _no_flag_as_seed(cls, value: Any) -> Any:
        return refuse_flag(value, int)

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
            made[key] = _section(key, named.get(key) or _kind_of(key, data[key]), data.get(key, {}))
        return made

    @classmethod
    def of_stored(cls, data: Any) -> Config:
        """Configuration of a stored model, which may be older than some of its settings."""
        if isinstance(data, Mapping):
            kinds = {key: _registry().section(key) for key in data if key not in cls.model_fields}
            data = dict(data) | {
                key: kind.of_earlier(data[key]) for key, kind in kinds.items()
                if isinstance(data[key], dict) and kind is not None and issubclass(kind, Section)
            }  # fmt: skip
        return cls.model_validate(data)

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

    def without_effect(self, of_network: Collection[str] | None = None) -> list[str]:
        """Settings that were given, of sections that the model does not have.

        Also those of ``network`` apart from the ones that it uses, if these are told.
        """
        own = sections(self.model)
        found = [
            f"{key}.{name}" for key, value in (self.__pydantic_extra__ or {}).items()
            if key not in own for name in type(value).model_fields if name in value.model_fields_set
        ]  # fmt: skip
        if of_network is None:
            return found
        others = set(NetworkConfig.model_fields) - {*of_network, "ensemble"}
        given = self.network.model_fields_set & others
        return [*found, *(f"network.{n}" for n in NetworkConfig.model_fields if n in given)]

    def with_(self, **changes: Any) -> Config:
        """Copy with top-level or dotted (``training__max_time``) values replaced."""
        data = self.model_dump(exclude_unset=True)  # what was not set may still be chosen
        data = {key: value for key, value in data.items() if value != {}}
        for key, value in changes.items():
            _put(data, key.split("__"), value)
        return _validated(data)


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


def _kind_of(key: str, value: Any) -> type[BaseModel]:
    kind: type[BaseModel] | None = _registry().section(key)
    if kind is None:
        elsewhere = () if isinstance(value, Mapping) else _all_names()  # sections are like sections
        raise ValueError(no_such_setting(key, [*Config.model_fields, *_models()], elsewhere))
    return kind


def _models() -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = _registry().all_sections()
    return found


def _all_names() -> list[str]:
    """Names of all settings in sections, of the networks and the training first."""
    kinds: dict[str, type[BaseModel]] = {
        "network": NetworkConfig, "training": TrainingConfig, **_models()
    }  # fmt: skip
    return [f"{key}.{name}" for key, kind in kinds.items() for name in kind.model_fields]


def _check_names(key: str, kind: type[BaseModel], value: Any) -> None:
    """Name the nearest setting of a section where one is given that it does not have."""
    if not isinstance(value, Mapping):
        return
    unknown = [name for name in value if name not in kind.model_fields]
    if unknown:
        known = [f"{key}.{name}" for name in kind.model_fields]
        elsewhere = [*Config.model_fields, *_all_names()]
        raise ValueError(no_such_setting(f"{key}.{unknown[0]}", known, elsewhere))


def _section(key: str, kind: type[BaseModel], value: Any) -> BaseModel:
    _check_names(key, kind, value)
    if not isinstance(value, (Mapping, BaseModel)):
        like = section_in_words(key, next(iter(kind.model_fields), "…"))
        raise ValueError(f"{key}: expected {like}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(first_problem(error, kind, key)) from None


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Configuration from a TOML file and ``section.key=value`` overrides.

    Parameters
    ----------
    path : path-like, optional
        TOML file; settings that it does not contain have their defaults.
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
            raise UsageError(f"is not TOML: {error}", path=path, remedy="correct it") from None
    override_settings(data, overrides)
    return _validated(data, path, {text.partition("=")[0].strip() for text in overrides})


def override_settings(data: dict[str, Any], overrides: Sequence[str]) -> None:
    """Put values of ``section.key=value`` into settings by section, in place.

    Raises
    ------
    UsageError
        One sets nothing, or sets a value as a section.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        keys = [part.strip() for part in key.split(".")]
        if not separator or not all(keys):
            raise UsageError(f"{override!r} sets nothing", remedy="write --set section.key=value")
        _put(data, keys, _value(text.strip()))


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
        found = first_problem(error, TrainingConfig, "training")
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


def _validated(
    data: dict[str, Any], path: str | Path | None = None, overridden: Iterable[str] = ()
) -> Config:
    """The configuration; errors name the file unless the setting was given otherwise."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        found = first_problem(error, Config)
    except UsageError as error:  # of the model, whose settings are not known
        place = None if "model" in overridden else path
        raise UsageError(error.message, remedy=error.remedy, path=place) from error
    name = found.partition(":")[0]
    section = name.partition(".")[0]
    lists = f"hepgen-ml settings {section}" if section in _sectioned() else "hepgen-ml settings"
    raise UsageError(
        found,
        path=None if any(_one_in_other(name, key) for key in overridden) else path,
        remedy=f"{lists} lists the settings",
    )


def _sectioned() -> set[str]:
    return {"network", "training", *_models()}


def _one_in_other(name: str, other: str) -> bool:
    return f"{name}.".startswith(f"{other}.") or f"{other}.".startswith(f"{name}.")
