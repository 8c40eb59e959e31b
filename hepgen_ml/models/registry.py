"""Density models by name, those of other packages included; loads no torch.

A model is one file, in any package::

    @register("ddpm", settings=DiffusionConfig)
    class Diffusion(DensityModel):
        ...

It is found where the package that has the file names it in the entry-point group
``hepgen_ml.models``::

    [project.entry-points."hepgen_ml.models"]
    ddpm = "my_package.diffusion"

`hepgen_ml.models.base.DensityModel` says what to write. The settings are a pydantic model: the
section ``[ddpm]`` of a configuration, ``--set ddpm.steps=100`` on the command line, and
``config.section(DiffusionConfig)`` in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from hepgen_ml.config import AUTOMATIC, Config
from hepgen_ml.errors import UsageError
from hepgen_ml.models.names import BUILT_IN, GROUP, names

if TYPE_CHECKING:
    from hepgen_ml.models.base import DensityModel
    from hepgen_ml.process.process import Process

DEFAULT = "jetgpt"
"""Default model of a surrogate."""

Settings = type[BaseModel] | Mapping[str, type[BaseModel]] | None
"""Settings of a model: one class, in the section of the model's name, or classes by section."""

Density = TypeVar("Density", bound="type[DensityModel]")


@dataclass(frozen=True)
class Model:
    """A density model as it is registered.

    Attributes
    ----------
    name : str
    sections : dict of str to type
        Pydantic models of its settings, by the name of their section.
    load : callable
        Gives the class, whose module is imported by then.
    """

    name: str
    sections: dict[str, type[BaseModel]]
    load: Callable[[], type[DensityModel]]


_registered: dict[str, Model] = {}


def register(name: str, *, settings: Settings = None) -> Callable[[Density], Density]:
    """Register the decorated class as the density model of this name.

    Parameters
    ----------
    name : str
        As in ``hepgen-ml train --model NAME``.
    settings : type or mapping of str to type, optional
        A pydantic model (best a `hepgen_ml.config.Section`, which refuses nonsense such as nan), or
        several by the names of their sections.

    Raises
    ------
    TypeError
        A class that has neither a likelihood nor says so.
    UsageError
        The name is that of a model of hepgen-ml.
    """

    def decorate(density: Density) -> Density:
        given = next(c for c in density.__mro__ if "log_prob_z" in vars(c))
        if density.has_likelihood and given.__module__ == "hepgen_ml.models.base":
            raise TypeError(
                f"{density.__name__}: implement log_prob_z, or set has_likelihood = False"
            )
        _add(Model(name, _by_section(name, settings), lambda: density), density.__module__)
        return density

    return decorate


def register_lazily(name: str, place: str, settings: Settings = None) -> None:
    """Register a model whose class ``package.module:Class`` is imported when it is asked for.

    For folders whose ``__init__`` names their models, so that settings are known without torch.
    """
    module, _, attribute = place.partition(":")

    def load() -> type[DensityModel]:
        found: type[DensityModel] = getattr(import_module(module), attribute)
        return found

    _add(Model(name, _by_section(name, settings), load), module)


def _by_section(name: str, settings: Settings) -> dict[str, type[BaseModel]]:
    if isinstance(settings, Mapping):
        return dict(settings)
    return {} if settings is None else {name.replace("-", "_"): settings}


def _add(model: Model, module: str) -> None:
    if model.name == AUTOMATIC or (
        model.name in BUILT_IN and not module.startswith(BUILT_IN[model.name])
    ):
        raise UsageError(
            f"{module} registers a model named {model.name!r}, which hepgen-ml has itself",
            remedy="give it another name",
        )
    taken = {*Config.model_fields, "network", "training"} & set(model.sections)
    if taken:
        raise UsageError(
            f"{module} registers settings named {min(taken)!r}, which hepgen-ml has itself",
            remedy="give the section another name",
        )
    _registered[model.name] = model


def find(name: str) -> Model:
    """Model of this name.

    Raises
    ------
    UsageError
        There is no such model, or its package cannot be loaded.
    """
    if name in BUILT_IN:
        import_module(BUILT_IN[name])
    elif name not in _registered:
        entry = next((e for e in entry_points(group=GROUP) if e.name == name), None)
        if entry is None:
            known = [AUTOMATIC, *names(_registered)]
            near = "".join(f"did you mean {n}? " for n in get_close_matches(name[:100], known, 1))
            raise UsageError(
                f"there is no model {name[:100]!r}",
                remedy=f"{near}there are {', '.join(known)}; a model of another package has to be "
                "installed",
            )
        try:
            entry.load()
        except Exception as error:  # errors of other packages
            raise UsageError(
                f"model {name!r} cannot be loaded from {entry.value}: {error}",
                remedy="repair or remove the package that it comes with",
            ) from error
        if name not in _registered:
            raise UsageError(
                f"{entry.value} does not register a model {name!r}",
                remedy="add @register to its class",
            )
    return _registered[name]


def all_sections() -> dict[str, type[BaseModel]]:
    """Sections of all models known so far: ours, and those that have been loaded."""
    for name in BUILT_IN:
        find(name)
    return {key: kind for m in _registered.values() for key, kind in m.sections.items()}


def section(key: str) -> type[BaseModel] | None:
    """Settings of the section of this name, whichever model it belongs to."""
    known = all_sections()
    if key not in known:
        plugin = next((n for n in names(_registered) if n.replace("-", "_") == key), None)
        return None if plugin is None else find(plugin).sections.get(key)
    return known[key]


def density_class(config: Config) -> type[DensityModel]:
    """Class of the model that a configuration names."""
    return find(DEFAULT if config.model == AUTOMATIC else config.model).load()


def build(process: Process, config: Config) -> DensityModel:
    """Make the untrained model that a configuration names."""
    kind: Callable[[Process, Config], DensityModel] = density_class(config)
    if config.network.ensemble == 1:
        return kind(process, config)
    from hepgen_ml.models.ensemble import Ensemble

    return Ensemble(process, [kind(process, config) for _ in range(config.network.ensemble)])
