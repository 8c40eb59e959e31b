"""Files of formats that hold partons only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hepgen_ml.errors import InputError, OutputError, UsageError
from hepgen_ml.events.interfaces import Reader
from hepgen_ml.events.objects import Selection
from hepgen_ml.events.sample import EventSample


def open_partons(
    reader: Callable[[], Reader], path: Path, selection: Selection | None, name: str
) -> Reader:
    """Open a file, whose cross section may be given.

    Parameters
    ----------
    reader : callable
        Opens the file.
    path : Path
    selection : Selection, optional
        Selection of the user.
    name : str
        Format of the file in messages.

    Raises
    ------
    InputError
        The file cannot be read.
    UsageError
        Objects are selected.
    """
    if selection is not None and selection.objects:
        raise UsageError(
            f"an {name} file holds partons, not reconstructed objects",
            path=path,
            remedy=f"leave out --objects and --jet-... for {name} files",
        )
    try:
        opened = reader()
    except OSError as error:
        said = error.strerror or (str(error).splitlines() or ["no reason given"])[0]
        raise InputError(
            f"cannot be read: {said}", path=path, remedy="check the path and its permissions"
        ) from error
    if selection is not None and selection.cross_section is not None:
        from hepgen_adapters._objects import with_cross_section

        opened.run = with_cross_section(opened.run, selection, path)
    return opened


def require_partons(sample: EventSample, name: str, path: Path | None = None) -> None:
    """Refuse to write reconstructed objects into a file of a format.

    Raises
    ------
    OutputError
        The sample has reconstructed objects.
    """
    if sample.is_reconstructed:
        raise OutputError(
            f"{name} cannot hold reconstructed objects", path=path, remedy="name the output .root"
        )
