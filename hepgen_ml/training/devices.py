"""Compute devices by name."""

from __future__ import annotations

import torch

from hepgen_ml.errors import UsageError


def find_device(name: str) -> torch.device:
    """Device by name; ``auto`` selects an accelerator if there is one.

    Raises
    ------
    UsageError
        No such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()  # some devices hold no numbers
        torch.Generator(device=device)
    except (RuntimeError, AssertionError, ImportError, AttributeError) as error:
        first = str(error).splitlines()[0].partition(". ")[0][:200]
        raise UsageError(f"device {name!r}: {first}", remedy="use --device cpu") from None
    return device
