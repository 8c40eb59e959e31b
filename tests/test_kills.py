"""Runs that are killed at random moments, see `tests.kills`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests import kills


def test_generate_is_killed(tmp_path: Path) -> None:
    kills.generating(tmp_path, random.Random(1), 2)


@pytest.mark.slow
def test_generate_is_killed_often(tmp_path: Path) -> None:
    kills.generating(tmp_path, random.Random(2), 12)


@pytest.mark.slow
def test_train_is_killed_often(tmp_path: Path) -> None:
    kills.training(tmp_path, random.Random(3), 12)
